package db

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/config"
)

// Strategy is the rule by which a holder gets its connection. Every strategy passes the suite
// dbtest.Conformance on a real PostgreSQL, which is the long form of this contract.
//
// A Strategy is safe for concurrent use. Leases are given out first come first served where they are bounded,
// and nothing of a request that gave up while it waited is left behind.
type Strategy interface {
	// Acquire waits for a lease until ctx ends or the strategy's own timeout passes. A failure is a *ConnError
	// that tells the cause, or ctx's error when the caller went away.
	Acquire(ctx context.Context) (*Lease, error)
	// HoldsForRequest tells whether a request keeps its lease from its first query to its end, rather than for
	// each query.
	HoldsForRequest() bool
	// Stat is a snapshot; it needs no connection.
	Stat() Stat
	// Holders lists the leases that are out, oldest first; it needs no connection.
	Holders() []Holder
	// Retire closes every connection that nobody holds, and keeps none from then on: a lease given out later is
	// closed when it comes back. It returns when the server has freed their slots, or ctx ends.
	Retire(ctx context.Context)
	// Close retires the strategy and waits for the leases that are out; when ctx ends first, they are taken
	// back from their holders. Afterwards no connection is left. It may be called twice.
	Close(ctx context.Context) error
}

// NewStrategy makes the strategy that cfg names. It connects when the first lease is asked for.
func NewStrategy(cfg config.Database, o Options) (Strategy, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	cc, err := ConnConfig(cfg, cfg.ApplicationName+"/"+cfg.Strategy)
	if err != nil {
		return nil, err
	}
	if o.Tracer != nil {
		cc.Tracer = o.Tracer
	}
	q := &queue{strategy: cfg.Strategy}
	s, err := strategyOn(q, cfg, cc)
	if err != nil {
		return nil, err
	}
	q.watch = startWatch(q, cfg.Pool.LeakAfter, cfg.Pool.ReclaimAfter, o.Log)
	return s, nil
}

// strategyOn makes the strategy, whose leases q keeps.
func strategyOn(q *queue, cfg config.Database, cc *pgx.ConnConfig) (Strategy, error) {
	switch cfg.Strategy {
	case config.StrategyPerRequest:
		return newPerRequest(q, cfg.PerRequest, cc), nil
	case config.StrategyPersistent:
		return newPersistent(q, cfg.Persistent, cc), nil
	case config.StrategyPool:
		return newPool(q, cfg.Pool, cc)
	}
	return nil, fmt.Errorf("unknown strategy %q: use %q, %q or %q", cfg.Strategy,
		config.StrategyPool, config.StrategyPersistent, config.StrategyPerRequest)
}

// Stat is what a strategy knows of itself. Counters run since the strategy came into force.
type Stat struct {
	Strategy   string
	Size       int           // at most so many leases; 0: no bound
	Leases     int           // out now, or being connected
	Connecting int           // attempts to connect that are under way
	Idle       int           // connections kept that nobody holds
	Waiting    int           // requests in the queue
	OldestWait time.Duration // how long the first in the queue has waited; 0 without a queue

	Acquired  int64         // leases given out
	Waited    int64         // leases that had to be waited for
	WaitTotal time.Duration // by them
	TimedOut  int64         // waiters that gave up after the timeout
	Refused   int64         // requests that found the queue full, or too slow
	Leaked    int64         // leases that were out for leak_after, or whose rows were open at their request's end
	Reclaimed int64         // leases taken back after reclaim_after, or at that end
	Nested    int64         // leases asked for by a request that held one
	Connects  int64         // attempts to connect
	Connected int64         // attempts that succeeded
	AgedOut   int64         // connections of a pool that were closed after max_lifetime
	IdledOut  int64         // and after max_idle
}

// plus adds the counters up; what is of a moment is left out.
func (s Stat) plus(o Stat) Stat {
	return Stat{
		Strategy: o.Strategy,
		Acquired: s.Acquired + o.Acquired, Waited: s.Waited + o.Waited, WaitTotal: s.WaitTotal + o.WaitTotal,
		TimedOut: s.TimedOut + o.TimedOut, Refused: s.Refused + o.Refused, Leaked: s.Leaked + o.Leaked,
		Reclaimed: s.Reclaimed + o.Reclaimed, Nested: s.Nested + o.Nested,
		Connects: s.Connects + o.Connects, Connected: s.Connected + o.Connected,
		AgedOut: s.AgedOut + o.AgedOut, IdledOut: s.IdledOut + o.IdledOut,
	}
}

// Open is the number of connections that the strategy has with the server, as far as it knows.
func (s Stat) Open() int { return s.Leases + s.Idle }
