package db

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// queue hands out at most size places at once, first come, first served. It bounds the wait in time: a newcomer that
// would wait too long, by the measured pace, is refused at once. It does not depend on connections.
type queue struct {
	size       int           // places; 0: no bound, unless tickets is set
	maxWaiting int           // protects memory; 0: no bound
	timeout    time.Duration // of one waiter; 0: as long as its context allows
	tickets    bool          // size follows the tickets of the budget, see resize
	onWait     func()        // called with the lock held when a request begins to wait; nil: not called

	mu      sync.Mutex
	taken   int         // places in use
	peak    int         // the most places in use or waited for at once, since the last call of demand
	limit   int         // temporarily less than size, after the server had no slot for more; 0: size
	growth  *time.Timer // ends the limit
	waiters list.List   // of *waiter, the oldest first
	expiry  *time.Timer
	pace    pace          // of the places that become free while a request waits
	idle    chan struct{} // closed when the last place is freed; nil: no caller waits for that
	closed  bool          // no more places are given

	waited, timedOut, refused int64
	waitTotal                 time.Duration
}

// waiter is a request in the queue.
type waiter struct {
	since time.Time
	place chan error // buffered: nil with a place, or why there is none
}

// fullFactor: a newcomer is refused if a third of the timeout would pass before its turn. A page of two queries waits
// twice and has work of its own, so it still ends within the timeout.
const fullFactor = 3

// acquire takes a place and returns how long that took. urgent is for a request that has had a lease already: it may wait
// for the whole timeout, since its work would be lost otherwise. since is when the request began to wait, if it has
// waited before: it is then first in the queue.
func (q *queue) acquire(ctx context.Context, urgent bool, since time.Time) (time.Duration, error) {
	if ctx.Err() != nil {
		return 0, tooLate(ctx)
	}
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return 0, ErrClosed
	}
	q.peak = max(q.peak, q.taken+q.waiters.Len()+1)
	if q.unbounded() || q.free() && q.waiters.Len() == 0 {
		q.taken++
		q.mu.Unlock()
		return 0, nil
	}
	if since.IsZero() && q.refuses(urgent) {
		q.refused++
		err := q.connError(QueueFull, 0)
		q.mu.Unlock()
		return 0, err
	}
	w := &waiter{since: cmp.Or(since, time.Now()), place: make(chan error, 1)}
	e := q.enqueue(w, !since.IsZero())
	q.mu.Unlock()
	return q.wait(ctx, w, e)
}

// enqueue adds w to the end of the queue, or to the front. The lock is held.
func (q *queue) enqueue(w *waiter, front bool) *list.Element {
	if q.waiters.Len() == 0 {
		q.pace = pace{round: q.size, began: w.since}
		if q.tickets {
			q.pace.round = max(q.size, paceOver) // a few places say little about the pace with more tickets
		}
	}
	var e *list.Element
	if front {
		e = q.waiters.PushFront(w)
	} else {
		e = q.waiters.PushBack(w)
	}
	if q.timeout > 0 && (q.waiters.Len() == 1 || front) {
		q.arm(w.since)
	}
	if q.onWait != nil {
		q.onWait()
	}
	return e
}

// arm sets the queue's one timer for the first waiter, which is the first to time out. The lock is held.
func (q *queue) arm(since time.Time) {
	left := time.Until(since.Add(q.timeout))
	if q.expiry == nil {
		q.expiry = time.AfterFunc(left, q.expire)
		return
	}
	q.expiry.Reset(left)
}

// expire fails the waiters whose timeout has passed.
func (q *queue) expire() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for e := q.waiters.Front(); e != nil; e = q.waiters.Front() {
		w := e.Value.(*waiter)
		if time.Since(w.since) < q.timeout {
			q.arm(w.since)
			return
		}
		q.waiters.Remove(e)
		q.timedOut++
		w.place <- q.connError(PoolTimeout, q.timeout)
	}
}

// wait waits until there is a place, the timeout has passed, or ctx ends. A place that arrives while the waiter gives
// up goes to the next waiter.
func (q *queue) wait(ctx context.Context, w *waiter, e *list.Element) (time.Duration, error) {
	var err error
	select {
	case err = <-w.place:
	case <-ctx.Done():
		q.mu.Lock()
		defer q.mu.Unlock()
		select {
		case err = <-w.place:
			if err == nil {
				q.releaseLocked()
			}
		default:
			q.waiters.Remove(e)
		}
		waited := time.Since(w.since)
		if end, ok := ctx.Deadline(); ok {
			waited = max(0, min(waited, end.Sub(w.since))) // the time it had, as for the queue's own timeout
		}
		return waited, q.gaveUp(ctx, waited)
	}
	waited := time.Since(w.since)
	if err == nil {
		q.mu.Lock()
		q.waited++
		q.waitTotal += waited
		q.mu.Unlock()
	}
	return waited, err
}

// refuses reports whether a newcomer may not wait. As many requests as there are places may always wait, so that the
// pace is measured again. The pace is not extrapolated beyond four times what was measured: the first statements of a burst
// are slow, and say little about the wait of the five hundredth. The lock is held.
func (q *queue) refuses(urgent bool) bool {
	n := q.waiters.Len()
	if q.maxWaiting > 0 && n >= q.maxWaiting {
		return true
	}
	return q.timeout > 0 && n >= q.size && !urgent && q.pace.wait(min(n+1, 4*q.pace.handovers)) > q.timeout/fullFactor
}

// free reports whether there is a free place. The lock is held.
func (q *queue) free() bool { return q.taken < min(cmp.Or(q.limit, q.size), q.size) }

func (q *queue) unbounded() bool { return q.size == 0 && !q.tickets }

// release frees a place for the first waiter.
func (q *queue) release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.releaseLocked()
}

func (q *queue) releaseLocked() {
	q.taken--
	q.handOver()
}

// handOver gives the free places to waiters. It closes the queue if no place is taken and drained was called. The lock is
// held.
func (q *queue) handOver() {
	for e := q.waiters.Front(); e != nil && q.free(); e = q.waiters.Front() {
		q.waiters.Remove(e)
		q.taken++
		q.pace.handedOver(time.Now(), q.waiters.Len())
		e.Value.(*waiter).place <- nil
	}
	if q.taken == 0 && q.idle != nil {
		close(q.idle)
		q.idle = nil
		q.close()
	}
}

// resize sets the number of places.
func (q *queue) resize(size int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.size = size
	q.handOver()
}

// demand returns the most places that were needed at once since its last call.
func (q *queue) demand() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.taken + q.waiters.Len()
	peak := max(now, q.peak)
	q.peak = now
	return peak
}

// waiting returns the number of waiting requests.
func (q *queue) waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiters.Len()
}

// fail ends the wait of all requests with err.
func (q *queue) fail(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.failLocked(err)
}

func (q *queue) failLocked(err error) {
	for e := q.waiters.Front(); e != nil; e = q.waiters.Front() {
		q.waiters.Remove(e)
		e.Value.(*waiter).place <- err
	}
}

// close ends the queue. No place is taken, but a queue without places may have waiters: they get ErrClosed. The lock is
// held.
func (q *queue) close() {
	q.closed = true
	if q.growth != nil {
		q.limit = 0
		q.growth.Stop()
	}
	q.failLocked(ErrClosed)
}

// limitFor is how long a pool that could not grow keeps to its current size.
const limitFor = time.Second

// stopGrowing is called by a request for which the server had no slot, before it releases its place. If other requests
// have places, it can wait for one of theirs: for limitFor no more places than theirs are handed out. stopGrowing
// returns false if there is no place to wait for.
func (q *queue) stopGrowing() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.unbounded() || q.taken <= 1 {
		return false
	}
	q.limit = q.taken - 1
	if q.growth == nil {
		q.growth = time.AfterFunc(limitFor, q.grow)
	} else {
		q.growth.Reset(limitFor)
	}
	return true
}

// grow ends the limit.
func (q *queue) grow() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.limit = 0
	q.handOver()
}

// pace is the moving average of the time between two places that a queue hands over. It starts at the first handover,
// so that a pool that has just begun to connect does not look slow. It is known after one round of all places, since
// places that were taken together are freed together.
type pace struct {
	round     int       // the number of places: so many handovers are one round
	began     time.Time // when the first in the queue began to wait
	last      time.Time // when a place was last handed over
	handovers int       // in the average
	average   time.Duration
}

// paceOver is the least number of places in the average, once so many were handed over.
const paceOver = 16

// handedOver records that a place was handed over while others waited. The average is over as many places as there are
// waiters: so a stall of a second, once over, adds a second to the wait of the last, and not a multiple of it.
func (p *pace) handedOver(now time.Time, waiters int) {
	if !p.last.IsZero() {
		p.handovers = min(p.handovers+1, max(p.round, paceOver, waiters))
		p.average += (now.Sub(p.last) - p.average) / time.Duration(p.handovers)
	}
	p.last = now
}

// stalled returns how long no place has become free, once a request has waited.
func (p *pace) stalled() time.Duration {
	since := p.began
	if p.last.After(since) {
		since = p.last
	}
	return time.Since(since)
}

// wait returns how long n places will take, or 0 while that is not known.
func (p *pace) wait(n int) time.Duration {
	if p.handovers < p.round {
		return 0
	}
	return time.Duration(n) * p.average
}

// drained returns a channel that is closed when no place is taken. From then on none is given: requests get ErrClosed.
func (q *queue) drained() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.idle == nil {
		q.idle = make(chan struct{})
	}
	idle := q.idle
	q.handOver() // closes it if no place is taken
	return idle
}

// stat adds the queue's figures to s.
func (q *queue) stat(s *Stat) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s.Size = q.size
	if q.tickets {
		s.Size = max(1, q.size) // 0 would mean no bound
	}
	s.Leases, s.Waiting, s.OldestWait = q.taken, q.waiters.Len(), q.oldestWait()
	s.Waited, s.WaitTotal, s.TimedOut, s.Refused = q.waited, q.waitTotal, q.timedOut, q.refused
}

// oldestWait returns how long the first waiter has waited. The lock is held.
func (q *queue) oldestWait() time.Duration {
	if front := q.waiters.Front(); front != nil {
		return time.Since(front.Value.(*waiter).since)
	}
	return 0
}

// connError returns an error with the queue's current figures. The lock is held.
func (q *queue) connError(cause Cause, waited time.Duration) *ConnError {
	return &ConnError{
		Cause: cause, Waited: waited, Size: q.size, Leases: q.taken, Waiting: q.waiters.Len(),
		Stalled:    q.pace.stalled(),
		RetryAfter: cmp.Or(q.pace.wait(q.waiters.Len()), q.oldestWait()), // the wait of a newcomer
	}
}

// tooLate is the error of a request that had no time left when it asked.
func tooLate(ctx context.Context) error {
	return fmt.Errorf("asked for a connection too late: %w", ctx.Err())
}

// gaveUp distinguishes a cancelled caller from one whose deadline passed while all places were taken: only the second
// is a failure of the queue. The lock is held.
func (q *queue) gaveUp(ctx context.Context, waited time.Duration) error {
	if waited == 0 {
		return tooLate(ctx)
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("gave up waiting for a connection: %w", ctx.Err())
	}
	q.timedOut++
	err := q.connError(PoolTimeout, waited)
	err.Err = ctx.Err()
	return err
}
