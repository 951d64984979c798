package db

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// leakWatch watches the outstanding leases of a Source, under every strategy: it reports leases that are held too long as
// leaks, reclaims them if configured, and ends queries that take longer than query_timeout. It also calls Source.sweep.
type leakWatch struct {
	source            *Source
	leaked, reclaimed atomic.Int64
	cancel            context.CancelFunc
	stopped           sync.WaitGroup
}

// watched is the part of a lease that leakWatch uses.
type watched struct {
	leakCounted atomic.Bool  // it has been counted as a leak, or must not be any more
	query       atomic.Int64 // when the running query began, in ticks; 0: none
}

// start starts the watch, at an interval that costs little and reacts soon enough.
func (w *leakWatch) start(s *Source) {
	var ctx context.Context
	ctx, w.cancel = context.WithCancel(context.Background())
	w.source = s
	interval := time.Second
	for _, d := range []time.Duration{s.settings.Pool.LeakAfter, s.settings.Pool.ReclaimAfter, s.settings.QueryTimeout} {
		if d > 0 { // 0: never
			interval = min(interval, max(d/10, 5*time.Millisecond))
		}
	}
	w.stopped.Go(func() { w.run(ctx, interval) })
}

func (w *leakWatch) run(ctx context.Context, interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			w.check()
			w.source.sweep()
		}
	}
}

// check reports leaks, and reclaims leases that are due, concurrently: a dead connection delays no other.
func (w *leakWatch) check() {
	var ends sync.WaitGroup
	defer ends.Wait()
	pool, queryTimeout := w.source.settings.Pool, w.source.settings.QueryTimeout
	for _, l := range w.source.leases.list() {
		age, query := l.age(), l.query.Load()
		switch {
		case pool.ReclaimAfter > 0 && age >= pool.ReclaimAfter:
			ends.Go(func() { w.reclaim(l) })
		case queryTimeout > 0 && query > 0 && ticks()-query >= int64(queryTimeout):
			ends.Go(func() { w.endQuery(l) })
		case pool.LeakAfter > 0 && age >= pool.LeakAfter && l.leakCounted.CompareAndSwap(false, true):
			w.leaked.Add(1)
			w.source.log.Warn("a lease is held for long: is it a leak, a stream, or a slow request? Release it before slow work", w.about(l)...)
		}
	}
}

func (w *leakWatch) reclaim(l *Lease) {
	if l.Reclaim() {
		w.reclaimed.Add(1)
		w.source.log.Error("a lease was taken back: its holder kept it for too long", w.about(l)...)
	}
}

func (w *leakWatch) endQuery(l *Lease) {
	if l.seize(overdue) {
		w.source.log.Error("a query took longer than query_timeout, and was ended", w.about(l)...)
	}
}

// ended logs the release of a lease that was reported.
func (w *leakWatch) ended(l *Lease, state int32) {
	if state == released && l.leakCounted.Load() {
		w.source.log.Info("the lease that was held for long was released", "held", l.age().Round(time.Millisecond), "backend", l.PID())
	}
}

func (w *leakWatch) about(l *Lease) []any {
	return []any{"held", l.age().Round(time.Millisecond), "backend", l.PID(), "stack", strings.Join(l.stack(), " < ")}
}

// reportForgotten reports a result that was left open at the end of its request, once for each source line.
func (d *DB) reportForgotten(r *openRows) {
	w := &r.lease.source.leaks
	if r.lease.leakCounted.CompareAndSwap(false, true) { // otherwise it has been counted
		w.leaked.Add(1)
	}
	w.reclaimed.Add(1)
	if stack := stackOf(r.from[:]); d.forgotten.first(stack[0]) {
		w.source.log.Error("rows were left open at the end of a request, and were closed: close them with defer, since a panic or "+
			"a return inside the loop skips a Close that comes after it",
			"line", stack[0], "stack", strings.Join(stack, " < "))
	}
}

func (w *leakWatch) addStat(s *Stat) { s.Leaked, s.Reclaimed = w.leaked.Load(), w.reclaimed.Load() }

func (w *leakWatch) stop() {
	w.cancel()
	w.stopped.Wait()
}
