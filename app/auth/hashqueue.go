package auth

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"ddtb/app/fault"
)

// maxWaiting is the maximum number of passwords waiting to be hashed.
const maxWaiting = 64

// hashQueue allows as many concurrent hashes as there are processors. Among the waiting logins, those with the fewest
// failures come first, so that a guessing attack does not block legitimate users: see attempt.suspicion.
type hashQueue struct {
	mu      sync.Mutex
	free    int
	waiting []*hashTurn // in order of arrival
}

// hashTurn is a waiting login.
type hashTurn struct {
	suspicion int
	answer    chan error // nil: it is its turn
}

var errTooManySignIn = fault.New(fault.TooManyTries, "Too many people are signing in at this moment. Try again in a few seconds.")

// enter waits for a turn. It fails if too many are waiting and none of them is more suspect.
func (q *hashQueue) enter(ctx context.Context, suspicion int) error {
	t := q.line(suspicion)
	if t == nil {
		return nil
	}
	select {
	case err := <-t.answer:
		return err
	case <-ctx.Done():
	}
	if !q.remove(t) {
		if err := <-t.answer; err == nil { // it got its turn at the same moment
			q.leave()
		}
	}
	return fmt.Errorf("waiting to hash a password: %w", ctx.Err())
}

// line takes a place in the queue; nil means that it is its turn already.
func (q *hashQueue) line(suspicion int) *hashTurn {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.free > 0 {
		q.free--
		return nil
	}
	t := &hashTurn{suspicion: suspicion, answer: make(chan error, 1)}
	q.waiting = append(q.waiting, t)
	if len(q.waiting) > maxWaiting {
		last := q.waiting[0]
		for _, w := range q.waiting {
			if w.suspicion >= last.suspicion {
				last = w
			}
		}
		q.drop(last)
		last.answer <- errTooManySignIn
	}
	return t
}

// leave gives the turn to the next.
func (q *hashQueue) leave() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		q.free++
		return
	}
	next := q.waiting[0]
	for _, w := range q.waiting {
		if w.suspicion < next.suspicion {
			next = w
		}
	}
	q.drop(next)
	next.answer <- nil
}

// remove takes t out of the queue, and reports whether it was still there.
func (q *hashQueue) remove(t *hashTurn) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.drop(t)
}

func (q *hashQueue) drop(t *hashTurn) bool {
	i := slices.Index(q.waiting, t)
	if i < 0 {
		return false
	}
	q.waiting = slices.Delete(q.waiting, i, i+1)
	return true
}
