package activity

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/config"
	"ddtb/db"
)

// How long the error of a failed attempt to connect is returned without a new attempt: monitoring must not add load to a
// full server. A lost server may have a successor within a second: the next attempt is sooner.
const (
	retryAfter = time.Second
	retryLost  = 200 * time.Millisecond
)

// Observer keeps one connection open to monitor the server. It is safe for concurrent use; queries take turns.
type Observer struct {
	// Process returns the figures of this process's own leases, for clients of Share; nil: none. Set it before Share.
	Process func() Process

	cfg         config.Database // empty if it was made without one
	cc          *pgx.ConnConfig
	application string
	turn        chan struct{} // holds a token while no query runs
	conn        *pgx.Conn
	failed      time.Time // when connecting last failed
	why         error
}

// NewObserver returns an Observer of cfg's server. It bypasses a pooler if the configuration says how. It connects at
// the first query, so query early.
func NewObserver(cfg config.Database) (*Observer, error) {
	cc, err := connConfig(cfg)
	if err != nil {
		return nil, err
	}
	o := NewObserverWith(cc, cfg.ApplicationName)
	o.cfg = cfg
	return o, nil
}

func connConfig(cfg config.Database) (*pgx.ConnConfig, error) {
	if cfg.Pooler != "" {
		cfg = db.Direct(cfg)
	}
	return db.ConnConfig(cfg, cfg.ApplicationName+monitorSuffix)
}

// Use makes the Observer monitor cfg's server from the next query on. If server and user stay the same, it keeps its
// connection, because there may be no slot for another.
func (o *Observer) Use(ctx context.Context, cfg config.Database) error {
	done, err := o.take(ctx)
	if err != nil {
		return err
	}
	defer done()
	if cfg.SameServer(o.cfg) {
		return nil
	}
	cc, err := connConfig(cfg)
	if err != nil {
		return err
	}
	cc.DefaultQueryExecMode = execMode
	o.hangUp()
	o.cfg, o.cc, o.application, o.failed, o.why = cfg, cc, cfg.ApplicationName, time.Time{}, nil
	return nil
}

// monitorSuffix ends the application_name of the monitoring connection.
const monitorSuffix = "/monitor"

// execMode takes one round trip and keeps no state on the server, so it works through any pooler. Polls are rare.
const execMode = pgx.QueryExecModeExec

// NewObserverWith returns an Observer of any server. application is the application_name of the monitored sessions: the
// name itself, or the name followed by a slash and more. It may be empty.
func NewObserverWith(cc *pgx.ConnConfig, application string) *Observer {
	cc = cc.Copy()
	cc.DefaultQueryExecMode = execMode
	o := &Observer{cc: cc, application: application, turn: make(chan struct{}, 1)}
	o.turn <- struct{}{}
	return o
}

// Do runs f with the connection. A dead connection, for example after a restart of the server, is replaced once, and f
// runs again.
func (o *Observer) Do(ctx context.Context, f func(*pgx.Conn) error) error {
	done, err := o.take(ctx)
	if err != nil {
		return err
	}
	defer done()
	kept := o.conn != nil
	if err = o.connect(ctx); err != nil {
		return err
	}
	err = f(o.conn)
	if err == nil || !o.conn.IsClosed() {
		return err
	}
	o.conn = nil
	if !kept || ctx.Err() != nil {
		return err
	}
	if err := o.connect(ctx); err != nil {
		return err
	}
	return f(o.conn)
}

func (o *Observer) connect(ctx context.Context) error {
	if o.conn != nil && !o.conn.IsClosed() {
		return nil
	}
	pause := retryAfter
	if cause := db.CauseOf(o.why); cause == db.ServerUnavailable || cause == db.NoSuitableServer {
		pause = retryLost
	}
	if time.Since(o.failed) < pause {
		return o.why
	}
	conn, err := db.Connect(ctx, o.cc)
	if err != nil {
		if ctx.Err() == nil {
			o.failed, o.why = time.Now(), err
		}
		return err
	}
	o.conn, o.why = conn, nil
	return nil
}

// Backends counts the backends with one application_name.
func (o *Observer) Backends(ctx context.Context, application string) (n int, err error) {
	err = o.Do(ctx, func(c *pgx.Conn) error {
		return c.QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity WHERE application_name = $1`, application).Scan(&n)
	})
	if err != nil {
		return 0, fmt.Errorf("count the backends of %s: %w", application, err)
	}
	return n, nil
}

// Close closes the connection and frees its slot.
func (o *Observer) Close() {
	if done, err := o.take(context.Background()); err == nil {
		defer done()
		o.hangUp()
	}
}

// take waits for this caller's turn, which ends with done.
func (o *Observer) take(ctx context.Context) (done func(), err error) {
	select {
	case <-o.turn:
		return func() { o.turn <- struct{}{} }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// hangUp closes the connection, if there is one. The caller must have the turn.
func (o *Observer) hangUp() {
	if o.conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = o.conn.Close(ctx)
		o.conn = nil
	}
}
