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
// *ConnError, unless the caller's context has ended. Other errors are the driver's own, or ErrQueryTimeout, ErrReclaimed,
// ErrInUse and ErrClosed. When the context ends, the query is cancelled on the server and returns once that is done, or after
// one second if the server or the network does not respond.
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
	source    atomic.Pointer[Source] // the strategy in force
	closed    atomic.Bool
	switches  sync.Mutex      // one switch at a time
	lifetime  context.Context // ends when Close has no more time for outstanding leases
	abort     context.CancelFunc
	draining  sync.WaitGroup
	options   Options
	outage    outage
	replicas  atomic.Pointer[replicas]
	nested    logOnce // pairs of lines
	forgotten logOnce // source lines that left rows open

	totals   sync.Mutex
	old      []*Source       // replaced sources on which requests still run
	finished map[string]Stat // the counters of closed sources, by strategy
}

// Open returns a DB with the strategy that the settings name. It does not wait for the server: connections are made when
// queries need them, and those for min_size, a budget and replicas in the background, from now on. The context is not used;
// it is here because pgxpool.New has one.
func Open(_ context.Context, s Settings) (*DB, error) { return OpenWith(s, Options{}) }

// OpenWith is Open with options.
func OpenWith(s Settings, o Options) (*DB, error) {
	d := &DB{options: o, finished: map[string]Stat{}}
	source, err := d.newSource(s)
	if err != nil {
		return nil, err
	}
	d.lifetime, d.abort = context.WithCancel(context.Background())
	d.source.Store(source)
	d.replicas.Store(&replicas{})
	err = d.UseReplica(o.Replica)
	if err != nil {
		return nil, errors.Join(err, d.Close(d.lifetime))
	}
	return d, nil
}

func (d *DB) newSource(s Settings) (*Source, error) {
	source, err := NewSource(s, d.options)
	if err != nil {
		return nil, fmt.Errorf("database %q: %w", s.Name, err)
	}
	return source, nil
}

// Failing returns when and how the last attempt to get a connection from the server failed, if no lease has been given
// since. A queue that is full or too slow does not count: it serves other requests.
func (d *DB) Failing() (at time.Time, err error) {
	if f := d.source.Load().failing.Load(); f != nil {
		return f.at, f.err
	}
	return time.Time{}, nil
}

// Config returns the settings in force.
func (d *DB) Config() Settings { return d.source.Load().settings }

// Stat returns the figures of the strategy in force.
func (d *DB) Stat() Stat { return d.source.Load().Stat() }

// Holders lists the outstanding leases of the strategy in force, oldest first.
func (d *DB) Holders() []Holder { return d.source.Load().Holders() }

// Totals returns the counters since Open, by strategy. It covers the strategy in force and those that it has replaced.
func (d *DB) Totals() map[string]Stat {
	d.totals.Lock()
	defer d.totals.Unlock()
	sums := maps.Clone(d.finished)
	for _, s := range append(d.old[:len(d.old):len(d.old)], d.source.Load()) {
		sums[s.settings.Strategy] = sums[s.settings.Strategy].plus(s.Stat())
	}
	return sums
}

func (d *DB) replace(old, by *Source) {
	d.totals.Lock()
	defer d.totals.Unlock()
	d.source.Store(by)
	d.old = append(d.old, old)
}

func (d *DB) finish(s *Source) {
	d.totals.Lock()
	defer d.totals.Unlock()
	d.old = slices.DeleteFunc(d.old, func(o *Source) bool { return o == s })
	d.finished[s.settings.Strategy] = d.finished[s.settings.Strategy].plus(s.Stat())
}

// Switch puts the strategy of the settings in force. A request that holds a lease, or waits for one, finishes with the old
// strategy. The idle connections of the old strategy are closed before the new one begins, so that a server whose slots
// they filled has room; the others at their release, unless a request waits for one. Switch does nothing if the settings
// are already in force.
func (d *DB) Switch(ctx context.Context, s Settings) error {
	d.switches.Lock()
	defer d.switches.Unlock()
	if d.closed.Load() {
		return ErrClosed
	}
	old := d.source.Load()
	if s == old.settings {
		return nil
	}
	next, err := d.newSource(s)
	if err != nil {
		return err
	}
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(d.lifetime, cancel)()
	old.Retire(within)
	d.replace(old, next)
	d.draining.Go(func() {
		_ = old.Close(d.lifetime)
		d.finish(old)
	})
	return nil
}

// Close waits for the outstanding leases and closes every connection. If ctx ends first, leases are reclaimed from
// their holders. Later queries fail with ErrClosed. It may be called twice.
func (d *DB) Close(ctx context.Context) error {
	d.closed.Store(true)
	defer d.abort()
	defer context.AfterFunc(ctx, d.abort)() // also ends a Switch that is under way
	d.switches.Lock()
	defer d.switches.Unlock()
	defer d.replicas.Load().close(ctx)
	err := d.source.Load().Close(ctx)
	d.draining.Wait()
	return err
}

// Acquire returns a lease of the strategy in force. The lease ends with Release and no sooner, even if the request
// ends.
func (d *DB) Acquire(ctx context.Context) (*Lease, error) {
	d.mayWrite(ctx)
	return d.lease(ctx, nil, caller(allFrames))
}

// mostSessions bounds the runs of one query or one transaction, each on another session: a migration of several steps may
// change a table between any two.
const mostSessions = 4

// onLease runs one query or one transaction, which ends its use of the lease. If that failed because the session is
// outdated, it is run again on another one.
func (d *DB) onLease(ctx context.Context, from callSite, run func(*Lease) (outdated bool, _ error)) error {
	for sessions := 1; ; sessions++ {
		l, err := d.lease(ctx, d.requestOf(ctx), from)
		if err != nil {
			return err
		}
		final := sessions == mostSessions
		l.final = final
		outdated, err := run(l)
		if err == nil || !outdated || final {
			return err
		}
		l.source.refresh(ctx, l.opened, sessions == mostSessions-1)
	}
}

// Exec is part of Querier.
func (d *DB) Exec(ctx context.Context, sql string, args ...any) (tag pgconn.CommandTag, err error) {
	d.mayWrite(ctx)
	err = d.onLease(ctx, caller(allFrames), func(l *Lease) (outdated bool, err error) {
		tag, outdated, err = l.exec(ctx, sql, args)
		return outdated, err
	})
	return tag, err
}

// Query is part of Querier. The lease is released when the rows are closed or read to their end.
func (d *DB) Query(ctx context.Context, sql string, args ...any) (rows pgx.Rows, err error) {
	d.mayWrite(ctx)
	from := caller(allFrames)
	err = d.onLease(ctx, from, func(l *Lease) (outdated bool, err error) {
		rows, outdated, err = l.open(ctx, sql, args, from) //nolint:sqlclosecheck // the caller closes them
		return outdated, err
	})
	if err != nil {
		return errRows{err}, err
	}
	return rows, nil
}

// QueryRow is part of Querier. Scan releases the lease.
func (d *DB) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	rows, _ := d.Query(ctx, sql, args...) // the result carries the error too
	return row{rows}
}

// InTx runs fn in one transaction on one lease. The transaction is committed if fn returns nil, else rolled back. fn
// must query through the Querier that it is given: d would need a second lease while fn holds the first. fn is run
// again if the server rolled the transaction back because of concurrent transactions on the same rows, up to nine times,
// or refused it because the session is outdated, up to three times for each. So its effects besides its queries must be
// repeatable. Between two runs no lease is held, unless the strategy keeps it for the request.
//
//go:noinline // in its caller, fn's frame would bear the caller's name in stacks, with a line of this file
func (d *DB) InTx(ctx context.Context, fn func(Querier) error) error {
	d.mayWrite(ctx)
	from := caller(allFrames)
	return RetryTransaction(ctx, func() error {
		return d.onLease(ctx, from, func(l *Lease) (bool, error) { return l.transact(ctx, fn) })
	})
}
