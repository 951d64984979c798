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

// pool wraps pgxpool. Source gives out no more leases than pgxpool has connections, so a request waits inside pgxpool
// only while its connection is being made, or an old one in its place is being closed.
type pool struct {
	*Connector
	pgx     *pgxpool.Pool
	timeout time.Duration
	idle    atomic.Int64   // at most the number of idle connections: 0 again whenever pgxpool may have closed one
	began   []atomic.Int64 // began[i] is when the last lease of the i-th idle connection began, in ticks: see mayCheck
	retired atomic.Bool

	refreshed atomic.Int64 // when Refresh was called last, in ticks; 0: never
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
		pc.MaxConns = mostSize
	}
	pc.MaxConnLifetime, pc.MaxConnLifetimeJitter = s.Pool.MaxLifetime, s.Pool.MaxLifetime/10
	pc.MaxConnIdleTime, pc.HealthCheckPeriod = s.Pool.MaxIdle, s.Pool.HealthCheckPeriod
	pc.PingTimeout = s.ConnectTimeout
	pc.BeforeConnect = func(ctx context.Context, cc *pgx.ConnConfig) error {
		if p.refillsRetired(ctx) {
			return errRetired
		}
		return c.Prepare(ctx, cc)
	}
	pc.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		if p.refillsRetired(ctx) { // retired meanwhile
			c.beforeClose(conn) // pgxpool closes it without
			return errRetired
		}
		return nil
	}
	pc.ShouldPing = func(_ context.Context, p pgxpool.ShouldPingParams) bool {
		return p.IdleDuration > pingAfter || p.IdleDuration > peekAfter && unread(p.Conn)
	}
	pc.PrepareConn = func(_ context.Context, conn *pgx.Conn) (bool, error) { return !p.outdated(conn), nil }
	pc.BeforeClose = func(conn *pgx.Conn) {
		p.idle.Store(0) // the closed connection may have been idle
		c.beforeClose(conn)
	}
	p.began = make([]atomic.Int64, pc.MaxConns)
	p.pgx, err = pgxpool.NewWithConfig(context.Background(), pc)
	return p, err
}

func (p *pool) Acquire(ctx context.Context, l *Lease) error {
	n := p.idle.Add(-1)
	if n < 0 {
		p.idle.Store(0)
		if p.Idle() == 0 { // a refusal costs less here than inside pgxpool
			if err := p.breaker.refuses(); err != nil {
				return err
			}
		}
	}
	within := ctx
	if n < 0 || p.mayCheck(n, l) { // connecting, and checks, count against the timeout like the wait in the queue
		var cancel context.CancelFunc
		within, cancel = p.within(ctx, l)
		defer cancel()
	}
	conn, err := p.pgx.Acquire(within)
	if err != nil {
		conn, err = p.acquireAgain(ctx, l, err)
	}
	if err == nil {
		l.Attach(conn.Conn(), conn)
	}
	return err
}

// acquireAgain repeats an acquire that failed with err, perhaps because the idle connection was lost, within what is left
// of the timeout.
func (p *pool) acquireAgain(ctx context.Context, l *Lease, err error) (conn *pgxpool.Conn, _ error) {
	left, cancel := p.within(ctx, l)
	defer cancel()
	again := func() (err error) {
		conn, err = p.pgx.Acquire(left)
		p.idle.Store(0) // it may have counted this connection
		return p.explain(ctx, left, timeOf(l.since), err)
	}
	err = p.explain(ctx, left, timeOf(l.since), err)
	if CauseOf(err) == SlotsExhausted && p.Idle() > 0 { // released while this one was refused
		err = again()
	}
	err = p.retry(left, err, again)
	return conn, err
}

// mayCheck reports whether pgxpool may check the n-th idle connection, which it hands out next, and that, or the attempt to
// connect if it fails, may take longer than the timeout. Instead of reading the clock, it compares when the two leases began.
// The halves allow for the time until pgxpool reads the clock. A bound costs every lease of a busy pool a microsecond, so
// there is none for a peek if a whole attempt to connect still fits.
func (p *pool) mayCheck(n int64, l *Lease) bool {
	idle := time.Duration(l.since - p.lastUse(n).Load())
	late := idle > peekAfter/2 || l.waited > 0 // a waiter may wake up late
	return idle > pingAfter/2 || late && l.waited+p.longest > p.timeout
}

func (p *pool) lastUse(n int64) *atomic.Int64 { return &p.began[min(max(n, 0), int64(len(p.began))-1)] }

// refillsRetired reports whether pgxpool makes this attempt to connect by itself, to keep min_size, although the pool is
// retired.
func (p *pool) refillsRetired(ctx context.Context) bool {
	return p.retired.Load() && ctx.Value(leaseKey{}) == nil
}

// leaseKey is the context key of an attempt to connect for a lease. Other attempts are pgxpool's own.
type leaseKey struct{}

// within bounds ctx by what is left of the timeout.
func (p *pool) within(ctx context.Context, l *Lease) (context.Context, context.CancelFunc) {
	return context.WithDeadline(context.WithValue(ctx, leaseKey{}, l), timeOf(l.since).Add(p.timeout-l.waited))
}

// explain returns why there is no connection, or nil if there is one. ctx is the caller's; within also has the strategy's
// timeout.
func (p *pool) explain(ctx, within context.Context, began time.Time, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, puddle.ErrClosedPool):
		return ErrClosed
	case within.Err() != nil && ctx.Err() == nil:
		err = fmt.Errorf("connecting did not end within %w: %w", poolTimeout(p.timeout), err)
	}
	return inVain(ctx, within, began, p.connectError(ctx, err))
}

// poolTimeout is the cause of the end of an attempt to connect that no caller bounds.
type poolTimeout time.Duration

func (t poolTimeout) Error() string { return "pool.timeout, " + time.Duration(t).String() }

// Release keeps connections after Retire too, while requests wait: otherwise each of them would connect anew. Source.sweep
// closes what is kept too long.
func (p *pool) Release(l *Lease) {
	over := p.retired.Load()
	over = over && !l.awaited()
	over = over || p.outdated(l.conn) || p.tickets.revoke(l.conn)
	if over || !l.Reusable() {
		p.CloseConn(l.conn) // pgxpool drops a closed connection
	} else {
		n := p.idle.Add(1)
		p.lastUse(n - 1).Store(l.since)
	}
	l.owner.(*pgxpool.Conn).Release()
}

func (p *pool) Forget(l *Lease) {
	l.owner.(*pgxpool.Conn).Hijack()
	p.tickets.closed(l.conn)
}

func (p *pool) Idle() int { return int(p.pgx.Stat().IdleConns()) }

func (p *pool) Refresh(ctx context.Context) {
	idle := p.allIdle(ctx)     // before the mark: after it, pgxpool closes them by itself, and nobody waits for that
	p.refreshed.Store(ticks()) // those that pgxpool has in its hands at this moment are closed when they are next acquired
	p.destroy(ctx, idle)
}

// outdated reports whether the connection was opened before the last Refresh.
func (p *pool) outdated(conn *pgx.Conn) bool {
	since := p.refreshed.Load()
	if since == 0 {
		return false
	}
	at, _ := conn.PgConn().CustomData()[opened].(int64)
	return at < since
}

func (p *pool) Retire(ctx context.Context) {
	p.retired.Store(true)
	p.closeIdle(ctx)
}

func (p *pool) closeIdle(ctx context.Context) { p.destroy(ctx, p.allIdle(ctx)) }

// allIdle acquires the idle connections, which no lease counts on any more.
func (p *pool) allIdle(ctx context.Context) []*pgxpool.Conn {
	p.idle.Store(0)
	return p.pgx.AcquireAllIdle(ctx)
}

func (p *pool) destroy(ctx context.Context, idle []*pgxpool.Conn) {
	p.idle.Store(0) // it may have counted these connections
	closeAll(ctx, idle, func(c *pgxpool.Conn) {
		p.CloseConn(c.Conn())
		c.Release() // until now pgxpool counted it, so that there are never more backends than max_size
	})
}

// Close waits for connections that are still being made, as pgxpool does.
func (p *pool) Close() { p.pgx.Close() }

// addStat adds the counters of pgxpool.
func (p *pool) addStat(s *Stat) {
	of := p.pgx.Stat()
	s.AgedOut, s.IdledOut = of.MaxLifetimeDestroyCount(), of.MaxIdleDestroyCount()
}
