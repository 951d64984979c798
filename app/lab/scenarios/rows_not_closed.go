//nolint:forbidigo // it shows what goes wrong without the helpers of pgx
package scenarios

import (
	"context"
	"time"

	"ddtb/app/lab/scene"
)

var _ = add(scene.Scenario{
	Number: 4, Name: "rows-not-closed", Title: "an unclosed result keeps its connection",
	Family: scene.Leaks, Message: "context deadline exceeded",
	Why: "A result reads from its connection until its last row, so the connection can't be released before that. " +
		"The code takes what it needs, or returns early on an error, and forgets to close the result. " +
		"Each such request takes one connection out of the pool for ever.",
	Figure: "requests failed", FixedBy: "a deferred close of the rows",
	SQL: `SELECT pid, application_name, wait_event, now() - query_start AS since, query
FROM pg_stat_activity WHERE wait_event = 'ClientWrite' OR state LIKE 'idle in transaction%';`,
	Recipe: "leaks", Threads: scene.Threads("jackc/pgx#2058"),
	Load:  scene.Load{Requests: 60, Every: 10 * time.Millisecond, Patience: time.Second},
	Fails: rowsNotClosedFails, Works: rowsNotClosedWorks,
})

func rowsNotClosedFails(s *scene.Stage) scene.Request {
	pool := s.Pool(10)
	return func(ctx context.Context, _ int) error {
		rows, err := pool.Query(ctx, "SELECT question FROM polls")
		if err != nil {
			return err
		}
		s.Afterwards(rows.Close) // clean-up for the lab
		if rows.Next() {
			return nil // it has the row it needs
		}
		return rows.Err()
	}
}

func rowsNotClosedWorks(s *scene.Stage) scene.Request {
	pool := s.Pool(10)
	return func(ctx context.Context, _ int) error {
		rows, err := pool.Query(ctx, "SELECT question FROM polls")
		if err != nil {
			return err
		}
		defer rows.Close() // on every return and panic
		if rows.Next() {
			return nil
		}
		return rows.Err()
	}
}
