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

// Querier runs SQL on a connection that the implementation chooses. A failure to get the connection, or its loss, is a
// *ConnError. Every other error is the driver's own. When the context ends, the query is cancelled on the server and
// returns once that is done, or after one second if the server or the network does not respond.
type Querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// ErrClosed is the error of queries after DB.Close.
var ErrClosed = errors.New("the database was closed")

// DB is one database, accessed through the strategy in force, which may be switched at any time. It is safe for
// concurrent use.
type DB struct {
	now       atomic.Pointer[pinned]
	closed    atomic.Bool
	switches  sync.Mutex      // one switch at a time
	lifetime  context.Context // ends when Close has no more time for outstanding leases
	cut       context.CancelFunc
	draining  sync.WaitGroup
	options   Options
	outage    outage
	replicas  atomic.Pointer[replicas]
	nested    logOnce // pairs of lines
	forgotten logOnce // source lines that left rows open

	totals   sync.Mutex
	old      []*pinned       // replaced sources on which requests still run
	finished map[string]Stat // the counters of closed sources, by strategy
}

// pinned is a Source with a count of its users.
type pinned struct {
	*Source
	users   atomic.Int64 // requests, and callers that are acquiring
	retired atomic.Bool
	unused  chan struct{} // buffered: receives when users falls to 0 after the retirement
}

// Open returns a DB with the strategy that the settings name. It connects at the first query.
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
	d.replicas.Store(&replicas{})
	if err := d.UseReplica(o.Replica); err != nil {
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

// Failing returns when and how the last attempt to get a connection from the server failed, if no lease has been given
// since. A queue that is full or too slow does not count: it serves other requests.
func (d *DB) Failing() (at time.Time, err error) {
	if f := d.now.Load().failing.Load(); f != nil {
		return f.at, f.err
	}
	return time.Time{}, nil
}

// Config returns the settings in force.
func (d *DB) Config() Settings { return d.now.Load().settings }

// Stat returns the figures of the strategy in force.
func (d *DB) Stat() Stat { return d.now.Load().Stat() }

// Holders lists the outstanding leases of the strategy in force, oldest first.
func (d *DB) Holders() []Holder { return d.now.Load().Holders() }

// Totals returns the counters since Open, by strategy. It covers the strategy in force and those that it has replaced.
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

// Switch puts the strategy of the settings in force. A request that has begun to query finishes on the old strategy,
// whose connections are closed as they are released. Its idle connections are closed before the new strategy begins, so
// that a server whose slots they filled has room. Switch does nothing if the settings are already in force.
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

// Close waits for the outstanding leases and closes every connection. If ctx ends first, leases are reclaimed from
// their holders. Later queries fail with ErrClosed. It may be called twice.
func (d *DB) Close(ctx context.Context) error {
	d.switches.Lock()
	defer d.switches.Unlock()
	d.closed.Store(true)
	defer d.cut()
	defer d.replicas.Load().close(ctx)
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
		p.exit() // switched in between: the old source must no longer be used
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

// Acquire returns a lease of the strategy in force. The lease ends with Release and no sooner, even if the request
// ends.
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

// Query is part of Querier. The lease is released when the rows are closed or read to their end.
func (d *DB) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	d.mark(ctx) // for replicas
	return d.open(ctx, sql, args)
}

// QueryRow is part of Querier. Scan releases the lease.
func (d *DB) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	d.mark(ctx)                       // for replicas
	rows, _ := d.open(ctx, sql, args) // the result carries the error too
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

// InTx runs fn in one transaction on one lease. The transaction is committed if fn returns nil, else rolled back. fn
// must query through the Querier that it is given: d would need a second lease while fn holds the first. fn is run
// again if the server rolled the transaction back because of concurrent transactions on the same rows, or refused it
// because the session is outdated. So its effects besides its queries must be repeatable. Between two runs no lease is
// held, unless the strategy keeps it for the request.
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
