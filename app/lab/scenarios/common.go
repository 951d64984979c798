package scenarios

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// querier is a connection, a pool, a lease or a transaction.
type querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// latestPolls is the query of an ordinary page.
func latestPolls(ctx context.Context, q querier) error {
	var question string
	return q.QueryRow(ctx, "SELECT question FROM polls ORDER BY id DESC LIMIT 1").Scan(&question)
}

// slowly runs a query that takes d on the server.
func slowly(ctx context.Context, q querier, d time.Duration) error {
	_, err := q.Exec(ctx, "SELECT pg_sleep($1)", d.Seconds())
	return err
}

// vote is the statement of an ordinary form.
func vote(ctx context.Context, q querier, poll int) error {
	_, err := q.Exec(ctx, "UPDATE polls SET votes = votes + 1 WHERE id = $1", poll)
	return err
}
