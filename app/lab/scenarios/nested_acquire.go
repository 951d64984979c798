package scenarios

import (
	"context"
	"time"

	"ddtb/app/lab/scene"
)

var _ = add(scene.Scenario{
	Number: 7, Name: "nested-acquire", Title: "a holder asks its own pool for a second connection",
	Family: scene.TooLong, Message: "couldn't get a connection after 1.00 sec",
	Why: "A request that holds a connection calls a function that acquires another. " +
		"When as many requests as the pool has connections do so at the same time, each waits for what the others hold. " +
		"None can go on until a timeout frees them: a deadlock that the server can't see.",
	Figure: "requests failed", FixedBy: "passing the connection on to the function",
	SQL: `SELECT application_name, state, count(*), max(now() - state_change) AS longest
FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' OR state = 'idle' GROUP BY 1, 2;`,
	Recipe: "transaction", Threads: scene.Threads("MagicStack/asyncpg#5", "aio-libs/aiopg#113"),
	Load:  scene.Load{Requests: 60, Burst: 6, Every: 100 * time.Millisecond, Patience: time.Second},
	Fails: nestedAcquireFails, Works: nestedAcquireWorks,
})

func nestedAcquireFails(s *scene.Stage) scene.Request {
	pool := s.Pool(3)
	return func(ctx context.Context, _ int) error {
		lease, err := pool.Acquire(ctx)
		if err != nil {
			return err
		}
		defer lease.Release()
		if err := slowly(ctx, lease, 5*time.Millisecond); err != nil {
			return err
		}
		return latestPolls(ctx, pool) // takes a second one
	}
}

func nestedAcquireWorks(s *scene.Stage) scene.Request {
	pool := s.Pool(3)
	return func(ctx context.Context, _ int) error {
		lease, err := pool.Acquire(ctx)
		if err != nil {
			return err
		}
		defer lease.Release()
		if err := slowly(ctx, lease, 5*time.Millisecond); err != nil {
			return err
		}
		return latestPolls(ctx, lease) // uses the one it has
	}
}
