package db

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/puddle/v2" // pgxpool's own pool, for the error of a closed pool
)

// Pool is the name of the strategy that shares at most MaxSize connections. pgxpool keeps them.
const Pool = "pool"

// PoolSettings are the settings of Pool. Those of the leak detection apply under every strategy.
type PoolSettings struct {
	MinSize           int           `toml:"min_size" allow:"0..10000"`
	MaxSize           int           `toml:"max_size" allow:"auto|1..10000"` // Auto: its share of Settings.Budget
	Timeout           time.Duration `toml:"timeout" allow:"1ms..10m"`       // how long a request waits for a lease
	MaxWaiting        int           `toml:"max_waiting" allow:"0..1000000"` // only protects memory; 0: no bound
	MaxLifetime       time.Duration `toml:"max_lifetime" allow:"1s..720h"`
	MaxIdle           time.Duration `toml:"max_idle" allow:"1s..720h"`
	HealthCheckPeriod time.Duration `toml:"health_check_period" allow:"100ms..1h"`
	LeakAfter         time.Duration `toml:"leak_after" allow:"0|100ms..24h"`    // 0: never reported
	ReclaimAfter      time.Duration `toml:"reclaim_after" allow:"0|100ms..24h"` // 0: never reclaimed
	Hold              string        `toml:"hold" allow:"query|request"`
}

// How long a request keeps a lease of the pool.
const (
	HoldQuery   = "query"   // released after each query
	HoldRequest = "request" // kept to the end of the request, as Django does
)

var defaultPool = PoolSettings{
	MaxSize: 10, Timeout: 10 * time.Second,
	MaxWaiting:  10_000, // 10,000 waiting requests take about 200 MB; Timeout bounds their wait
	MaxLifetime: time.Hour, MaxIdle: 30 * time.Minute, HealthCheckPeriod: time.Minute,
	LeakAfter: time.Minute, Hold: HoldQuery,
}

func init() { Register(poolSpec()) }

func poolSpec() Spec {
	return Spec{
		Name:            Pool,
		Description:     "a bounded pool, with a queue before it that is bounded in time",
		Size:            func(s Settings) int { return s.Pool.MaxSize },
		SizeKey:         "pool.max_size",
		TimeoutKey:      "pool.timeout",
		Backends:        poolBackends,
		Timeout:         func(s Settings) time.Duration { return s.Pool.Timeout },
		HoldsForRequest: func(s Settings) bool { return s.Pool.Hold == HoldRequest },
		Show: func(s Settings) []Setting {
			p := s.Pool
			return []Setting{
				{Key: "pool.max_size", Title: "Size", Help: "At most so many connections; auto: its share of the budget.", Value: sizeOf(p), Auto: true},
				{Key: "pool.min_size", Title: "Least size", Help: "So many are kept open.", Value: p.MinSize},
				{Key: "pool.timeout", Title: "Timeout", Help: "How long a request waits for a lease, as 10s.", Value: p.Timeout},
				{Key: "pool.max_waiting", Title: "Most that wait", Help: "The next request is refused at once; 0: no bound.", Value: p.MaxWaiting},
				{
					Key: "pool.hold", Title: "Hold", Help: "A lease for each query, or kept to the request's end.",
					Value: p.Hold, Choices: []string{HoldQuery, HoldRequest},
				},
			}
		},
		Check: func(s Settings) error {
			size := errors.Join(atLeast("pool.max_size", s.Pool.MaxSize, 1), atLeast("pool.max_size", s.Pool.MaxSize, s.Pool.MinSize))
			if s.Pool.MaxSize == Auto {
				size = nil
				if s.Pooler != "" {
					size = ErrPooledBudget
				}
			}
			return errors.Join(
				size, atLeast("pool.min_size", s.Pool.MinSize, 0),
				atLeast("budget", s.Budget, 0), atLeast("pool.timeout", s.Pool.Timeout, time.Millisecond),
				atLeast("pool.max_lifetime", s.Pool.MaxLifetime, 1), atLeast("pool.max_idle", s.Pool.MaxIdle, 1),
				atLeast("pool.health_check_period", s.Pool.HealthCheckPeriod, 1))
		},
		New: func(s Settings, c *Connector) (Strategy, error) { return newPool(s, c) },
	}
}

// sizeOf returns MaxSize as the value of a Setting.
func sizeOf(p PoolSettings) any {
	if p.MaxSize == Auto {
		return "auto"
	}
	return p.MaxSize
}

// poolBackends returns the most backends that the pool has.
func poolBackends(s Settings) int {
	if s.Pool.MaxSize == Auto {
		return s.Budget
	}
	return s.Pool.MaxSize
}

// mostAuto is the size of pgxpool where the tickets bound the pool.
const mostAuto = 10_000

// pool wraps pgxpool. Source gives out no more leases than pgxpool has connections, so a request waits inside pgxpool
// only while its connection is being made.
type pool struct {
	*Connector
	pgx     *pgxpool.Pool
	timeout time.Duration
	idle    atomic.Int64 // idle connections of pgxpool, except for any that it is closing at this moment
	retired atomic.Bool
}

func newPool(s Settings, c *Connector) (*pool, error) {
	pc, err := pgxpool.ParseConfig("")
	if err != nil {
		return nil, err
	}
	p := &pool{Connector: c, timeout: s.Pool.Timeout}
	pc.ConnConfig = c.Config()
	pc.MinConns, pc.MaxConns = int32(s.Pool.MinSize), int32(s.Pool.MaxSize)
	if s.Pool.MaxSize == Auto {
		pc.MaxConns = mostAuto
	}
	pc.MaxConnLifetime, pc.MaxConnLifetimeJitter = s.Pool.MaxLifetime, s.Pool.MaxLifetime/10
	pc.MaxConnIdleTime, pc.HealthCheckPeriod = s.Pool.MaxIdle, s.Pool.HealthCheckPeriod
	pc.PingTimeout = s.ConnectTimeout
	pc.BeforeConnect = c.Prepare
	pc.BeforeClose = func(conn *pgx.Conn) {
		p.idle.Store(0) // the closed connection may have been idle
		c.beforeClose(conn)
	}
	p.pgx, err = pgxpool.NewWithConfig(context.Background(), pc)
	return p, err
}

func (p *pool) Acquire(ctx context.Context, l *Lease) error {
	within := ctx
	if p.idle.Add(-1) < 0 { // it has to connect, and that counts against the timeout like the wait in the queue
		p.idle.Store(0)
		var cancel context.CancelFunc
		within, cancel = context.WithDeadline(ctx, l.since.Add(p.timeout-l.waited))
		defer cancel()
	}
	return p.retry(within, func() error {
		conn, err := p.pgx.Acquire(within)
		if err != nil {
			return p.explain(ctx, within, err)
		}
		l.Lend(conn.Conn(), conn)
		return nil
	})
}

// explain returns why pgxpool gave no connection. ctx is the caller's; within also has the strategy's timeout.
func (p *pool) explain(ctx, within context.Context, err error) error {
	switch {
	case errors.Is(err, puddle.ErrClosedPool):
		return ErrClosed
	case within.Err() != nil && ctx.Err() == nil:
		err = fmt.Errorf("connecting did not end within %v: %w", p.timeout, err)
	}
	return p.connectError(ctx, err)
}

func (p *pool) Release(l *Lease) {
	if p.retired.Load() || p.tickets.unwanted(l.conn) || !l.Reusable() {
		p.CloseConn(l.conn) // pgxpool drops a closed connection
	} else {
		p.idle.Add(1)
	}
	l.owner.(*pgxpool.Conn).Release()
}

func (p *pool) Forget(l *Lease) {
	l.owner.(*pgxpool.Conn).Hijack()
	p.tickets.closed(l.conn)
}

func (p *pool) Idle() int { return int(p.pgx.Stat().IdleConns()) }

func (p *pool) Refresh(context.Context) { p.pgx.Reset() }

func (p *pool) Retire(ctx context.Context) {
	p.retired.Store(true)
	idle := p.pgx.AcquireAllIdle(ctx)
	p.destroy(ctx, idle)
}

// shrink closes up to n idle connections for which the budget no longer has a ticket.
func (p *pool) shrink(n int) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	var surplus []*pgxpool.Conn
	for _, c := range p.pgx.AcquireAllIdle(ctx) {
		if len(surplus) < n && p.tickets.unwanted(c.Conn()) {
			surplus = append(surplus, c)
		} else {
			c.Release()
		}
	}
	p.destroy(ctx, surplus)
}

func (p *pool) destroy(ctx context.Context, idle []*pgxpool.Conn) {
	p.idle.Store(0) // it may have counted these connections
	conns := make([]*pgx.Conn, len(idle))
	for i, c := range idle {
		conns[i] = c.Hijack()
	}
	p.closeAll(ctx, conns)
}

// Close waits for connections that are still being made, as pgxpool does.
func (p *pool) Close() { p.pgx.Close() }

// addStat adds the counters of pgxpool.
func (p *pool) addStat(s *Stat) {
	of := p.pgx.Stat()
	s.AgedOut, s.IdledOut = of.MaxLifetimeDestroyCount(), of.MaxIdleDestroyCount()
}
