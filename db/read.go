package db

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// outageFor is how long after the loss of the server a read without a deadline is retried. A restart takes half a
// second, a failover a few seconds. Later reads fail at once, because the outage is then no longer short.
const outageFor = 3 * time.Second

// Read returns the Querier for declared reads: one statement, outside of a transaction, that changes nothing, needs no
// session, and may run twice. Nothing checks that: a statement that writes is run, perhaps twice. In return
//
//   - a read whose connection is lost, or whose server restarts, is retried: until the deadline of its context or,
//     without one, for 3 seconds after the server was lost. Without a deadline, a read that has spent its whole time limit
//     on one search for a connection does not begin another. No read is retried before the server has answered once;
//   - the lease is released before the rows are scanned: they are complete in memory, up to multiplex.max_result; a
//     larger result is streamed, as by DB.Query;
//   - under Multiplex it needs no lease at all, and callers that ask the same at the same time may share an answer, whose
//     statement began after each of them asked. A function such as random then gives them the same value, and they must
//     not change the bytes of a value that pgx does not copy.
//
// Rows support pgx's own types, not those registered on a connection.
func (d *DB) Read() Querier { return reader{db: d} }

// ReadOnce is Read without its retry, for a caller that has another way to answer.
func (d *DB) ReadOnce() Querier { return reader{db: d, once: true} }

type reader struct {
	db   *DB
	once bool
}

// frames returns how many frames of its caller a read records: one, which costs half, unless the request keeps the lease.
func (r reader) frames() int {
	if r.db.source.Load().HoldsForRequest() {
		return allFrames
	}
	return 1
}

// Query is part of Querier.
func (r reader) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	return r.query(ctx, sql, args, caller(r.frames()))
}

func (r reader) query(ctx context.Context, sql string, args []any, from callSite) (pgx.Rows, error) {
	began := time.Now()
	rows, err := r.db.read(ctx, sql, args, from)
	if err != nil && !r.once {
		rows, err = r.db.retryRead(ctx, sql, args, from, began, err)
	}
	if again, ok := errors.AsType[*retryError](err); ok && CauseOf(err) != "" {
		err = again.cause
	}
	if err != nil {
		return errRows{err}, err
	}
	return rows, nil
}

// retryError means that the read was not at fault and may be sent again. The multiplexer does so a few times; DB.Read
// retries what is left.
type retryError struct{ cause error }

func (e *retryError) Error() string { return "multiplex: retry: " + e.cause.Error() }
func (e *retryError) Unwrap() error { return e.cause }

// retryable reports whether err is a retryError, or wraps one.
func retryable(err error) bool {
	_, again := errors.AsType[*retryError](err)
	return again
}

// heldUpFor is how long a read is retried while the shared connections are held up and the pool's queue is full. A
// machine seldom stalls for longer.
const heldUpFor = time.Second

// retryRead retries a failed read until it succeeds, or the outage lasts too long.
func (d *DB) retryRead(ctx context.Context, sql string, args []any, from callSite, began time.Time, err error) (rows pgx.Rows, _ error) {
	failed := time.Now()
	passes := func(err error) bool {
		if retryable(err) && CauseOf(err) == QueueFull {
			return time.Since(failed) < heldUpFor && ctx.Err() == nil
		}
		if d.source.Load().conns.connected.Load() > 0 { // a statement that was no read may have reached the server
			d.outage.up.Store(true)
		}
		return d.outage.passes(ctx, began, err)
	}
	err = retry(ctx, firstBackoff, mostBackoff/4, err, func() (err error) {
		rows, err = d.read(ctx, sql, args, from) //nolint:sqlclosecheck // the caller closes them
		return err
	}, passes)
	return rows, err
}

// QueryRow is part of Querier.
func (r reader) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	rows, _ := r.query(ctx, sql, args, caller(r.frames())) // the result carries the error too
	return row{rows}
}

// Exec is part of Querier. It reads the rows and drops them.
func (r reader) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	rows, err := r.query(ctx, sql, args, caller(r.frames()))
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	rows.Close()
	return rows.CommandTag(), rows.Err()
}

// outage records when the server was lost, in ticks; 0: it answers, or never did.
type outage struct {
	since atomic.Int64
	up    atomic.Bool // it has answered
}

// ended records that the server answers.
func (o *outage) ended() {
	if !o.up.Load() {
		o.up.Store(true)
	}
	if o.since.Load() != 0 {
		o.since.Store(0)
	}
}

// passes reports whether a read that began then and failed with err is worth a retry. The failure of a read
// without a deadline begins the outage, if none is recorded.
func (o *outage) passes(ctx context.Context, began time.Time, err error) bool {
	if cause := CauseOf(err); cause != ServerUnavailable && cause != CircuitOpen && !retryable(err) {
		return false
	}
	if !o.up.Load() {
		return false
	}
	if _, limited := ctx.Deadline(); limited {
		return ctx.Err() == nil
	}
	now := ticks()
	o.since.CompareAndSwap(0, now)
	if ce, ok := errors.AsType[*ConnError](err); ok && ce.inVain > 0 && time.Since(began) >= ce.inVain*9/10 { // this read has spent a whole search's time itself
		return false
	}
	return ctx.Err() == nil && now-o.since.Load() < int64(outageFor)
}

// read runs a declared read once.
func (d *DB) read(ctx context.Context, sql string, args []any, from callSite) (pgx.Rows, error) {
	if d.closed.Load() {
		return nil, ErrClosed
	}
	rows, served, err := d.replicas.Load().read(ctx, sql, args, from)
	if served {
		return rows, err
	}
	if err == nil {
		rows, err = d.source.Load().readShared(ctx, sql, args)
		if r := d.requestOf(ctx); r != nil && rows != nil {
			r.shared.Store(true)
		}
	}
	held := errors.Is(err, errStuck)
	if rows == nil && needsLease(err) {
		rows, err = d.readLeased(ctx, sql, args, from)
	}
	if errors.Is(err, errLarge) {
		rows, err = d.readStreamed(ctx, sql, args, from)
	}
	if held && CauseOf(err) == QueueFull {
		err = &retryError{err} // the shared connections may serve it sooner than the pool
	}
	if err != nil {
		return nil, err
	}
	d.outage.ended()
	return rows, nil
}

// needsLease reports whether a read that readShared did not serve, for the reason err, goes to a lease next, which may hold
// its result in memory. A result that is too large for memory does not: it is streamed.
func needsLease(err error) bool {
	return err == nil || errors.Is(err, errMultiplexClosed) || errors.Is(err, errUnsuitable) && !errors.Is(err, errLarge)
}

// readShared runs the read on the shared connections. Both results are nil if the strategy has none.
func (s *Source) readShared(ctx context.Context, sql string, args []any) (pgx.Rows, error) {
	m, ok := s.strategy.(*multiplexed)
	if !ok {
		return nil, nil
	}
	ctx = s.options.traceRead(ctx, sql, args)
	rows, err := m.shared.query(ctx, sql, args)
	s.options.readTraced(ctx, err)
	if err == nil {
		m.reads.Add(1)
	}
	return rows, err
}

// readLeased runs the read on a lease, which it releases before it returns. A result that is too large for memory is
// errLarge.
func (d *DB) readLeased(ctx context.Context, sql string, args []any, from callSite) (rows pgx.Rows, err error) {
	err = d.onLease(ctx, from, func(l *Lease) (outdated bool, err error) {
		defer func() { outdated = l.done() }()
		rows, err = l.buffer(ctx, sql, args) //nolint:sqlclosecheck // the caller closes them
		return false, err
	})
	return rows, err
}

// readStreamed runs the read on a lease that the rows release.
func (d *DB) readStreamed(ctx context.Context, sql string, args []any, from callSite) (rows pgx.Rows, err error) {
	err = d.onLease(ctx, from, func(l *Lease) (outdated bool, err error) {
		rows, outdated, err = l.open(ctx, sql, args, from) //nolint:sqlclosecheck // the caller closes them
		return outdated, err
	})
	return rows, err
}

// buffer reads the whole result into memory.
func (l *Lease) buffer(ctx context.Context, sql string, args []any) (pgx.Rows, error) {
	began := ticks()
	l.query.Store(began)
	result, err := l.conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, l.ended(ctx, err)
	}
	rows := &muxRows{
		codec: muxCodecs.Get().(*muxCodec), fields: slices.Clone(result.FieldDescriptions()), buf: make([]byte, 0, 512),
	}
	most, large := int(l.source.settings.Multiplex.MaxResult), false
	for !large && result.Next() {
		rows.add(result.RawValues())
		large = len(rows.buf) > most && most > 0
	}
	result.Close()
	rows.tag = result.CommandTag()
	err = l.ended(ctx, result.Err())
	l.noteQuery(false, rows.tag, len(rows.fields), result.Err())
	if err == nil {
		err = l.takenErr() // a connection taken from its holder can look like a normal end of the rows
	}
	if err == nil && large {
		err = errLarge
	}
	if err != nil {
		rows.Close()
		return nil, err
	}
	if m, ok := l.source.strategy.(*multiplexed); ok && time.Duration(ticks()-began) < muxSlow {
		m.shared.readmit(sql)
	}
	return rows, nil
}
