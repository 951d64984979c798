package db

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Connector makes and closes the connections of one Source. Every attempt passes the breaker.
type Connector struct {
	settings Settings
	config   *pgx.ConnConfig
	longest  time.Duration // ConnectTimeout for each host; pgx takes longer where a name has several addresses
	breaker  *breaker
	tickets  *tickets // nil: no budget

	connecting          atomic.Int64 // attempts under way
	connects, connected atomic.Int64
}

// pingAfter is how long a connection must have been idle to be checked before it is used, so that no request fails
// after a server restart or an idle_session_timeout. Django has CONN_HEALTH_CHECKS for this; pgxpool does the same.
const pingAfter = time.Second

// peekAfter is how long a connection must have been idle to have its socket checked, see unread. A server that ended it
// more recently would have ended the query as well.
const peekAfter = time.Millisecond

// The waits between the attempts of one request: 50 ms, doubled up to 1 s, with a jitter of a half. Before the circuit opens,
// that is about 0.7 s. A server that only restarts is usually back by then.
const (
	firstBackoff = 50 * time.Millisecond
	mostBackoff  = time.Second
)

func newConnector(s Settings) (*Connector, error) {
	cc, err := ConnConfig(s, s.ApplicationName+"/"+s.Strategy)
	if err != nil {
		return nil, err
	}
	c := &Connector{settings: s, config: cc, longest: s.ConnectTimeout * time.Duration(max(1, len(s.Hosts.List())))}
	cc.Tracer = attemptCounter{c}
	c.breaker = newBreaker(c)
	return c, nil
}

// Config returns a copy of the driver's configuration, for a library that connects by itself. The library must call
// Prepare before each attempt.
func (c *Connector) Config() *pgx.ConnConfig { return c.config.Copy() }

// Prepare admits an attempt to connect, for which it may have to wait for a ticket of the budget. An error is a *ConnError.
// The password is read during the attempt: see ConnConfig.
func (c *Connector) Prepare(ctx context.Context, cc *pgx.ConnConfig) error {
	if err := c.tickets.take(ctx); err != nil {
		return err
	}
	if err := c.breaker.admit(); err != nil {
		c.tickets.takeBack(ctx)
		return err
	}
	c.tickets.holdDuring(cc)
	return nil
}

// Connect makes a connection. While the server can't be reached it retries, until the circuit opens, ConnectTimeout has
// passed for each host, or ctx ends. A failure is a *ConnError, or ctx's error if the caller's context was cancelled.
func (c *Connector) Connect(ctx context.Context) (*pgx.Conn, error) {
	began := time.Now()
	within, cancel := context.WithTimeout(ctx, c.longest)
	defer cancel()
	conn, err := c.attempt(ctx)
	err = c.retry(within, err, func() (err error) {
		conn, err = c.attempt(ctx)
		return err
	})
	return conn, inVain(ctx, within, began, err)
}

// inVain marks the error of a search for a connection that used up its own time limit, and not its caller's.
func inVain(ctx, within context.Context, began time.Time, err error) error {
	ce, ok := errors.AsType[*ConnError](err)
	if !ok || within.Err() == nil || ctx.Err() != nil {
		return err
	}
	marked := *ce // others may have the error too
	marked.inVain = time.Since(began)
	return &marked
}

func (c *Connector) attempt(ctx context.Context) (*pgx.Conn, error) {
	cc := c.Config()
	if err := c.Prepare(ctx, cc); err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, cc)
	if err != nil {
		return nil, c.connectError(ctx, err)
	}
	return conn, nil
}

// errRetired refuses pgxpool's own attempt to refill a retired pool. A lease that waited for it tries again, and then
// connects.
var errRetired = errors.New("the pool was replaced")

// retry runs try, which connects, again if it failed with err: until it succeeds, fails permanently, the circuit opens,
// or ctx ends.
func (c *Connector) retry(ctx context.Context, err error, try func() error) error {
	return retry(ctx, firstBackoff, mostBackoff, err, try, func(err error) bool {
		switch {
		case errors.Is(err, errUnpolled): // there was no attempt, and the polls go on by themselves
			return false
		case errors.Is(err, errLost):
			return true
		case errors.Is(err, errRetired):
			return true
		case c.breaker.circuit.IsOpen():
			return false
		}
		cause := CauseOf(err)
		return cause == ServerUnavailable || cause == NoSuitableServer
	})
}

// connectError is the package's connectError. If the attempt ran out of time, its text also says which limit ended it, since
// the server may be well.
func (c *Connector) connectError(ctx context.Context, err error) error {
	_, answered := refusalOf(err)
	late := ctx.Err() != nil && !answered && CauseOf(err) == ""
	err = connectError(ctx, c.settings.Strategy, err)
	if ce, ok := errors.AsType[*ConnError](err); ok && late && ce.Cause == ServerUnavailable {
		whose := "the time that its caller has"
		if own, ok := errors.AsType[poolTimeout](context.Cause(ctx)); ok {
			whose = own.Error()
		}
		ce.Err = fmt.Errorf("connecting did not end within %s: %w", whose, ce.Err)
	}
	return err
}

// CloseConn closes the connection and waits until its slot is free, for at most one second.
func (c *Connector) CloseConn(conn *pgx.Conn) {
	Disconnect(conn)
	c.tickets.closed(conn)
	c.breaker.slotFreed()
}

// beforeClose is for a library that closes connections by itself.
func (c *Connector) beforeClose(conn *pgx.Conn) {
	terminate(conn)
	c.tickets.closed(conn)
	c.breaker.slotFreed()
}

// closeAll closes the connections concurrently, and returns when ctx ends, at the latest.
func closeAll[C any](ctx context.Context, conns []C, end func(C)) {
	var wg sync.WaitGroup
	for _, conn := range conns {
		wg.Go(func() { end(conn) })
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }() // ends: closeTimeout bounds each
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// Connect makes one connection outside of any strategy, for a program that monitors the server rather than serves
// requests. A failure is a *ConnError.
func Connect(ctx context.Context, cc *pgx.ConnConfig) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, cc.Copy())
	if err != nil {
		return nil, connectError(ctx, "", err)
	}
	return conn, nil
}

// Lost returns the error of a query on a connection that Connect made: a *ConnError if the connection was lost, else err.
func Lost(conn *pgx.Conn, err error) error {
	if err == nil || !lost(err, conn.IsClosed()) {
		return err
	}
	return lostConnection(conn, err)
}

// lostConnection returns the error of a statement under which the connection was lost.
func lostConnection(conn *pgx.Conn, err error) *ConnError {
	cause := ServerUnavailable
	if pe, ok := errors.AsType[*pgconn.PgError](err); ok {
		cause = causeOfAnswer(pe)
	}
	return &ConnError{Cause: cause, Server: ServerOf(conn), Sent: true, Err: err, stack: callers()}
}
