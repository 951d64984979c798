package db

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Options are the options of a DB or a Source.
type Options struct {
	Log    *slog.Logger // for leaks and nested leases; nil: no log
	Tracer Tracer       // nil: no spans
	// Replica describes replicas of the database for declared reads, one for each of its hosts. Nil: no replicas.
	Replica *Settings
	// OnAcquire is called when a lease was given or refused, with the time since the request for it, but not for
	// ErrClosed. It must not block.
	OnAcquire func(strategy string, took time.Duration, err error)
	// OnNested is called when a request that holds a lease asks for a second one, once for each pair of lines of code:
	// the one that got the first lease, and the one that asks. It must not block.
	OnNested func(first, second string)
	// Control provides the monitoring connection for the budget, where Pool.MaxSize is Auto. Set it to share a
	// connection that already exists outside of the strategies. It must reach the server of the settings. Nil: the
	// Source opens a connection of its own, "…/monitor", as it does for each replica.
	Control Control
}

// Source gives out leases by one strategy. A lease is a place and a connection; its release gives both
// back. contract_test.go is the complete form of this contract: every Source passes it on a real PostgreSQL.
//
// Bounded leases are given out first come, first served. A request that gave up while it waited leaves nothing behind.
type Source struct {
	settings Settings
	strategy Strategy
	conns    *Connector
	places   places
	leases   leases
	leaks    leakWatch
	options  Options
	holds    bool // HoldsForRequest

	log       *slog.Logger // names the strategy in each line
	acquired  atomic.Int64
	nested    atomic.Int64
	leftOpen  logOnce      // source lines that left a transaction open
	futile    atomic.Int64 // until then a new session would be outdated too, in ticks
	denied    atomic.Int64 // the same for privileges that a reset may have taken
	retired   atomic.Bool  // its idle connections are for requests of before only: see sweep
	refreshes sync.Mutex
	refreshed int64       // when outdated sessions were last closed, in ticks
	ending    atomic.Bool // closing, and out of time: a new lease is reclaimed at once
	failing   atomic.Pointer[failing]
}

// failing is a failure since which no lease was given.
type failing struct {
	at  time.Time
	err error
}

// NewSource returns a Source with the strategy that the settings name. It does not wait for the server: see Open. An error
// names the setting that is wrong.
func NewSource(s Settings, o Options) (*Source, error) {
	spec, err := SpecOf(s)
	if err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	src := &Source{settings: s, options: o, holds: spec.HoldsForRequest(s), log: o.Log.With("strategy", s.Strategy)}
	if src.conns, err = newConnector(s); err != nil {
		return nil, err
	}
	src.conns.traceWith(o.Tracer)
	src.places.size = spec.Size(s)
	src.places.maxWaiting, src.places.timeout = s.Pool.MaxWaiting, spec.Timeout(s)
	src.keepBudget()
	if src.strategy, err = spec.New(s, src.conns); err != nil {
		return nil, err
	}
	src.conns.tickets.start(src.strategy)
	src.leaks.start(src)
	return src, nil
}

// Acquire waits for a lease until ctx ends or the strategy's timeout passes. A failure is a *ConnError that names the
// cause, ctx's error if ctx was cancelled or had ended before, or ErrClosed.
func (s *Source) Acquire(ctx context.Context) (*Lease, error) {
	return s.acquire(ctx, false, caller(allFrames))
}

// acquire takes a place, for which it may have to wait in the queue, then a connection. If the server has no slot for
// another connection, it waits for one of the existing connections. urgent means that the request has had a lease already.
func (s *Source) acquire(ctx context.Context, urgent bool, from callSite) (l *Lease, err error) {
	began := ticks()
	ctx, o := s.observe(ctx, began)
	defer o.ended(&err)
	var since time.Time // when it began to wait, if it has to wait again
	var full error      // why it has to wait again
	for {
		var waited time.Duration
		if waited, err = s.places.acquire(ctx, urgent, since); err != nil {
			if CauseOf(err) == PoolTimeout && full != nil {
				err = full // it waited for a slot
			}
			return nil, s.failed(ctx, from, err)
		}
		if since.IsZero() {
			s.acquired.Add(1)
		}
		l = &Lease{source: s, since: began + int64(waited), waited: waited, from: from}
		s.leases.add(l) // from here on, Lease.end returns the place
		if err = s.strategy.Acquire(ctx, l); err == nil {
			s.succeeded()
			return l, nil
		}
		again := s.waitsAgain(ctx, err)
		l.end(acquiring, released, func(Strategy, *Lease) {})
		if !again {
			return nil, s.failed(ctx, from, err)
		}
		since, full = timeOf(began), err
	}
}

// waitsAgain reports whether a request that got a place, but no connection, may wait for another place: the next ticket
// brings one, or the next release of another request's lease.
func (s *Source) waitsAgain(ctx context.Context, err error) bool {
	switch {
	case errors.Is(err, errNoTicket):
		return ctx.Err() == nil
	case CauseOf(err) == SlotsExhausted:
		return s.places.stopGrowing()
	}
	return false
}

// succeeded records that a lease was given.
func (s *Source) succeeded() {
	if s.failing.Load() != nil {
		s.failing.Store(nil)
	}
}

// failed completes an error. It also records the last failure to get a connection from the server.
func (s *Source) failed(ctx context.Context, from callSite, err error) error {
	ce, ok := errors.AsType[*ConnError](err)
	if !ok {
		return err
	}
	if ce.Strategy == "" {
		ce.Strategy = s.settings.Strategy
	}
	if ce.Cause == PoolTimeout && ce.stack == nil { // a refusal, which may come thousands of times a second, has none
		stack := callers()
		ce.stack = stack[max(0, slices.Index(stack, from[0])):] // from its caller on
	}
	if ce.Cause != QueueFull && ce.Cause != PoolTimeout && ctx.Err() == nil { // otherwise the caller may have run out of time
		s.failing.Store(&failing{time.Now(), err})
	}
	return err
}

// HoldsForRequest reports whether a request keeps its lease from its first query to its end.
func (s *Source) HoldsForRequest() bool { return s.holds }

// Holders lists the outstanding leases, oldest first. It needs no connection.
func (s *Source) Holders() []Holder { return s.leases.holders() }

// Stat returns a snapshot. It needs no connection.
func (s *Source) Stat() Stat {
	c := s.conns
	st := Stat{
		Strategy: s.settings.Strategy, Idle: s.strategy.Idle(), Acquired: s.acquired.Load(),
		Connecting: int(c.connecting.Load()), Connects: c.connects.Load(), Connected: c.connected.Load(),
		Nested: s.nested.Load(),
	}
	s.leaks.addStat(&st)
	if own, ok := s.strategy.(interface{ addStat(*Stat) }); ok {
		own.addStat(&st)
	}
	s.places.addStat(&st)
	c.tickets.addStat(&st)
	return st
}

// Retire closes every idle connection. From then on it keeps none for later: the connection of a lease is closed at its
// release, unless the strategy keeps it for a request that waits.
// Retire returns when the server has freed the slots, or ctx ends.
func (s *Source) Retire(ctx context.Context) {
	s.strategy.Retire(ctx)
	s.retired.Store(true)
}

// sweep closes the idle connections that a retired pool has kept for requests that no longer wait. It does nothing while a
// request has its place and is about to take one; a request that gets its place at this very moment connects anew.
func (s *Source) sweep() {
	p, ok := s.strategy.(interface{ closeIdle(context.Context) })
	if !ok || !s.retired.Load() {
		return
	}
	var st Stat
	s.places.addStat(&st)
	if st.Waiting == 0 && st.Leases == s.leases.connected() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		p.closeIdle(ctx)
	}
}

// Close retires the strategy and waits for the outstanding leases. If ctx ends first, they are reclaimed from their
// holders; the last connections may then close a second or two after Close has returned. It may be called twice.
func (s *Source) Close(ctx context.Context) error {
	s.Retire(ctx)
	err := s.drain(ctx)
	s.conns.tickets.close()
	s.strategy.Close()
	if err != nil {
		return fmt.Errorf("leases were still out, and were taken back: %w", err)
	}
	return nil
}

func (s *Source) drain(ctx context.Context) error {
	defer s.leaks.stop()
	drained := s.places.drained()
	select {
	case <-drained:
	case <-ctx.Done():
	}
	select {
	case <-drained: // as well
		return nil
	default:
	}
	s.ending.Store(true)
	var ends sync.WaitGroup
	for _, l := range s.leases.list() {
		ends.Go(func() { l.Reclaim() })
	}
	ends.Wait() // each is bounded in time
	select {
	case <-drained:
	case <-time.After(2 * time.Second): // a lease that was just connecting or being released
	}
	return ctx.Err()
}
