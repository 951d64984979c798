package db

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// exec, query and queryRow run one statement on q, which is the loan's connection or a transaction on it.

func (l loan) exec(ctx context.Context, q Querier, sql string, args []any) (pgconn.CommandTag, error) {
	l.note(sql)
	tag, err := q.Exec(ctx, sql, args...)
	return tag, l.explain(ctx, err)
}

func (l loan) query(ctx context.Context, q Querier, sql string, args []any) (pgx.Rows, error) {
	l.note(sql)
	r, err := q.Query(ctx, sql, args...)
	if err != nil {
		err = l.explain(ctx, err)
		l.giveBack()
		return errRows{err}, err
	}
	result := &rows{Rows: r, ctx: ctx, loan: l}
	if l.scope != nil {
		if l.kept { // else the lease knows
			runtime.Callers(3, result.asked[:]) // 3: whoever called DB.Query or DB.QueryRow
		}
		if !l.scope.handOut(result) {
			result.cut()
		}
	}
	return result, nil
}

func (l loan) queryRow(ctx context.Context, q Querier, sql string, args []any) pgx.Row {
	r, _ := l.query(ctx, q, sql, args) // a failure is the result's too
	return row{r}
}

// note remembers that the statement changes the session.
func (l *Lease) note(sql string) {
	if !l.dirty && changesSession(sql) {
		l.dirty = true
	}
}

// explain gives an error its cause, while the lease is still the holder's.
func (l *Lease) explain(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case l.wasReclaimed():
		return fmt.Errorf("%w (%w)", ErrReclaimed, err)
	case ctx.Err() == nil && lost(err, l.conn.IsClosed()):
		return &ConnError{Cause: ServerUnavailable, Strategy: l.queue.strategy, Size: l.queue.size, Err: err, stack: callers()}
	}
	return err
}

// rollbackTimeout bounds the rollback of a transaction whose own context may be over.
const rollbackTimeout = 2 * time.Second

func (l loan) inTx(ctx context.Context, fn func(Querier) error) error {
	tx, err := l.conn.Begin(ctx)
	if err != nil {
		return err
	}
	committed := false
	defer func() {
		if committed {
			return
		}
		if l.conn.PgConn().IsBusy() { // rows left open: pgx would give the connection up, and not wait for its backend
			hangUp(l.conn)
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
		defer cancel()
		_ = tx.Rollback(ctx) // where it fails the connection is closed, which rolls back as well
	}()
	if err := fn(transaction{loan{Lease: l.Lease}, tx}); err != nil {
		return err
	}
	committed = true // or known to have failed, or unknown: a rollback would not help any of them
	return tx.Commit(ctx)
}

// transaction is the Querier of InTx. Its statements don't end the loan.
type transaction struct {
	loan loan
	tx   pgx.Tx
}

func (t transaction) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	t.loan.note(sql)
	return t.tx.Exec(ctx, sql, args...)
}

func (t transaction) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	t.loan.note(sql)
	return t.tx.Query(ctx, sql, args...)
}

func (t transaction) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	t.loan.note(sql)
	return t.tx.QueryRow(ctx, sql, args...)
}

// rows gives the loan back when the result was read to its end, failed, or was closed. The error is explained
// before that: afterwards the connection is somebody else's. It is locked, since the end of the request closes what
// its holder forgot, and can't know whether a goroutine still reads.
type rows struct {
	pgx.Rows
	ctx   context.Context
	loan  loan
	asked [16]uintptr // by whom, where the lease was asked for by an earlier query of the request

	mu   sync.Mutex
	done bool
	err  error
}

// finish ends the result. The lock is held.
func (r *rows) finish() {
	if r.done {
		return
	}
	r.Rows.Close()
	r.done, r.err = true, r.loan.explain(r.ctx, r.Rows.Err())
	if r.err == nil && r.loan.wasReclaimed() {
		r.err = ErrReclaimed // its end may be missing
	}
	if r.loan.scope != nil {
		r.loan.scope.takeBack(r)
	}
	r.loan.giveBack()
}

func (r *rows) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.finish()
}

// stack is the lines that asked for the result.
func (r *rows) stack() []string {
	if r.loan.kept {
		return stackOf(r.asked[:])
	}
	return r.loan.stack()
}

// cut ends a result that outlived its request. Whoever still reads it finds ErrReclaimed.
func (r *rows) cut() bool {
	cut := r.loan.Reclaim() // before the lock: it ends a Next that waits for the server
	r.Close()
	return cut
}

func (r *rows) Next() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done {
		return false
	}
	if r.Rows.Next() && !r.loan.wasReclaimed() { // then the socket is read elsewhere too, and what comes has gaps
		return true
	}
	r.finish()
	return false
}

func (r *rows) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done {
		return r.err
	}
	return r.Rows.Err()
}

func (r *rows) Scan(dest ...any) error {
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

func (r *rows) Values() ([]any, error) {
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

// errRowsClosed is what is told of rows that are closed: what pgx reads results with is the next holder's by then.
var errRowsClosed = errors.New("these rows are closed")

func (r *rows) CommandTag() pgconn.CommandTag {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.Rows.CommandTag()
}

func (r *rows) FieldDescriptions() []pgconn.FieldDescription {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done {
		return nil
	}
	return r.Rows.FieldDescriptions()
}

func (r *rows) RawValues() [][]byte {
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

// errRows is the result of a query that got no lease.
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
