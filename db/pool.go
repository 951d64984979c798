package db

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Pool is the name of the strategy that shares at most MaxSize connections. pgxpool keeps them.
const Pool = "pool"

// pool wraps pgxpool. Source gives out no more leases than pgxpool has connections, so a request waits inside pgxpool
// only while its connection is being made, or an old one in its place is being closed.
type pool struct {
	*Connector
	pgx     *pgxpool.Pool
	timeout time.Duration
	idle    idleConns
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
		p.idle.forget() // the closed connection may have been idle
		c.beforeClose(conn)
	}
	p.idle.began = make([]atomic.Int64, pc.MaxConns)
	p.pgx, err = pgxpool.NewWithConfig(context.Background(), pc)
	return p, err
}

func (p *pool) Acquire(ctx context.Context, l *Lease) error {
	began, known := p.idle.take()
	if !known && p.Idle() == 0 { // a refusal costs less here than inside pgxpool
		if err := p.breaker.refuses(); err != nil {
			return err
		}
	}
	within := ctx
	if !known || p.mayCheck(began, l) { // connecting, and checks, count against the timeout like the wait in the queue
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

// refillsRetired reports whether pgxpool makes this attempt to connect by itself, to keep min_size, although the pool is
// retired.
func (p *pool) refillsRetired(ctx context.Context) bool {
	return p.retired.Load() && ctx.Value(leaseKey{}) == nil
}

// Release keeps connections after Retire too, while requests wait: otherwise each of them would connect anew. Source.sweep
// closes what is kept too long.
func (p *pool) Release(l *Lease) {
	over := p.retired.Load()
	over = over && !l.awaited()
	over = over || p.outdated(l.conn) || p.tickets.revoke(l.conn)
	if over || !l.Reusable() {
		p.CloseConn(l.conn) // pgxpool drops a closed connection
	} else {
		p.idle.put(l.since)
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
	p.idle.forget()
	return p.pgx.AcquireAllIdle(ctx)
}

func (p *pool) destroy(ctx context.Context, idle []*pgxpool.Conn) {
	p.idle.forget() // it may have counted these connections
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
