// Package logtest provides a log, or another output, that a test reads while the tested code still writes. It does not
// depend on the content and starts no goroutine, so every test may use it.
//
// It is for tests only: only _test files may import it.
package logtest

import (
	"bytes"
	"slices"
	"strings"
	"sync"
)

// Log keeps everything that was written. The zero value is ready to use, and Log is safe for concurrent use.
type Log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write never fails.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// String returns everything written so far.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// Lines returns the lines that contain all of the words, in the order in which they were written.
func (l *Log) Lines(words ...string) (found []string) {
	for line := range strings.Lines(l.String()) {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
			found = append(found, line)
		}
	}
	return found
}

// Count returns how many lines contain all of the words.
func (l *Log) Count(words ...string) int { return len(l.Lines(words...)) }
