package activity

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/config"
	"ddtb/db"
)

// retryAfter is how long a failed attempt to connect is answered from memory: looking must not add to a crowd.
const retryAfter = time.Second

// Observer keeps one connection open to look at the server. It is safe for concurrent use; queries take turns.
type Observer struct {
	// Process is what the process that observes knows about its own leases, for those to whom Lend lends; nil: nothing.
	// It is set before Lend.
	Process func() Process

	cfg         config.Database // empty where it was made without
	cc          *pgx.ConnConfig
	application string
	turn        chan struct{} // holds a token when nobody queries
	conn        *pgx.Conn
	failed      time.Time // when connecting failed last
	why         error
}

// NewObserver makes an Observer of cfg's server, past its pooler if it has one and the configuration says how. It
// connects at the first query: ask early.
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

// Use has the Observer look at cfg's server from the next query on. Where that is the one it looks at, and as the
// same user, its connection stays: there may be no slot for another.
func (o *Observer) Use(ctx context.Context, cfg config.Database) error {
	select {
	case <-o.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { o.turn <- struct{}{} }()
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

// monitorSuffix ends the application_name of the connection that looks.
const monitorSuffix = "/monitor"

// execMode takes one round trip, and keeps nothing on the server: any pooler carries it, and looking is rare.
const execMode = pgx.QueryExecModeExec

// NewObserverWith makes an Observer of any server. application is what the sessions that are watched over call
// themselves: the name itself, or the name, a slash and more. It may be empty.
func NewObserverWith(cc *pgx.ConnConfig, application string) *Observer {
	cc = cc.Copy()
	cc.DefaultQueryExecMode = execMode
	o := &Observer{cc: cc, application: application, turn: make(chan struct{}, 1)}
	o.turn <- struct{}{}
	return o
}

// Do runs f with the connection. A connection that turns out to be dead, after a restart of the server say, is
// replaced once, and f runs again.
func (o *Observer) Do(ctx context.Context, f func(*pgx.Conn) error) error {
	select {
	case <-o.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { o.turn <- struct{}{} }()
	kept := o.conn != nil
	if err := o.connect(ctx); err != nil {
		return err
	}
	err := f(o.conn)
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
	if time.Since(o.failed) < retryAfter {
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

// Backends counts the backends of one application_name.
func (o *Observer) Backends(ctx context.Context, application string) (n int, err error) {
	err = o.Do(ctx, func(c *pgx.Conn) error {
		return c.QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity WHERE application_name = $1`, application).Scan(&n)
	})
	if err != nil {
		return 0, fmt.Errorf("count the backends of %s: %w", application, err)
	}
	return n, nil
}

// Close gives the slot back.
func (o *Observer) Close() {
	<-o.turn
	defer func() { o.turn <- struct{}{} }()
	o.hangUp()
}

// hangUp closes the connection, if there is one. Whoever calls has the turn.
func (o *Observer) hangUp() {
	if o.conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = o.conn.Close(ctx)
		o.conn = nil
	}
}
