package web

import (
	"sync"
	"time"
)

// quietLog is a log of what may happen a thousand times a second: of each kind the first is logged at once, and the
// others with their number, one line a second.
type quietLog struct {
	mu    sync.Mutex
	kinds map[kindOfLine]int // how many came since the last line; kinds that are not quiet now are not there
}

// kindOfLine tells lines apart: what a client makes up must not be in it.
type kindOfLine struct{ title, cause, sqlState string }

const (
	quietFor = time.Second
	maxKinds = 100 // of those that are quiet at once; more are not logged
)

// first reports whether a line of this kind is to be logged now. If not, more is called with the number of those like
// it within a second.
func (q *quietLog) first(kind kindOfLine, more func(count int)) bool {
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

func (q *quietLog) summarize(kind kindOfLine, more func(count int)) {
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
		more(n)
	}
}
