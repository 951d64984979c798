package db

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"ddtb/config"
)

// Querier runs SQL without knowing which connection it gets. A failure to get one, or the loss of it, is a
// *ConnError; everything else is the driver's own error. A query whose context ends is cancelled on the server, and
// returns when that is done; on a server or a network that is silent it returns a second later.
type Querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// ErrClosed is what queries get after DB.Close.
var ErrClosed = errors.New("the database was closed")

// DB is one database, reached through the strategy in force, which may be switched at any time. It is safe
// for concurrent use.
type DB struct {
	now       atomic.Pointer[generation]
	closed    atomic.Bool
	switches  sync.Mutex      // one switch at a time
	lifetime  context.Context // ends when Close has no more patience with leases that are out
	cut       context.CancelFunc
	draining  sync.WaitGroup
	log       *slog.Logger
	tracer    Tracer
	nested    toldOnce // pairs of lines
	forgotten toldOnce // lines that left rows open

	totals   sync.Mutex
	old      []*generation   // replaced, with requests that finish on them
	finished map[string]Stat // the counters of those that are closed, by strategy
}

// Options are what a DB may be given.
type Options struct {
	Log    *slog.Logger // for leaks and nested leases; nil is silence
	Tracer Tracer       // nil: nobody follows
}

// Tracer follows what a DB does, for spans and figures. Where it implements pgx.ConnectTracer, it follows the attempts
// to connect too. Its methods are called on the way of a request, and must not block.
type Tracer interface {
	pgx.QueryTracer
	// TraceAcquire begins when a lease is asked for; end is called once, when it was given or refused.
	TraceAcquire(ctx context.Context, strategy string) (end func(error))
}

// generation is a strategy with its configuration, and a count of those who use it.
type generation struct {
	Strategy
	cfg     config.Database
	tracer  Tracer
	users   atomic.Int64 // scopes, and those who are acquiring
	retired atomic.Bool
	failing atomic.Pointer[failing]
	unused  chan struct{} // buffered: told when users falls to 0 after the retirement
}

// Open makes a DB with the strategy that cfg names. It connects at the first query.
func Open(_ context.Context, cfg config.Database) (*DB, error) { return OpenWith(cfg, Options{}) }

// OpenWith is Open with options.
func OpenWith(cfg config.Database, o Options) (*DB, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	d := &DB{log: o.Log, tracer: o.Tracer, finished: map[string]Stat{}}
	g, err := d.newGeneration(cfg)
	if err != nil {
		return nil, err
	}
	d.lifetime, d.cut = context.WithCancel(context.Background())
	d.now.Store(g)
	return d, nil
}

func (d *DB) newGeneration(cfg config.Database) (*generation, error) {
	s, err := NewStrategy(cfg, Options{d.log, d.tracer})
	if err != nil {
		return nil, fmt.Errorf("database %q: %w", cfg.Name, err)
	}
	return &generation{Strategy: s, cfg: cfg, tracer: d.tracer, unused: make(chan struct{}, 1)}, nil
}

// Acquire is the strategy's, followed by the tracer.
func (g *generation) Acquire(ctx context.Context) (*Lease, error) {
	if g.tracer == nil {
		return g.acquire(ctx)
	}
	end := g.tracer.TraceAcquire(ctx, g.cfg.Strategy)
	l, err := g.acquire(ctx)
	end(err)
	return l, err
}

// failing is a failure after which no lease was given.
type failing struct {
	at  time.Time
	err error
}

func (g *generation) acquire(ctx context.Context) (*Lease, error) {
	l, err := g.Strategy.Acquire(ctx)
	if err == nil {
		if g.failing.Load() != nil {
			g.failing.Store(nil)
		}
		return l, nil
	}
	switch CauseOf(err) {
	case SlotsExhausted, ServerUnavailable, LoginRejected, CircuitOpen:
		if ctx.Err() == nil { // else it may be the caller who had no more time
			g.failing.Store(&failing{time.Now(), err})
		}
	}
	return nil, err
}

// Failing is how the last attempt to get a connection from the server failed, and when, if no lease was given since. A
// queue that is full or too slow is no such failure: it serves others.
func (d *DB) Failing() (at time.Time, err error) {
	if f := d.now.Load().failing.Load(); f != nil {
		return f.at, f.err
	}
	return time.Time{}, nil
}

// Config is the configuration in force.
func (d *DB) Config() config.Database { return d.now.Load().cfg }

// Stat is that of the strategy in force.
func (d *DB) Stat() Stat { return d.now.Load().Stat() }

// Totals are the counters since Open, by strategy: of the one in force, and of those that it has replaced.
func (d *DB) Totals() map[string]Stat {
	d.totals.Lock()
	defer d.totals.Unlock()
	sums := maps.Clone(d.finished)
	for _, g := range append(d.old[:len(d.old):len(d.old)], d.now.Load()) {
		sums[g.cfg.Strategy] = sums[g.cfg.Strategy].plus(g.Stat())
	}
	return sums
}

func (d *DB) replace(old, by *generation) {
	d.totals.Lock()
	defer d.totals.Unlock()
	d.now.Store(by)
	d.old = append(d.old, old)
}

func (d *DB) finish(g *generation) {
	d.totals.Lock()
	defer d.totals.Unlock()
	d.old = slices.DeleteFunc(d.old, func(o *generation) bool { return o == g })
	d.finished[g.cfg.Strategy] = d.finished[g.cfg.Strategy].plus(g.Stat())
}

// Holders lists the leases that are out under the strategy in force, oldest first.
func (d *DB) Holders() []Holder { return d.now.Load().Holders() }

// Switch puts the strategy of cfg in force. Whoever has begun to query finishes on the old one, whose
// connections are closed as they come back; those that nobody holds are closed before the new one begins, so
// that a server whose slots are all taken by them has room. Where cfg is the one in force, nothing happens.
func (d *DB) Switch(ctx context.Context, cfg config.Database) error {
	d.switches.Lock()
	defer d.switches.Unlock()
	if d.closed.Load() {
		return ErrClosed
	}
	old := d.now.Load()
	if cfg == old.cfg {
		return nil
	}
	g, err := d.newGeneration(cfg)
	if err != nil {
		return err
	}
	old.Retire(ctx)
	d.replace(old, g)
	old.retired.Store(true)
	d.draining.Go(func() {
		old.waitUnused(d.lifetime)
		_ = old.Close(d.lifetime)
		d.finish(old)
	})
	return nil
}

// Close waits for the leases that are out, and closes every connection. When ctx ends first, leases are taken
// back from their holders. Queries fail with ErrClosed afterwards. It may be called twice.
func (d *DB) Close(ctx context.Context) error {
	d.switches.Lock()
	defer d.switches.Unlock()
	d.closed.Store(true)
	defer d.cut()
	defer context.AfterFunc(ctx, d.cut)()
	err := d.now.Load().Close(ctx)
	d.draining.Wait()
	return err
}

// enter pins the generation in force, so that it is not closed before leave.
func (d *DB) enter() *generation {
	for {
		g := d.now.Load()
		g.users.Add(1)
		if g == d.now.Load() {
			return g
		}
		g.leave() // switched in between: the old one must not be used any more
	}
}

func (g *generation) leave() {
	if g.users.Add(-1) == 0 && g.retired.Load() {
		select {
		case g.unused <- struct{}{}:
		default:
		}
	}
}

func (g *generation) waitUnused(ctx context.Context) {
	for g.users.Load() > 0 {
		select {
		case <-g.unused:
		case <-ctx.Done():
			return
		}
	}
}

// Acquire gives a lease of the strategy in force, which ends with Release and no sooner, whatever the scope.
func (d *DB) Acquire(ctx context.Context) (*Lease, error) {
	g := d.enter()
	defer g.leave()
	if d.closed.Load() {
		return nil, ErrClosed
	}
	return g.Acquire(ctx)
}

// Exec is part of Querier.
func (d *DB) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	l, err := d.borrow(ctx)
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	defer l.giveBack()
	return l.exec(ctx, l.conn, sql, args)
}

// Query is part of Querier. The lease is given back when the rows are closed, or read to their end.
func (d *DB) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	l, err := d.borrow(ctx)
	if err != nil {
		return errRows{err}, err
	}
	return l.query(ctx, l.conn, sql, args)
}

// QueryRow is part of Querier. The lease is given back by Scan.
func (d *DB) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	l, err := d.borrow(ctx)
	if err != nil {
		return errRows{err}
	}
	return l.queryRow(ctx, l.conn, sql, args)
}

// InTx runs fn in one transaction on one lease: committed when fn returns nil, else rolled back. fn must query
// through the Querier it is given: through d it would need a second lease while it holds the first. Where the server
// undid the transaction because of others at the same rows, fn is run again, as Again does: what it does besides its
// queries must bear that. Between two runs no lease is held that the strategy does not keep for the request.
//
//go:noinline // in its caller, fn's frame would bear the caller's name in stacks, with a line of this file
func (d *DB) InTx(ctx context.Context, fn func(Querier) error) error {
	return Again(ctx, func() error {
		l, err := d.borrow(ctx)
		if err != nil {
			return err
		}
		defer l.giveBack()
		return l.explain(ctx, l.inTx(ctx, fn))
	})
}
