package db

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// rollbackTimeout bounds the rollback of a transaction whose own context may have ended.
const rollbackTimeout = 2 * time.Second

// transact runs fn in a transaction and ends the use of the lease.
func (l *Lease) transact(ctx context.Context, fn func(Querier) error) (outdated bool, err error) {
	defer func() { outdated = l.done() }()
	err = l.inTx(ctx, fn)
	l.query.Store(0)
	return false, l.failed(ctx, err)
}

func (l *Lease) inTx(ctx context.Context, fn func(Querier) error) error {
	if err := ctx.Err(); err != nil { // pgx would close the connection
		return err
	}
	l.query.Store(ticks())
	tx, err := l.conn.Begin(ctx)
	if err != nil {
		return err
	}
	commitSent := false
	defer func() {
		if commitSent {
			return
		}
		if l.conn.PgConn().IsBusy() { // rows left open: pgx would abandon the connection without waiting for its backend
			l.source.conns.CloseConn(l.conn)
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
		defer cancel()
		_ = tx.Rollback(ctx) // if it fails, the connection is closed, which rolls back as well
	}()
	l.query.Store(0)
	if err := fn(transaction{l, tx}); err != nil {
		return err
	}
	switch { // in both, pgx would close the connection, and its backend might run on
	case ctx.Err() != nil:
		return ctx.Err()
	case l.conn.PgConn().IsBusy():
		return ErrInUse
	}
	commitSent = true // whatever comes of it, a rollback would not help
	l.query.Store(ticks())
	return tx.Commit(ctx)
}

// transaction is the Querier of InTx. Its statements don't end the lease.
type transaction struct {
	lease *Lease
	tx    pgx.Tx
}

func (t transaction) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	t.lease.query.Store(ticks())
	defer t.lease.query.Store(0)
	tag, err := t.tx.Exec(ctx, sql, args...)
	t.lease.noteExec(sql, tag, err)
	return tag, err
}

func (t transaction) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	t.lease.query.Store(ticks())
	rows, err := t.tx.Query(ctx, sql, args...)
	if err != nil { // the driver's rows are incomplete then, and panic
		t.lease.query.Store(0)
		return errRows{err}, err
	}
	r := &openRows{Rows: rows, ctx: ctx, lease: t.lease, inTx: true}
	r.mixed = several(sql)
	return r, nil
}

func (t transaction) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	rows, _ := t.Query(ctx, sql, args...) // the result carries the error too
	return row{rows}
}
