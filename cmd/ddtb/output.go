package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// output is the writer of a command's text. Text from servers and other users reaches a terminal as text: control
// characters, invisible characters and those that change the writing direction are escaped as in JSON, "\u001b", so
// that a JSON document stays equivalent. Line feeds and tabs are kept. A write has whole characters.
type output struct {
	w      io.Writer
	colour bool // a terminal: colour sequences are kept as well
	mu     sync.Mutex
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
	if _, err := o.w.Write(o.clean(p)); err != nil {
		return 0, err
	}
	return len(p), nil
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

// maxQueued is the maximum number of queued log lines for a slow reader.
const maxQueued = 2048

// logSink writes the log in the background, so that logging never waits for the reader. Lines that don't fit into the
// queue are dropped; once the log is read again, it says how many.
type logSink struct {
	w          io.Writer
	lines      chan []byte
	dropped    atomic.Int64
	stop, done chan struct{}
}

func newLogSink(w io.Writer) *logSink {
	s := &logSink{w: w, lines: make(chan []byte, maxQueued), stop: make(chan struct{}), done: make(chan struct{})}
	go s.run()
	return s
}

// Write queues a line, or drops it. It never fails, and never waits for the underlying writer.
func (s *logSink) Write(p []byte) (int, error) {
	select {
	case s.lines <- bytes.Clone(p):
	default:
		s.dropped.Add(1)
	}
	return len(p), nil
}

func (s *logSink) run() {
	defer close(s.done)
	for stop := s.stop; stop != nil || len(s.lines) > 0; {
		var line []byte
		select {
		case line = <-s.lines:
		case <-stop:
			stop = nil
		}
		if n := s.dropped.Swap(0); n > 0 {
			line = fmt.Appendf(line, "time=%s level=WARN msg=\"the log was not read fast enough, and lines were dropped\" count=%d\n",
				time.Now().Format("2006-01-02T15:04:05.000Z07:00"), n)
		}
		_, _ = s.w.Write(line) // an error of the log can't be logged
	}
}

// close writes the queue, for at most patience.
func (s *logSink) close(patience time.Duration) {
	close(s.stop)
	select {
	case <-s.done:
	case <-time.After(patience):
	}
}
