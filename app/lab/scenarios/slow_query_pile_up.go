package scenarios

import (
	"context"
	"time"

	"ddtb/app/lab/scene"
	"ddtb/config"
)

var _ = add(scene.Scenario{
	Number: 9, Name: "slow-query-pile-up", Title: "slow queries fill the pool, the queue has no bound",
	Family: scene.TooLong, Message: "couldn't get a connection after 30.00 sec",
	Why: "Queries come faster than the pool can serve them, so requests wait. " +
		"Nothing bounds the queue, so each waits longer than the one before, and the server works for clients that have left. " +
		"In the end every request times out late, even those that could have been served.",
	Figure: "answers later than 1 s", FixedBy: "a bounded queue and a short timeout: a request that can't be served in time fails at once",
	Note: "The fix does not make the server faster. It answers the rest at once with 503 and Retry-After, and serves as many as before.",
	SQL: `SELECT pid, application_name, now() - query_start AS runs, query
FROM pg_stat_activity WHERE state = 'active' AND backend_type = 'client backend' ORDER BY query_start;`,
	Recipe: "pool", Threads: scene.Threads("psycopg/psycopg#218", "brettwooldridge/HikariCP#1109"),
	Load:  scene.Load{Requests: 100, Every: 10 * time.Millisecond, Patience: 4 * time.Second},
	Value: scene.Slower(time.Second), Fails: slowQueryPileUpFails, Works: slowQueryPileUpWorks,
})

func slowQueryPileUpFails(s *scene.Stage) scene.Request {
	pool := s.Pool(5)
	return func(ctx context.Context, _ int) error {
		return slowly(ctx, pool, 150*time.Millisecond) // waits without a limit
	}
}

func slowQueryPileUpWorks(s *scene.Stage) scene.Request {
	d := s.DB(func(c *config.Database) {
		c.Strategy, c.Pool.MaxSize = "pool", 5
		c.Pool.Timeout, c.Pool.MaxWaiting = 250*time.Millisecond, 20
	})
	return func(ctx context.Context, _ int) error {
		return slowly(ctx, d, 150*time.Millisecond)
	}
}
