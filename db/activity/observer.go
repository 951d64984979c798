package activity

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

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
	// PassFile is the file with the passwords of a private server, which psql needs to log in there; "": psql finds its own
	// way. Set it before the first snapshot.
	PassFile string

	cfg         config.Database // empty if it was made without one
	cc          *pgx.ConnConfig
	application string
	turn        chan struct{} // holds a token while no query runs
	conn        *pgx.Conn
	outdated    bool      // conn is that of earlier settings
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
	return db.ConnConfig(db.Direct(cfg), cfg.ApplicationName+monitorSuffix)
}

// Use makes the Observer monitor cfg's server from the next query on. It keeps its connection if cfg reaches the same
// server: see db.Settings.SameServer. Otherwise it connects before it closes the old connection. If the same server
// refuses another for the same database, because it is full, it keeps the old one until it gets one.
func (o *Observer) Use(ctx context.Context, cfg config.Database) error {
	done, err := o.take(ctx)
	if err != nil {
		return err
	}
	defer done()
	if cfg == o.cfg {
		return nil
	}
	cc, err := connConfig(cfg)
	if err != nil {
		return err
	}
	cc.DefaultQueryExecMode = execMode
	same := cfg.SameServer(o.cfg)
	o.cfg, o.cc, o.failed, o.why = cfg, cc, time.Time{}, nil
	if same {
		return nil
	}
	o.application, o.PassFile = cfg.ApplicationName, ""
	before := o.conn
	o.conn = nil
	if err := o.connect(ctx); refusedBy(before, cc, err) {
		o.conn, o.outdated = before, true
	} else if before != nil {
		db.Disconnect(before)
	}
	return nil
}

// refusedBy reports whether conn's server has refused another connection to conn's database because it is full.
func refusedBy(conn *pgx.Conn, cc *pgx.ConnConfig, err error) bool {
	ce, ok := errors.AsType[*db.ConnError](err)
	return ok && ce.Cause == db.SlotsExhausted && conn != nil && ce.Server == db.ServerOf(conn) && cc.Database == conn.Config().Database
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
// runs again. If that one is lost too, the error is a *db.ConnError.
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
	lost := o.conn
	o.conn = nil
	switch {
	case ctx.Err() != nil:
		return err
	case !kept:
		return db.Lost(lost, err)
	}
	if err := o.connect(ctx); err != nil {
		return err
	}
	return db.Lost(o.conn, f(o.conn))
}

// Read is Do for an f that changes nothing. Where the session's own settings prevent f, it runs once more without them:
// see adaptations.
func (o *Observer) Read(ctx context.Context, f func(*pgx.Conn) error) error {
	return o.Do(ctx, func(c *pgx.Conn) error { return adapted(ctx, c, f) })
}

// adapted runs f, and once more if the session's own settings prevent it. Behind a pooler they would leak to other
// clients, so they are changed for a transaction, which is rolled back.
func adapted(ctx context.Context, c *pgx.Conn, f func(*pgx.Conn) error) error {
	err := f(c)
	pe, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || adaptations[pe.Code] == "" || ctx.Err() != nil {
		return err
	}
	failed := err
	for tries := 0; failed != nil && tries < 5; tries++ { // a timeout may hit these too
		_, failed = c.Exec(ctx, "ROLLBACK; BEGIN; "+adaptations[pe.Code], pgx.QueryExecModeSimpleProtocol)
	}
	if failed == nil {
		err = f(c)
		_, failed = c.Exec(ctx, "ROLLBACK")
	}
	if failed != nil { // it may be in a transaction that failed, which no query leaves
		_ = c.Close(ctx)
	}
	return errors.Join(err, failed)
}

// adaptations are the statements that let a query succeed after an error, by SQLSTATE. The texts of pg_stat_activity
// have the encodings of all databases, and some can't be converted from that of ours: then all are taken as they are.
// The role's statement_timeout may be too short for a query that is bounded here anyway.
var adaptations = map[string]string{
	pgerrcode.CharacterNotInRepertoire: asTheyAre,
	pgerrcode.UntranslatableCharacter:  asTheyAre,
	pgerrcode.QueryCanceled:            "SET LOCAL statement_timeout = 0",
}

const asTheyAre = "SET LOCAL client_encoding = 'SQL_ASCII'"

func (o *Observer) connect(ctx context.Context) error {
	kept := o.conn != nil && !o.conn.IsClosed()
	if kept && (!o.outdated || time.Since(o.failed) < retryAfter) {
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
		if kept {
			return nil
		}
		return err
	}
	if kept {
		db.Disconnect(o.conn)
	}
	o.conn, o.outdated, o.failed, o.why = conn, false, time.Time{}, nil
	return nil
}

// Backends counts the backends with one application_name.
func (o *Observer) Backends(ctx context.Context, application string) (n int, err error) {
	err = o.Read(ctx, func(c *pgx.Conn) error {
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
		if o.conn != nil {
			db.Disconnect(o.conn)
			o.conn = nil
		}
	}
}

// ErrBusy means that another query had the connection until the caller's context ended. It is returned with the context's
// error.
var ErrBusy = errors.New("the monitoring connection is in use by another query")

// Unanswered returns err or, if time ran out, that the server is unavailable. It is for queries over the monitoring
// connection, and for checks of who is asking.
func Unanswered(err error) error {
	if errors.Is(err, context.DeadlineExceeded) && db.CauseOf(err) == "" {
		return &db.ConnError{Cause: db.ServerUnavailable, Err: err}
	}
	return err
}

// take waits for this caller's turn, which ends with done.
func (o *Observer) take(ctx context.Context) (done func(), err error) {
	select {
	case <-o.turn:
		return func() { o.turn <- struct{}{} }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrBusy, ctx.Err())
	}
}
