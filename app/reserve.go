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

// reserve provides the monitoring connection to the few queries that must work when no other connection is available, such
// as a staff login during an outage. Each use has its own reserve, so that one does not block another.
type reserve struct {
	monitor *activity.Observer
	place   chan struct{} // holds a token while in use
}

const (
	inLineFor = time.Second            // a longer wait is refused
	turnFor   = 2 * time.Second        // the connection is shared with monitoring
	statement = 500 * time.Millisecond // the server cancels a longer one
	mostTime  = 10 * statement         // longer than one use takes: a closed connection can't be reopened
)

func newReserve(monitor *activity.Observer) *reserve {
	return &reserve{monitor: monitor, place: make(chan struct{}, 1)}
}

// inTx runs fn in a transaction. It runs it again if the connection was dead. It returns Busy if the connection is in
// use.
func (r *reserve) inTx(ctx context.Context, fn func(context.Context, db.Querier) error) error {
	inLine, cancel := context.WithTimeout(ctx, inLineFor)
	defer cancel()
	select {
	case r.place <- struct{}{}:
		defer func() { <-r.place }()
	case <-inLine.Done():
		return fault.New(fault.Busy, "The one remaining database connection is in use. Try again in a moment.")
	}
	// A client that disconnects must not cancel a query on that connection: canceling closes it.
	kept := context.WithoutCancel(ctx)
	turn, cancel := context.WithTimeout(kept, turnFor)
	defer cancel()
	return r.monitor.Do(turn, func(conn *pgx.Conn) error {
		// The limit starts now, after the wait for the turn, so that the server times out first.
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
