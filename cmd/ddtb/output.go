package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// output is the writer of a command's text. Text from servers and other users reaches a terminal as text: control
// characters, invisible characters and those that change the writing direction are escaped as in JSON, "\u001b", so
// that a JSON document stays equivalent. Line feeds and tabs are kept.
type output struct {
	w       io.Writer
	colour  bool // a terminal: colour sequences are kept as well
	mu      sync.Mutex
	partial []byte // an incomplete character at the end of the last write
}

// Fd returns the descriptor of the underlying file, for terminal queries; an invalid one if it is not a file.
func (o *output) Fd() uintptr {
	if f, ok := o.w.(*os.File); ok {
		return f.Fd()
	}
	return ^uintptr(0)
}

// below returns the writer that w filters for.
func below(w io.Writer) io.Writer {
	if o, ok := w.(*output); ok {
		return o.w
	}
	return w
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.partial) == 0 && plainASCII(p) {
		return o.w.Write(p)
	}
	text := append(o.partial, p...)
	text, rest := whole(text)
	_, err := o.w.Write(o.clean(text))
	o.partial = bytes.Clone(rest)
	return len(p), err
}

// plainASCII reports whether p needs no filtering.
func plainASCII(p []byte) bool {
	for _, b := range p {
		if b >= 0x7f || b < ' ' && b != '\n' && b != '\t' {
			return false
		}
	}
	return true
}

// whole separates an incomplete character at the end.
func whole(p []byte) (whole, rest []byte) {
	for i := len(p) - 1; i >= 0 && i >= len(p)-utf8.UTFMax; i-- {
		if utf8.RuneStart(p[i]) {
			if !utf8.FullRune(p[i:]) {
				return p[:i], p[i:]
			}
			break
		}
	}
	return p, nil
}

func (o *output) clean(p []byte) []byte {
	out := make([]byte, 0, len(p)+16)
	for len(p) > 0 {
		if n := o.colouring(p); n > 0 {
			out, p = append(out, p[:n]...), p[n:]
			continue
		}
		r, n := utf8.DecodeRune(p)
		p = p[n:]
		if harmless(r) {
			out = utf8.AppendRune(out, r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			out = fmt.Appendf(out, `\u%04x`, unit)
		}
	}
	return out
}

// harmless reports whether a terminal displays r without side effects. Joiners are part of words and emoji.
func harmless(r rune) bool {
	switch r {
	case '\n', '\t', '\u200c', '\u200d':
		return true
	}
	return !unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Zl, unicode.Zp)
}

// colouring returns the length of the colour sequence at the beginning of p; 0 if there is none.
func (o *output) colouring(p []byte) int {
	if !o.colour || !bytes.HasPrefix(p, []byte("\x1b[")) {
		return 0
	}
	n := 2
	for n < len(p) && n < 16 && (p[n] >= '0' && p[n] <= '9' || p[n] == ';') {
		n++
	}
	if n < len(p) && p[n] == 'm' {
		return n + 1
	}
	return 0
}

// maxQueued is the maximum number of queued log bytes for a slow reader.
const maxQueued = 1 << 20

// logSink writes the log in the background, so that logging never waits for the reader. Lines that don't fit into the
// queue are dropped; once the log is read again, it says how many.
type logSink struct {
	w       io.Writer
	mu      sync.Mutex
	queue   []byte
	dropped int
	closed  bool
	wake    chan struct{}
	done    chan struct{}
}

func newLogSink(w io.Writer) *logSink {
	s := &logSink{w: w, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go s.run()
	return s
}

// Write queues a line, or drops it. It never fails, and never waits for the underlying writer.
func (s *logSink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.queue)+len(p) > maxQueued {
		s.dropped++
		return len(p), nil
	}
	s.queue = append(s.queue, p...)
	s.rouse()
	return len(p), nil
}

func (s *logSink) rouse() {
	select {
	case s.wake <- struct{}{}:
	default: // it is awake already, and will write the line
	}
}

func (s *logSink) run() {
	defer close(s.done)
	var spare []byte
	for range s.wake {
		for {
			lines, dropped, closed := s.take(spare)
			if dropped > 0 {
				lines = fmt.Appendf(lines, "time=%s level=WARN msg=\"the log was not read fast enough, and lines were dropped\" count=%d\n",
					time.Now().Format("2006-01-02T15:04:05.000Z07:00"), dropped)
			}
			if len(lines) == 0 {
				if closed {
					return
				}
				break
			}
			_, _ = s.w.Write(lines) // an error of the log can't be logged
			spare = lines[:0]
		}
	}
}

// take returns the queued lines, and replaces them by the spare buffer.
func (s *logSink) take(spare []byte) (lines []byte, dropped int, closed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	lines, dropped = s.queue, s.dropped
	s.queue, s.dropped = spare, 0
	return lines, dropped, s.closed
}

// close writes the queue, for at most patience.
func (s *logSink) close(patience time.Duration) {
	s.mu.Lock()
	s.closed = true
	s.rouse()
	s.mu.Unlock()
	select {
	case <-s.done:
	case <-time.After(patience):
	}
}
