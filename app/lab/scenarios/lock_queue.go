package scenarios

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"ddtb/app/lab/scene"
)

var _ = add(scene.Scenario{
	Number: 15, Name: "lock-queue", Title: "everyone waits behind a waiting ALTER TABLE",
	Family: scene.TooLong, Message: "context deadline exceeded",
	Why: "A report reads the table in a long transaction, which by itself does no harm. " +
		"ALTER TABLE needs a lock that excludes readers, so it waits for the report; and locks are first come first served. " +
		"Every reader after it waits as well, the pool fills with them, and the application stands still.",
	Figure: "page views failed", FixedBy: "a lock_timeout for the migration, which retries",
	SQL: `SELECT pid, pg_blocking_pids(pid) AS blocked_by, wait_event_type, now() - query_start AS waits, query
FROM pg_stat_activity WHERE cardinality(pg_blocking_pids(pid)) > 0;`,
	Recipe: "locks", Threads: scene.Threads("taskcluster/taskcluster#3632", "strelov1/freehire#1284"),
	Load: scene.Load{Requests: 80, Every: 20 * time.Millisecond, Patience: 4 * time.Second}, Of: 78,
	Value: scene.FailedFrom(2), Fails: lockQueueFails, Works: lockQueueWorks,
})

func lockQueueFails(s *scene.Stage) scene.Request {
	return siteDuringMigration(s, func(ctx context.Context, pool *pgxpool.Pool) error {
		_, err := pool.Exec(ctx, "ALTER TABLE polls ADD COLUMN closed bool") // waits as long as it takes
		return err
	})
}

func lockQueueWorks(s *scene.Stage) scene.Request {
	return siteDuringMigration(s, func(ctx context.Context, pool *pgxpool.Pool) (err error) {
		for ctx.Err() == nil {
			_, err = pool.Exec(ctx, "SET LOCAL lock_timeout = '50ms'; ALTER TABLE polls ADD COLUMN closed bool")
			if err == nil {
				return nil
			}
			_ = scene.Sleep(ctx, 150*time.Millisecond) // lets readers pass
		}
		return err
	})
}

// siteDuringMigration has a report as its first request, a migration as its second, and page views as the rest.
func siteDuringMigration(s *scene.Stage, migrate func(context.Context, *pgxpool.Pool) error) scene.Request {
	pool, reading := s.Pool(10), make(chan struct{})
	return func(ctx context.Context, n int) error {
		switch n {
		case 0:
			return report(ctx, pool, reading)
		case 1:
			select {
			case <-reading: // connecting may take longer than the time between two requests
				return migrate(ctx, pool)
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return ordinary(ctx, pool)
	}
}

// report reads the table in a long transaction, and closes reading once it has the lock.
func report(ctx context.Context, pool *pgxpool.Pool, reading chan<- struct{}) error {
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if err := latestPolls(ctx, tx); err != nil {
			return err
		}
		close(reading)
		return slowly(ctx, tx, 1500*time.Millisecond)
	})
}
