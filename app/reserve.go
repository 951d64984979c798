package app

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/app/fault"
	"ddtb/db"
	"ddtb/db/activity"
)

// reserve is the monitoring connection, lent for the few questions that must be answered while no other can be had: who
// somebody is that comes to see why. Each use has a reserve of its own, so that one does not keep out another.
type reserve struct {
	server *activity.Observer
	place  chan struct{} // holds a token while somebody asks
}

const (
	inLineFor = time.Second            // whoever waits longer is refused
	turnFor   = 2 * time.Second        // others look over the same connection
	statement = 500 * time.Millisecond // the server ends one that takes longer
	mostTime  = 10 * statement         // more than all of one use: a connection that is given up is not to be had again
)

func newReserve(server *activity.Observer) *reserve {
	return &reserve{server: server, place: make(chan struct{}, 1)}
}

// inTx runs fn in a transaction, perhaps twice, if the connection was dead. Busy says that others do so.
func (r *reserve) inTx(ctx context.Context, fn func(context.Context, db.Querier) error) error {
	inLine, cancel := context.WithTimeout(ctx, inLineFor)
	defer cancel()
	select {
	case r.place <- struct{}{}:
		defer func() { <-r.place }()
	case <-inLine.Done():
		return fault.New(fault.Busy, "Others ask over the one connection that is left. Try again in a moment.")
	}
	// A client that hangs up must not cancel a query on that connection, which would end it.
	kept := context.WithoutCancel(ctx)
	turn, cancel := context.WithTimeout(kept, turnFor)
	defer cancel()
	return r.server.Do(turn, func(conn *pgx.Conn) error {
		// From now on, however long the turn was waited for: the server gives up first.
		ctx, cancel := context.WithTimeout(kept, mostTime)
		defer cancel()
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, fmt.Sprintf("SET LOCAL statement_timeout = %d", statement.Milliseconds())); err != nil {
				return err
			}
			return fn(ctx, tx)
		})
	})
}
