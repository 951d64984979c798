package db

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// queue hands out places, at most size at once, first come first served. It is the one place that knows who
// holds a lease and who waits for one; each strategy has one.
type queue struct {
	strategy   string
	size       int           // places; 0: no bound
	maxWaiting int           // 0: no bound
	connecting atomic.Int64  // attempts under way
	cut        atomic.Bool   // closed without patience: who is lent a connection loses it at once
	timeout    time.Duration // of one waiter; 0: as long as its context allows

	mu      sync.Mutex
	held    []*Lease // in no order: each lease knows its index
	waiters list.List
	pace    pace          // of the places that come free while somebody waits
	counts  Stat          // its counters only
	idle    chan struct{} // closed when the last lease came back, if someone waits for that

	watch *watch // over the leases; set before the first
}

type waiter struct {
	lease *Lease
	since time.Time
	place chan struct{} // closed, under the lock, by whoever hands over a place
}

// enter takes a place and returns the lease that will fill it. The lease is listed from this moment, so that
// a holder that is still connecting is seen.
func (q *queue) enter(ctx context.Context) (*Lease, error) {
	if ctx.Err() != nil {
		return nil, q.gaveUp(ctx, 0)
	}
	l := newLease(q)
	q.mu.Lock()
	if q.size == 0 || len(q.held) < q.size {
		q.hold(l)
		q.mu.Unlock()
		return l, nil
	}
	if q.refuses(ctx) {
		q.counts.Refused++
		err := q.connError(QueueFull, 0)
		q.mu.Unlock()
		return nil, err
	}
	w := &waiter{lease: l, since: time.Now(), place: make(chan struct{})}
	if q.waiters.Len() == 0 {
		q.pace = pace{size: q.size}
	}
	e := q.waiters.PushBack(w)
	q.mu.Unlock()
	if err := q.wait(ctx, w, e); err != nil {
		return nil, err
	}
	return l, nil
}

// wait stands in the queue. A place that was handed over while the waiter was giving up is its own all the
// same: whoever uses the lease sees that its context is over, and gives the place to the next.
func (q *queue) wait(ctx context.Context, w *waiter, e *list.Element) error {
	var tooLong <-chan time.Time
	if q.timeout > 0 {
		t := time.NewTimer(q.timeout)
		defer t.Stop()
		tooLong = t.C
	}
	select {
	case <-w.place:
	case <-ctx.Done():
	case <-tooLong:
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	waited := time.Since(w.since)
	if w.lease.index >= 0 {
		q.counts.Waited++
		q.counts.WaitTotal += waited
		w.lease.waited = waited
		return nil
	}
	q.waiters.Remove(e)
	if ctx.Err() != nil {
		if end, ok := ctx.Deadline(); ok {
			waited = max(0, min(waited, end.Sub(w.since))) // what it had, as for the queue's own timeout
		}
		return q.gaveUp(ctx, waited)
	}
	q.counts.TimedOut++
	return q.connError(PoolTimeout, q.timeout)
}

// refuses tells whether a newcomer may not wait: the queue is full, or it moves so slowly that a third of the
// timeout would pass before their turn. A page of two queries waits twice, and has its own work: so it ends within
// the timeout as well, as app's BenchmarkOverload shows. Up to maxWaiting, as many as there are places may wait, so that
// there is somebody to see when the pace gets better; and so may a request that has had a lease already, since
// the work on it would be lost. The lock is held.
func (q *queue) refuses(ctx context.Context) bool {
	n := q.waiters.Len()
	if q.maxWaiting > 0 && n >= q.maxWaiting {
		return true
	}
	return q.timeout > 0 && n >= q.size && q.pace.wait(n+1) > q.timeout/3 && ctx.Value(begun{}) == nil
}

// begun marks the context of a request that has had a lease.
type begun struct{}

// pace is the time between two places that a queue hands over, as a moving average. It begins with the first of them, so
// that a pool which has just begun to connect does not look slow, and is known after a round of all places: those that
// were taken together come back together.
type pace struct {
	size    int
	last    time.Time
	places  int
	average time.Duration
}

// paceOver is how many places the average is over at least.
const paceOver = 16

func (p *pace) handedOver(now time.Time) {
	if !p.last.IsZero() {
		p.places = min(p.places+1, max(p.size, paceOver))
		p.average += (now.Sub(p.last) - p.average) / time.Duration(p.places)
	}
	p.last = now
}

// wait is how long n places will take, 0 while that is not known.
func (p *pace) wait(n int) time.Duration {
	if p.places < p.size {
		return 0
	}
	return time.Duration(n) * p.average
}

// hold lists the lease. The lock is held.
func (q *queue) hold(l *Lease) {
	l.index, l.since = len(q.held), time.Now()
	q.held = append(q.held, l)
	q.counts.Acquired++
}

// leave gives the lease's place to the first in the queue, or frees it. A lease may leave only once.
func (q *queue) leave(l *Lease) {
	q.mu.Lock()
	defer q.mu.Unlock()
	last := len(q.held) - 1
	q.held[l.index] = q.held[last]
	q.held[l.index].index = l.index
	q.held[last] = nil
	q.held = q.held[:last]
	l.index = -1
	if front := q.waiters.Front(); front != nil {
		w := q.waiters.Remove(front).(*waiter)
		q.hold(w.lease)
		close(w.place)
		q.pace.handedOver(w.lease.since)
		return
	}
	if last == 0 && q.idle != nil {
		close(q.idle)
		q.idle = nil
	}
}

// drained is closed when no lease is out.
func (q *queue) drained() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.held) == 0 {
		done := make(chan struct{})
		close(done)
		return done
	}
	if q.idle == nil {
		q.idle = make(chan struct{})
	}
	return q.idle
}

// leases is a copy of the list of those that are out, oldest first.
func (q *queue) leases() []*Lease {
	q.mu.Lock()
	defer q.mu.Unlock()
	ls := slices.Clone(q.held)
	slices.SortFunc(ls, func(a, b *Lease) int { return a.since.Compare(b.since) })
	return ls
}

// holders describes the leases that are out, oldest first.
func (q *queue) holders() []Holder {
	q.mu.Lock()
	defer q.mu.Unlock()
	hs := make([]Holder, len(q.held))
	for i, l := range q.held {
		hs[i] = l.holder()
	}
	slices.SortFunc(hs, func(a, b Holder) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.PID, b.PID)) })
	return hs
}

// snapshot is the queue's part of a Stat.
func (q *queue) snapshot() Stat {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.counts
	s.Strategy, s.Size, s.Leases, s.Waiting = q.strategy, q.size, len(q.held), q.waiters.Len()
	s.OldestWait, s.Connecting = q.oldestWait(), int(q.connecting.Load())
	return s
}

// expectedWait is what a newcomer has before them: by the pace of the queue or, while none is known, what the first
// in it has waited already. The lock is held.
func (q *queue) expectedWait() time.Duration {
	return cmp.Or(q.pace.wait(q.waiters.Len()), q.oldestWait())
}

// oldestWait is how long the first in the queue has waited. The lock is held.
func (q *queue) oldestWait() time.Duration {
	if front := q.waiters.Front(); front != nil {
		return time.Since(front.Value.(*waiter).since)
	}
	return 0
}

// count adds one to one of the counters.
func (q *queue) count(n *int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	*n++
}

// drain waits until no lease is out, and ends the watch. When ctx ends first, the leases are taken back.
func (q *queue) drain(ctx context.Context) error {
	defer q.watch.end()
	select {
	case <-q.drained():
		return nil
	case <-ctx.Done():
	}
	q.cut.Store(true)
	var cuts sync.WaitGroup
	for _, l := range q.leases() {
		cuts.Go(func() { l.Reclaim() })
	}
	cuts.Wait() // each is bounded
	select {
	case <-q.drained():
	case <-time.After(resetTimeout): // one that was just connecting, or coming back
	}
	return ctx.Err()
}

// connError describes the queue as it stands. The lock is held.
func (q *queue) connError(cause Cause, waited time.Duration) *ConnError {
	return &ConnError{
		Cause: cause, Strategy: q.strategy, Waited: waited,
		Size: q.size, Leases: len(q.held), Waiting: q.waiters.Len(), RetryAfter: q.expectedWait(), stack: callers(),
	}
}

// gaveUp tells a caller that went away from one whose own deadline passed while the leases were out: only the
// second is a failure of ours. The lock is held, or nobody has the queue.
func (q *queue) gaveUp(ctx context.Context, waited time.Duration) error {
	if errors.Is(ctx.Err(), context.Canceled) || waited == 0 {
		return fmt.Errorf("gave up waiting for a connection: %w", ctx.Err())
	}
	q.counts.TimedOut++
	err := q.connError(PoolTimeout, waited)
	err.Err = ctx.Err()
	return err
}
