// Package logtest is a log, or another output, that a test reads while what it tests still writes. It knows nothing of
// what is written, and starts nothing, so that every test may use it.
//
// It is for tests alone: nothing but _test files may import it.
package logtest

import (
	"bytes"
	"slices"
	"strings"
	"sync"
)

// Log keeps what was written. The zero value is ready, and it is safe for concurrent use.
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

// String is all that was written so far.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// Lines are those that hold all of the words, in the order in which they were written.
func (l *Log) Lines(words ...string) (found []string) {
	for line := range strings.Lines(l.String()) {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
			found = append(found, line)
		}
	}
	return found
}

// Count is how many lines hold all of the words.
func (l *Log) Count(words ...string) int { return len(l.Lines(words...)) }
