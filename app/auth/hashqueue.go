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
	waiting []*hashTurn // in the order of their turns: the least suspect first, then by arrival
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

// line takes a place in the queue; nil means that it is its turn already. Of too many, the last is sent away.
func (q *hashQueue) line(suspicion int) *hashTurn {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.free > 0 {
		q.free--
		return nil
	}
	t := &hashTurn{suspicion: suspicion, answer: make(chan error, 1)}
	place := slices.IndexFunc(q.waiting, func(w *hashTurn) bool { return w.suspicion > suspicion })
	if place < 0 {
		place = len(q.waiting)
	}
	q.waiting = slices.Insert(q.waiting, place, t)
	if len(q.waiting) > maxWaiting {
		q.waiting[maxWaiting].answer <- errTooManySignIn
		q.waiting = slices.Delete(q.waiting, maxWaiting, maxWaiting+1)
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
	q.waiting[0].answer <- nil
	q.waiting = slices.Delete(q.waiting, 0, 1)
}

// remove takes t out of the queue, and reports whether it was still there.
func (q *hashQueue) remove(t *hashTurn) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	before := len(q.waiting)
	q.waiting = slices.DeleteFunc(q.waiting, func(w *hashTurn) bool { return w == t })
	return len(q.waiting) < before
}
