package db

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"
)

// places hands out at most size places at once. A request that finds none waits in the queue. places does not depend on
// connections.
type places struct {
	size    int  // 0: no bound, unless tickets is set
	tickets bool // size follows the tickets of the budget

	mu     sync.Mutex
	taken  int           // places in use
	limit  int           // temporarily less than size, after the server had no slot for more; 0: size
	growth *time.Timer   // ends the limit
	idle   chan struct{} // closed when the last place is freed; nil: no caller waits for that
	closed bool          // no more places are given
	queue

	refused int64
}

// acquire takes a place and returns how long that took. urgent is for a request that has had a lease already: it may wait
// for the whole timeout, since its work would be lost otherwise. since is when the request began to wait, if it has
// waited before: it then comes before those that began later.
func (p *places) acquire(ctx context.Context, urgent bool, since time.Time) (time.Duration, error) {
	if ctx.Err() != nil {
		return 0, tooLate(ctx)
	}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return 0, ErrClosed
	}
	p.noteDemand()
	if p.free() {
		p.taken++
		p.mu.Unlock()
		return 0, nil
	}
	if !since.IsZero() || !p.refuses(urgent) {
		return p.enter(ctx, since)
	}
	p.refused++
	err := p.connError(QueueFull, 0)
	p.mu.Unlock()
	return 0, err
}

// free reports whether there is a free place. Outside of freed, no request waits then. The lock is held.
func (p *places) free() bool { return p.unbounded() || p.taken < min(cmp.Or(p.limit, p.size), p.size) }

func (p *places) unbounded() bool { return p.size == 0 && !p.tickets }

// release frees a place for the first waiter.
func (p *places) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.releaseLocked()
}

func (p *places) releaseLocked() {
	p.taken--
	p.freed()
}

// freed is called when there may be free places. It closes p if no place is taken and drained was called. The lock is held.
func (p *places) freed() {
	p.handOver()
	if p.taken == 0 && p.idle != nil {
		close(p.idle)
		p.idle = nil
		p.close()
	}
}

// resize sets the number of places.
func (p *places) resize(size int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.size = size
	p.freed()
}

// close ends the handing out of places. None is in use. Requests can still wait, for the first ticket of a budget: they get
// ErrClosed. The lock is held.
func (p *places) close() {
	p.closed = true
	if p.growth != nil {
		p.limit = 0
		p.growth.Stop()
	}
	p.failLocked(ErrClosed)
}

// drained returns a channel that is closed when no place is taken. From then on none is given: requests get ErrClosed.
func (p *places) drained() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.idle == nil {
		p.idle = make(chan struct{})
	}
	idle := p.idle
	p.freed() // closes it if no place is taken
	return idle
}

// addStat adds the figures of the places and of the queue.
func (p *places) addStat(s *Stat) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.Size = p.size
	if p.tickets {
		s.Size = max(1, p.size) // 0 would mean no bound
	}
	s.Leases, s.Refused = p.taken, p.refused
	p.addQueueStat(s)
}

// connError returns an error with the current figures. The lock is held.
func (p *places) connError(cause Cause, waited time.Duration) *ConnError {
	err := &ConnError{Cause: cause, Waited: waited, Size: p.size, Leases: p.taken}
	p.describeWait(err)
	return err
}

// tooLate is the error of a request that had no time left when it asked.
func tooLate(ctx context.Context) error {
	return fmt.Errorf("asked for a connection too late: %w", ctx.Err())
}
