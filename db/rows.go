package db

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// ended records that a statement ended. It returns the error with its cause.
func (l *Lease) ended(ctx context.Context, err error) error {
	l.query.Store(0)
	return l.failed(ctx, err)
}

// failed records whether the session is outdated. It returns the error with its cause.
func (l *Lease) failed(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	l.stale = l.stale || l.outdated(err)
	switch gone, taken := ctx.Err(), l.takenErr(); {
	case gone != nil && sqlState(err) == pgerrcode.QueryCanceled && !errors.Is(err, gone):
		return fmt.Errorf("%w: %w", gone, err) // it was cancelled because its caller had left
	case taken != nil && !errors.Is(err, taken): // otherwise it is from the rows of a transaction
		return fmt.Errorf("%w (%w)", taken, err)
	case taken == nil && gone == nil && lost(err, l.conn.IsClosed()):
		ce := lostConnection(l.conn, err)
		ce.Strategy = l.source.settings.Strategy
		return ce
	}
	return err
}

// exec runs one statement and ends the use of the lease.
func (l *Lease) exec(ctx context.Context, sql string, args []any) (_ pgconn.CommandTag, outdated bool, _ error) {
	defer func() { outdated = l.done() }()
	l.query.Store(ticks())
	tag, err := l.conn.Exec(ctx, sql, args...)
	explained := l.ended(ctx, err)
	l.noteExec(sql, tag, err)
	return tag, false, explained
}

// open runs one query up to its first row. The end of the rows ends the use of the lease.
func (l *Lease) open(ctx context.Context, sql string, args []any, from callSite) (_ pgx.Rows, outdated bool, _ error) {
	l.query.Store(ticks())
	rows, err := l.conn.Query(ctx, sql, args...)
	if err != nil {
		err = l.ended(ctx, err)
		return nil, l.done(), err
	}
	r := &openRows{Rows: rows, ctx: ctx, lease: l, from: from}
	r.mixed = several(sql)
	if l.request != nil {
		l.rows.Store(r)
		if l.request.over.Load() {
			r.abort()
		}
	}
	outdated, err = r.peek()
	return r, outdated, err
}

// openRows is a result that keeps its lease until it is read to its end, fails, or is closed. The error is explained
// before that, because afterwards the connection belongs to another holder. It has a lock, since the end of the request
// closes open results and can't know whether a goroutine still reads. In a transaction, the end of a result is not the end
// of the lease.
type openRows struct {
	pgx.Rows
	ctx   context.Context
	lease *Lease
	from  callSite // of this query; the lease may have been acquired for an earlier one
	mixed bool     // the statement may be several
	inTx  bool     // the transaction's end explains the error

	mu     sync.Mutex
	peeked bool // the first row has been read, but Next has not been called
	done   bool
	err    error
	fields []pgconn.FieldDescription // once the result has ended
}

// peek reads the first row. It returns the error of a query that failed because its session is outdated; every other
// error is left to Err.
func (r *openRows) peek() (outdated bool, _ error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.done && r.Rows.Next() {
		r.peeked = true
		return false, nil
	}
	if r.finish() {
		return true, r.err
	}
	return false, nil
}

// finish ends the result, and with it the use of the lease. The lock is held.
func (r *openRows) finish() (outdated bool) {
	if r.done {
		return false
	}
	r.fields = slices.Clone(r.Rows.FieldDescriptions())
	r.Rows.Close()
	r.done = true
	err := r.Rows.Err()
	if r.err = err; !r.inTx {
		r.err = r.lease.ended(r.ctx, err)
	}
	r.lease.noteQuery(r.mixed, r.Rows.CommandTag(), len(r.fields), err)
	if r.err == nil {
		r.err = r.lease.takenErr() // a connection taken from its holder can look like a normal end of the rows
	}
	if r.inTx {
		r.lease.query.Store(0)
		return false
	}
	r.lease.rows.CompareAndSwap(r, nil)
	return r.lease.done()
}

func (r *openRows) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.finish()
}

// abort ends a result that outlived its request. A goroutine that still reads it gets ErrReclaimed.
func (r *openRows) abort() bool {
	aborted := r.lease.Reclaim() // before the lock: it ends a Next that waits for the server
	r.Close()
	return aborted
}

func (r *openRows) Next() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done {
		return false
	}
	if (r.peeked || r.Rows.Next()) && r.lease.takenErr() == nil { // otherwise Reclaim reads from the same socket, and the rows may have gaps
		r.peeked = false
		return true
	}
	r.finish()
	return false
}

func (r *openRows) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done {
		return r.err
	}
	return r.Rows.Err()
}

func (r *openRows) Scan(dest ...any) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done {
		return cmp.Or(r.err, errRowsClosed)
	}
	err := r.Rows.Scan(dest...)
	if err != nil {
		r.finish()
	}
	return err
}

func (r *openRows) Values() ([]any, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done {
		return nil, cmp.Or(r.err, errRowsClosed)
	}
	values, err := r.Rows.Values()
	if err != nil {
		r.finish()
	}
	return values, err
}

// errRowsClosed is the error of closed rows: pgx's reader belongs to the next holder by then.
var errRowsClosed = errors.New("these rows are closed")

func (r *openRows) CommandTag() pgconn.CommandTag {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.Rows.CommandTag()
}

func (r *openRows) FieldDescriptions() []pgconn.FieldDescription {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done {
		return r.fields
	}
	return r.Rows.FieldDescriptions()
}

func (r *openRows) RawValues() [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done {
		return nil
	}
	return r.Rows.RawValues()
}

// row is the first row of a result.
type row struct{ rows pgx.Rows }

func (r row) Scan(dest ...any) error {
	defer r.rows.Close()
	if !r.rows.Next() {
		return cmp.Or(r.rows.Err(), pgx.ErrNoRows)
	}
	if err := r.rows.Scan(dest...); err != nil {
		return err
	}
	r.rows.Close()
	return r.rows.Err()
}

// errRows is the result of a query that failed.
type errRows struct{ err error }

func (errRows) Close()                                       {}
func (r errRows) Err() error                                 { return r.err }
func (errRows) CommandTag() pgconn.CommandTag                { return pgconn.CommandTag{} }
func (errRows) FieldDescriptions() []pgconn.FieldDescription { return nil }
func (errRows) Next() bool                                   { return false }
func (r errRows) Scan(...any) error                          { return r.err }
func (r errRows) Values() ([]any, error)                     { return nil, r.err }
func (errRows) RawValues() [][]byte                          { return nil }
func (errRows) Conn() *pgx.Conn                              { return nil }
func (errRows) TypeMap() *pgtype.Map                         { return nil }
