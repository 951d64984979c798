package auth

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"ddtb/app/fault"
)

// maxWaiting is the maximum number of passwords waiting to be hashed.
const maxWaiting = 64

// hasher hashes as many passwords at once as there are processors, and limits how many wait: hashing is the one operation
// here that an anonymous client can make expensive. Among the waiting logins, those with the fewest failures come first, so
// that a guessing attack does not block legitimate users: see attempt.suspicion.
type hasher struct {
	mu      sync.Mutex
	free    int
	waiting []*hashTurn // in the order of their turns: the least suspect first, then by arrival
}

func newHasher() *hasher { return &hasher{free: runtime.GOMAXPROCS(0)} }

// hashTurn is a waiting login.
type hashTurn struct {
	suspicion int
	answer    chan error // nil: it is its turn
}

var errTooManySignIn = &fault.Error{
	Kind: fault.TooManyTries, RetryAfter: 5 * time.Second,
	Public: "Too many people are signing in at this moment. Try again in a few seconds.",
}

// enter waits for a turn. It fails if too many are waiting and none of them is more suspect.
func (h *hasher) enter(ctx context.Context, suspicion int) error {
	t := h.line(suspicion)
	if t == nil {
		return nil
	}
	select {
	case err := <-t.answer:
		return err
	case <-ctx.Done():
	}
	if !h.remove(t) {
		if err := <-t.answer; err == nil { // it got its turn at the same moment
			h.leave()
		}
	}
	return fmt.Errorf("waiting to hash a password: %w", ctx.Err())
}

// line takes a place in the queue; nil means that it is its turn already. Of too many, the last is sent away.
func (h *hasher) line(suspicion int) *hashTurn {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.free > 0 {
		h.free--
		return nil
	}
	t := &hashTurn{suspicion: suspicion, answer: make(chan error, 1)}
	place := slices.IndexFunc(h.waiting, func(w *hashTurn) bool { return w.suspicion > suspicion })
	if place < 0 {
		place = len(h.waiting)
	}
	h.waiting = slices.Insert(h.waiting, place, t)
	if len(h.waiting) > maxWaiting {
		h.waiting[maxWaiting].answer <- errTooManySignIn
		h.waiting = slices.Delete(h.waiting, maxWaiting, maxWaiting+1)
	}
	return t
}

// leave gives the turn to the next.
func (h *hasher) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.waiting) == 0 {
		h.free++
		return
	}
	h.waiting[0].answer <- nil
	h.waiting = slices.Delete(h.waiting, 0, 1)
}

// remove takes t out of the queue, and reports whether it was still there.
func (h *hasher) remove(t *hashTurn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	before := len(h.waiting)
	h.waiting = slices.DeleteFunc(h.waiting, func(w *hashTurn) bool { return w == t })
	return len(h.waiting) < before
}
