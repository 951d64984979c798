package db

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// queue is where requests wait for one of the places, first come, first served. It bounds the wait in time: a newcomer that
// would wait too long, by the measured pace, is refused at once. The lock of the places protects it.
type queue struct {
	maxWaiting int           // protects memory; 0: no bound
	timeout    time.Duration // of one waiter; 0: as long as its context allows
	onWait     func()        // called with the lock held when a request begins to wait; nil: not called

	waiters list.List // of *waiter, the oldest first
	peak    int       // the most places in use or waited for at once, since the last call of demand
	expiry  *time.Timer
	pace    pace      // of the places that become free while a request waits
	used    sync.Pool // of *waiter: those that got a place

	waited, waitTotal atomic.Int64 // not under the lock
	timedOut          int64
}

// waiter is a request in the queue.
type waiter struct {
	since  time.Time
	waited time.Duration // until it got a place
	place  chan error    // buffered: nil with a place, or why there is none
}

// fullFactor: a newcomer is refused if a third of the timeout would pass before its turn. A page of two queries waits
// twice and has work of its own, so it still ends within the timeout.
const fullFactor = 3

// enter lets a request wait for a place. It releases the lock, which is held.
func (p *places) enter(ctx context.Context, since time.Time) (time.Duration, error) {
	w, ok := p.used.Get().(*waiter)
	if !ok {
		w = &waiter{place: make(chan error, 1)}
	}
	w.since = cmp.Or(since, time.Now())
	e := p.enqueue(w, !since.IsZero())
	p.mu.Unlock()
	return p.wait(ctx, w, e)
}

// enqueue adds w to the queue: at its end, or before those that began to wait later if it has waited before. The lock is held.
func (p *places) enqueue(w *waiter, again bool) *list.Element {
	if p.waiters.Len() == 0 {
		p.pace = pace{round: p.size, began: w.since}
		if p.tickets {
			p.pace.round = max(p.size, paceOver) // a few places say little about the pace with more tickets
		}
	}
	e := p.waiters.PushBack(w)
	if again {
		next := p.waiters.Front()
		for next.Value.(*waiter).since.Before(w.since) { // few have waited for longer
			next = next.Next()
		}
		p.waiters.MoveBefore(e, next)
	}
	if p.timeout > 0 && e == p.waiters.Front() {
		p.arm(w.since)
	}
	if p.onWait != nil {
		p.onWait()
	}
	return e
}

// arm sets the queue's one timer for the first waiter, which is the first to time out. The lock is held.
func (p *places) arm(since time.Time) {
	left := time.Until(since.Add(p.timeout))
	if p.expiry == nil {
		p.expiry = time.AfterFunc(left, p.expire)
		return
	}
	p.expiry.Reset(left)
}

// expire fails the waiters whose timeout has passed.
func (p *places) expire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for e := p.waiters.Front(); e != nil; e = p.waiters.Front() {
		w := e.Value.(*waiter)
		if time.Since(w.since) < p.timeout {
			p.arm(w.since)
			return
		}
		p.waiters.Remove(e)
		p.timedOut++
		w.place <- p.connError(PoolTimeout, p.timeout)
	}
}

// wait waits until there is a place, the timeout has passed, or ctx ends. A place that arrives while the waiter gives
// up goes to the next waiter.
func (p *places) wait(ctx context.Context, w *waiter, e *list.Element) (time.Duration, error) {
	select {
	case err := <-w.place:
		if err != nil {
			return time.Since(w.since), err
		}
		waited := w.waited
		p.used.Put(w)
		p.waited.Add(1)
		p.waitTotal.Add(int64(waited))
		return waited, nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case err := <-w.place:
		if err == nil {
			p.releaseLocked()
		} else if CauseOf(err) == PoolTimeout { // counted already
			return time.Since(w.since), err
		}
	default:
		p.waiters.Remove(e)
	}
	waited := time.Since(w.since)
	if end, ok := ctx.Deadline(); ok {
		waited = max(0, min(waited, end.Sub(w.since))) // the time it had, as for the queue's own timeout
	}
	return waited, p.gaveUp(ctx, waited)
}

// refuses reports whether a newcomer may not wait. As many requests as there are places may always wait, so that the
// pace is measured again. The pace is not extrapolated beyond four times what was measured: the first statements of a burst
// are slow, and say little about the wait of the five hundredth. The lock is held.
func (p *places) refuses(urgent bool) bool {
	n := p.waiters.Len()
	if p.maxWaiting > 0 && n >= p.maxWaiting {
		return true
	}
	return p.timeout > 0 && n >= p.size && !urgent && p.pace.wait(min(n+1, 4*p.pace.handovers)) > p.timeout/fullFactor
}

// handOver gives the free places to waiters. The lock is held.
func (p *places) handOver() {
	for e := p.waiters.Front(); e != nil && p.free(); e = p.waiters.Front() {
		p.waiters.Remove(e)
		p.taken++
		w, now := e.Value.(*waiter), time.Now()
		p.pace.handedOver(now, p.waiters.Len())
		w.waited = now.Sub(w.since)
		w.place <- nil
	}
}

// noteDemand counts a request that asks for a place. The lock is held.
func (p *places) noteDemand() { p.peak = max(p.peak, p.taken+p.waiters.Len()+1) }

// demand returns the most places that were needed at once since its last call.
func (p *places) demand() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.taken + p.waiters.Len()
	peak := max(now, p.peak)
	p.peak = now
	return peak
}

// waiting returns the number of waiting requests.
func (p *places) waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiters.Len()
}

// fail ends the wait of all requests with err.
func (p *places) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failLocked(err)
}

func (p *places) failLocked(err error) {
	for e := p.waiters.Front(); e != nil; e = p.waiters.Front() {
		p.waiters.Remove(e)
		e.Value.(*waiter).place <- err
	}
}

// limitFor is how long a pool that could not grow keeps to its current size.
const limitFor = time.Second

// stopGrowing is called by a request for which the server had no slot, before it releases its place. If other requests
// have places, it can wait for one of theirs: for limitFor no more places than theirs are handed out. stopGrowing
// returns false if there is no place to wait for.
func (p *places) stopGrowing() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.unbounded() || p.taken <= 1 {
		return false
	}
	p.limit = p.taken - 1
	if p.growth == nil {
		p.growth = time.AfterFunc(limitFor, p.grow)
	} else {
		p.growth.Reset(limitFor)
	}
	return true
}

// grow ends the limit.
func (p *places) grow() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limit = 0
	p.freed()
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
func (p *pace) stalled() time.Duration { return time.Since(cmp.Or(p.last, p.began)) }

// wait returns how long n places will take, or 0 while that is not known.
func (p *pace) wait(n int) time.Duration {
	if p.handovers < p.round {
		return 0
	}
	return time.Duration(n) * p.average
}

// addQueueStat adds the queue's figures. The lock is held.
func (p *places) addQueueStat(s *Stat) {
	s.Waiting, s.OldestWait, s.TimedOut = p.waiters.Len(), p.oldestWait(), p.timedOut
	s.Waited, s.WaitTotal = p.waited.Load(), time.Duration(p.waitTotal.Load())
}

// describeWait adds the queue's figures to an error. The lock is held.
func (p *places) describeWait(err *ConnError) {
	err.Waiting, err.Stalled = p.waiters.Len(), p.pace.stalled()
	err.RetryAfter = cmp.Or(p.pace.wait(p.waiters.Len()), p.oldestWait()) // the wait of a newcomer
}

// oldestWait returns how long the first waiter has waited. The lock is held.
func (p *places) oldestWait() time.Duration {
	if front := p.waiters.Front(); front != nil {
		return time.Since(front.Value.(*waiter).since)
	}
	return 0
}

// gaveUp distinguishes a cancelled caller from one whose deadline passed while all places were taken: only the second
// is a failure of the queue. The lock is held.
func (p *places) gaveUp(ctx context.Context, waited time.Duration) error {
	if waited == 0 {
		return tooLate(ctx)
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("gave up waiting for a connection: %w", ctx.Err())
	}
	p.timedOut++
	err := p.connError(PoolTimeout, waited)
	err.Err = ctx.Err()
	return err
}
