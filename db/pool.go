package db

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/puddle/v2" // pgxpool's own pool, for the error of one that is closed

	"ddtb/config"
)

// pool is pgxpool with what it lacks: a bound on the wait and on the queue, first come first served, who
// waits and who holds, and a reset of what a borrower left behind. As many places as pgxpool has connections
// stand before it, so that nobody waits inside it, except for a connection that is being made or unmade.
type pool struct {
	queue   *queue
	breaker *breaker
	pgx     *pgxpool.Pool
	hold    string
	timeout time.Duration
	retired atomic.Bool
}

func newPool(q *queue, cfg config.Pool, cc *pgx.ConnConfig) (*pool, error) {
	pc, err := pgxpool.ParseConfig("")
	if err != nil {
		return nil, err
	}
	q.size, q.maxWaiting, q.timeout = cfg.MaxSize, cfg.MaxWaiting, cfg.Timeout
	pc.ConnConfig = cc
	pc.MinConns, pc.MaxConns = int32(cfg.MinSize), int32(cfg.MaxSize)
	pc.MaxConnLifetime, pc.MaxConnLifetimeJitter = cfg.MaxLifetime, cfg.MaxLifetime/10
	pc.MaxConnIdleTime, pc.HealthCheckPeriod = cfg.MaxIdle, cfg.HealthCheckPeriod
	pc.PingTimeout = cc.ConnectTimeout
	b := newBreaker(q, cc)
	pc.BeforeConnect = func(context.Context, *pgx.ConnConfig) error { return b.admit() }
	pc.BeforeClose = sayGoodbye
	p, err := pgxpool.NewWithConfig(context.Background(), pc)
	if err != nil {
		return nil, err
	}
	return &pool{queue: q, breaker: b, pgx: p, hold: cfg.Hold, timeout: cfg.Timeout}, nil
}

func (p *pool) HoldsForRequest() bool { return p.hold == config.HoldRequest }
func (p *pool) Holders() []Holder     { return p.queue.holders() }

func (p *pool) Acquire(ctx context.Context) (*Lease, error) {
	l, err := p.queue.enter(ctx)
	if err != nil {
		return nil, err
	}
	within, cancel := context.WithDeadline(ctx, l.since.Add(p.timeout-l.waited)) // the wait in the queue counts
	defer cancel()
	var conn *pgxpool.Conn
	err = p.breaker.patiently(within, func() (err error) {
		conn, err = p.pgx.Acquire(within)
		return p.connectError(ctx, within, err)
	})
	if err != nil {
		p.queue.leave(l)
		return nil, err
	}
	return l.lend(p, conn.Conn(), conn), nil
}

// connectError tells why pgxpool gave no connection although there was a place: ctx is the caller's, within has the
// strategy's timeout as well.
func (p *pool) connectError(ctx, within context.Context, err error) error {
	switch {
	case err == nil || CauseOf(err) == CircuitOpen:
		return err
	case errors.Is(err, puddle.ErrClosedPool):
		return ErrClosed
	case within.Err() != nil && ctx.Err() == nil:
		err = fmt.Errorf("connecting did not end within %v: %w", p.timeout, err)
	}
	return connectError(ctx, p.queue.strategy, err)
}

func (p *pool) giveBack(l *Lease) {
	if p.retired.Load() || !l.reuse() {
		hangUp(l.conn) // Release destroys a closed connection
	}
	l.slot.(*pgxpool.Conn).Release()
}

func (p *pool) detach(l *Lease) { l.slot.(*pgxpool.Conn).Hijack() }

func (p *pool) Stat() Stat {
	s := p.queue.snapshot()
	of := p.pgx.Stat()
	s.Idle, s.AgedOut, s.IdledOut = int(of.IdleConns()), of.MaxLifetimeDestroyCount(), of.MaxIdleDestroyCount()
	return s
}

func (p *pool) Retire(ctx context.Context) {
	p.retired.Store(true)
	idle := p.pgx.AcquireAllIdle(ctx)
	conns := make([]*pgx.Conn, len(idle))
	for i, c := range idle {
		conns[i] = c.Hijack()
	}
	hangUpAll(ctx, conns)
}

// Close ends with pgxpool's own, which waits for a connection that is still being made.
func (p *pool) Close(ctx context.Context) error {
	p.Retire(ctx)
	err := p.queue.drain(ctx)
	p.pgx.Close()
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("leases were still out, and were taken back: %w", err)
	}
	return err
}
