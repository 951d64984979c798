package app

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/app/fault"
	"ddtb/db"
	"ddtb/db/activity"
)

// reserve is the monitoring connection, lent for the few questions that must be answered while no other can be had: who
// somebody is that comes to see why. Nothing that is asked over it may last.
type reserve struct {
	server *activity.Observer
	places chan struct{} // holds a token for each who asks
}

const (
	mostAsk      = 2 // at once; the next is refused
	askOverAfter = 2 * time.Second
)

func newReserve(server *activity.Observer) *reserve {
	return &reserve{server: server, places: make(chan struct{}, mostAsk)}
}

// inTx runs fn in a transaction, perhaps twice, if the connection was dead. Busy says that others do so.
func (r *reserve) inTx(ctx context.Context, fn func(context.Context, db.Querier) error) error {
	select {
	case r.places <- struct{}{}:
		defer func() { <-r.places }()
	default:
		return fault.New(fault.Busy, "Others ask over the one connection that is left. Try again in a moment.")
	}
	// A client that hangs up must not cancel a query on that connection, which would end it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askOverAfter)
	defer cancel()
	return r.server.Do(ctx, func(conn *pgx.Conn) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			// The server gives up first: what is locked ends neither the connection nor others' patience with it.
			if _, err := tx.Exec(ctx, `SET LOCAL statement_timeout = '500ms'`); err != nil {
				return err
			}
			return fn(ctx, tx)
		})
	})
}
