package web

import (
	"log/slog"
	"sync"
	"time"
)

// quietLog limits log lines that may occur a thousand times a second. The first line of each kind is logged at once;
// the others are counted, and logged as one line per second.
type quietLog struct {
	mu    sync.Mutex
	kinds map[kindOfLine]int // occurrences since the last line; only kinds that are being limited
}

// kindOfLine identifies a kind of line. It must not contain text from a client.
type kindOfLine struct {
	level                  slog.Level
	status                 int
	title, cause, sqlState string
}

const (
	quietFor = time.Second
	maxKinds = 100 // being limited at once; further kinds are not logged
)

// first reports whether a line of this kind must be logged now. If not, more is called within a second with the number
// of such lines.
func (q *quietLog) first(kind kindOfLine, more func(kind kindOfLine, count int)) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, quiet := q.kinds[kind]
	switch {
	case quiet:
		q.kinds[kind] = n + 1
		return false
	case len(q.kinds) >= maxKinds:
		return false
	case q.kinds == nil:
		q.kinds = map[kindOfLine]int{}
	}
	q.kinds[kind] = 0
	time.AfterFunc(quietFor, func() { q.summarize(kind, more) })
	return true
}

func (q *quietLog) summarize(kind kindOfLine, more func(kind kindOfLine, count int)) {
	q.mu.Lock()
	n := q.kinds[kind]
	if n == 0 {
		delete(q.kinds, kind)
	} else {
		q.kinds[kind] = 0
		time.AfterFunc(quietFor, func() { q.summarize(kind, more) })
	}
	q.mu.Unlock()
	if n > 0 {
		more(kind, n)
	}
}
