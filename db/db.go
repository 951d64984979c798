package db

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
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
	now       atomic.Pointer[pinned]
	closed    atomic.Bool
	switches  sync.Mutex      // one switch at a time
	lifetime  context.Context // ends when Close has no more time for leases that are out
	cut       context.CancelFunc
	draining  sync.WaitGroup
	options   Options
	outage    outage
	replicas  replicas
	nested    logOnce // pairs of lines
	forgotten logOnce // lines that left rows open

	totals   sync.Mutex
	old      []*pinned       // replaced, with requests that finish on them
	finished map[string]Stat // the counters of those that are closed, by strategy
}

// pinned is a Source with a count of those who use it.
type pinned struct {
	*Source
	users   atomic.Int64 // requests, and those who are acquiring
	retired atomic.Bool
	unused  chan struct{} // buffered: receives when users falls to 0 after the retirement
}

// Open makes a DB with the strategy that the settings name. It connects at the first query.
func Open(_ context.Context, s Settings) (*DB, error) { return OpenWith(s, Options{}) }

// OpenWith is Open with options.
func OpenWith(s Settings, o Options) (*DB, error) {
	d := &DB{options: o, finished: map[string]Stat{}}
	p, err := d.newSource(s)
	if err != nil {
		return nil, err
	}
	d.lifetime, d.cut = context.WithCancel(context.Background())
	d.now.Store(p)
	err = d.replicas.open(d)
	if err != nil {
		return nil, errors.Join(err, d.Close(d.lifetime))
	}
	return d, nil
}

func (d *DB) newSource(settings Settings) (*pinned, error) {
	s, err := NewSource(settings, d.options)
	if err != nil {
		return nil, fmt.Errorf("database %q: %w", settings.Name, err)
	}
	return &pinned{Source: s, unused: make(chan struct{}, 1)}, nil
}

// Failing is how the last attempt to get a connection from the server failed, and when, if no lease was given since. A
// queue that is full or too slow is no such failure: it serves others.
func (d *DB) Failing() (at time.Time, err error) {
	if f := d.now.Load().failing.Load(); f != nil {
		return f.at, f.err
	}
	return time.Time{}, nil
}

// Config returns the settings in force.
func (d *DB) Config() Settings { return d.now.Load().settings }

// Stat is that of the strategy in force.
func (d *DB) Stat() Stat { return d.now.Load().Stat() }

// Holders lists the leases that are out under the strategy in force, oldest first.
func (d *DB) Holders() []Holder { return d.now.Load().Holders() }

// Totals are the counters since Open, by strategy: of the one in force, and of those that it has replaced.
func (d *DB) Totals() map[string]Stat {
	d.totals.Lock()
	defer d.totals.Unlock()
	sums := maps.Clone(d.finished)
	for _, p := range append(d.old[:len(d.old):len(d.old)], d.now.Load()) {
		sums[p.settings.Strategy] = sums[p.settings.Strategy].plus(p.Stat())
	}
	return sums
}

func (d *DB) replace(old, by *pinned) {
	d.totals.Lock()
	defer d.totals.Unlock()
	d.now.Store(by)
	d.old = append(d.old, old)
}

func (d *DB) finish(p *pinned) {
	d.totals.Lock()
	defer d.totals.Unlock()
	d.old = slices.DeleteFunc(d.old, func(o *pinned) bool { return o == p })
	d.finished[p.settings.Strategy] = d.finished[p.settings.Strategy].plus(p.Stat())
}

// Switch puts the strategy of the settings in force. A request that has begun to query finishes on the old one, whose
// connections are closed as they come back; those that are not out are closed before the new one begins, so that a
// server whose slots are all taken by them has room. Where the settings are those in force, nothing happens.
func (d *DB) Switch(ctx context.Context, s Settings) error {
	d.switches.Lock()
	defer d.switches.Unlock()
	if d.closed.Load() {
		return ErrClosed
	}
	old := d.now.Load()
	if s == old.settings {
		return nil
	}
	p, err := d.newSource(s)
	if err != nil {
		return err
	}
	old.Retire(ctx)
	d.replace(old, p)
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
	defer d.replicas.close(ctx)
	defer context.AfterFunc(ctx, d.cut)()
	err := d.now.Load().Close(ctx)
	d.draining.Wait()
	return err
}

// enter pins the source in force, so that it is not closed before exit.
func (d *DB) enter() *pinned {
	for {
		p := d.now.Load()
		p.users.Add(1)
		if p == d.now.Load() {
			return p
		}
		p.exit() // switched in between: the old one must not be used any more
	}
}

func (p *pinned) exit() {
	if p.users.Add(-1) == 0 && p.retired.Load() {
		select {
		case p.unused <- struct{}{}:
		default:
		}
	}
}

func (p *pinned) waitUnused(ctx context.Context) {
	for p.users.Load() > 0 {
		select {
		case <-p.unused:
		case <-ctx.Done():
			return
		}
	}
}

// Acquire gives a lease of the strategy in force, which ends with Release and no sooner, whatever the request.
func (d *DB) Acquire(ctx context.Context) (*Lease, error) {
	d.mark(ctx) // for replicas
	return d.acquire(ctx, asking{})
}

func (d *DB) acquire(ctx context.Context, who asking) (*Lease, error) {
	p := d.enter()
	defer p.exit()
	if d.closed.Load() {
		return nil, ErrClosed
	}
	return p.acquire(ctx, false, who)
}

// Exec is part of Querier.
func (d *DB) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	d.mark(ctx) // for replicas
	for again := 0; ; again++ {
		u, err := d.lease(ctx, asking{})
		if err != nil {
			return pgconn.CommandTag{}, err
		}
		tag, outdated, err := u.exec(ctx, sql, args)
		if !outdated || again > 0 {
			return tag, err
		}
		u.source.refresh()
	}
}

// Query is part of Querier. The lease is given back when the rows are closed, or read to their end.
func (d *DB) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	d.mark(ctx) // for replicas
	return d.open(ctx, sql, args)
}

// QueryRow is part of Querier. The lease is given back by Scan.
func (d *DB) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	d.mark(ctx)                       // for replicas
	rows, _ := d.open(ctx, sql, args) // a failure is the result's too
	return row{rows}
}

func (d *DB) open(ctx context.Context, sql string, args []any) (pgx.Rows, error) {
	for again := 0; ; again++ {
		u, err := d.lease(ctx, asking{})
		if err != nil {
			return errRows{err}, err
		}
		rows, outdated, err := u.open(ctx, sql, args)
		switch {
		case outdated && again == 0:
			u.source.refresh()
		case err != nil:
			return errRows{err}, err
		default:
			return rows, nil
		}
	}
}

// InTx runs fn in one transaction on one lease: committed when fn returns nil, else rolled back. fn must query
// through the Querier it is given: through d it would need a second lease while it holds the first. Where the server
// undid the transaction because of others at the same rows, or refused it because the session is outdated, fn is run
// again: what it does besides its queries must bear that. Between two runs no lease is held that the strategy does not
// keep for the request.
//
//go:noinline // in its caller, fn's frame would bear the caller's name in stacks, with a line of this file
func (d *DB) InTx(ctx context.Context, fn func(Querier) error) error {
	d.mark(ctx) // for replicas
	outdated := false
	return Again(ctx, func() error {
		for {
			u, err := d.lease(ctx, asking{})
			if err != nil {
				return err
			}
			err = u.transact(ctx, fn)
			if !u.stale || outdated {
				return err
			}
			outdated = true // once
			u.source.refresh()
		}
	})
}
