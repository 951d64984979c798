package db

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/puddle/v2" // pgxpool's own pool, for the error of a closed pool
)

// idleConns counts a pgxpool's idle connections, and records when the last lease of each began. pgxpool hands out first what
// was released last.
type idleConns struct {
	n     atomic.Int64   // at most their number: 0 again whenever pgxpool may have closed one
	began []atomic.Int64 // in ticks
}

// take counts off the connection that pgxpool hands out next, and returns when its last lease began. known is false if pgxpool
// may have to connect.
func (c *idleConns) take() (began int64, known bool) {
	n := c.n.Add(-1)
	if n < 0 {
		c.n.Store(0)
		return 0, false
	}
	return c.began[min(n, int64(len(c.began))-1)].Load(), true
}

// put counts a connection whose lease began then.
func (c *idleConns) put(began int64) {
	n := c.n.Add(1) - 1
	c.began[min(max(n, 0), int64(len(c.began))-1)].Store(began)
}

// forget is called when pgxpool may have closed one.
func (c *idleConns) forget() { c.n.Store(0) }

// mayCheck reports whether pgxpool may check the connection that it hands out next, and that, or the attempt to connect if it
// fails, may take longer than the timeout. Instead of reading the clock, it compares when the two leases began. The halves
// allow for the time until pgxpool reads the clock. A bound costs every lease of a busy pool a microsecond, so there is none
// for a peek if a whole attempt to connect still fits.
func (p *pool) mayCheck(began int64, l *Lease) bool {
	idle := time.Duration(l.since - began)
	late := idle > peekAfter/2 || l.waited > 0 // a waiter may wake up late
	return idle > pingAfter/2 || late && l.waited+p.longest > p.timeout
}

// leaseKey is the context key of an attempt to connect for a lease. Other attempts are pgxpool's own.
type leaseKey struct{}

// within bounds ctx by what is left of the timeout.
func (p *pool) within(ctx context.Context, l *Lease) (context.Context, context.CancelFunc) {
	return context.WithDeadline(context.WithValue(ctx, leaseKey{}, l), timeOf(l.since).Add(p.timeout-l.waited))
}

// acquireAgain repeats an acquire that failed with err, perhaps because the idle connection was lost, within what is left
// of the timeout.
func (p *pool) acquireAgain(ctx context.Context, l *Lease, err error) (conn *pgxpool.Conn, _ error) {
	left, cancel := p.within(ctx, l)
	defer cancel()
	again := func() (err error) {
		conn, err = p.pgx.Acquire(left)
		p.idle.forget() // it may have counted this connection
		return p.explain(ctx, left, timeOf(l.since), err)
	}
	err = p.explain(ctx, left, timeOf(l.since), err)
	if CauseOf(err) == SlotsExhausted && p.Idle() > 0 { // released while this one was refused
		err = again()
	}
	err = p.retry(left, err, again)
	return conn, err
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
