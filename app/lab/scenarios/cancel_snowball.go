package scenarios

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgxpool"

	"ddtb/app/lab/scene"
)

var _ = add(scene.Scenario{
	Number: 10, Name: "cancel-snowball", Title: "clients give up, but their queries go on",
	Family: scene.TooLong, Message: "FATAL: sorry, too many clients already",
	Why: "A client gives up, the driver closes the connection, and the pool opens another. " +
		"The request to cancel the query travels on a connection of its own, and a balancer sends it to another server, or drops it. " +
		"So the query goes on without a client, its backend keeps its slot, and a pool of 5 has 20 backends.",
	Figure: "backends above the pool's maximum", FixedBy: "a statement_timeout and an acquire timeout that together are shorter than the client's",
	Note: "The driver here closes the socket when its context ends, as many do. By default, pgx 5.12 keeps the place in the pool until the server is done, for up to 15 s: then the pool stands still instead.",
	SQL: `SELECT application_name, count(*), max(now() - query_start) AS longest
FROM pg_stat_activity WHERE state = 'active' GROUP BY 1;`,
	Recipe: "pool", Threads: scene.Threads("jackc/pgx#2425"), Of: 15,
	Load:  scene.Load{Requests: 80, Every: 25 * time.Millisecond, Patience: 400 * time.Millisecond},
	Value: scene.Above(5), Fails: cancelSnowballFails, Works: cancelSnowballWorks,
})

func cancelSnowballFails(s *scene.Stage) scene.Request {
	pool := s.Pool(5, func(c *pgxpool.Config) {
		throughBalancer(s, c.ConnConfig)
	})
	return func(ctx context.Context, _ int) error {
		return slowly(ctx, pool, 3*time.Second) // the client waits for 0.4 s
	}
}

func cancelSnowballWorks(s *scene.Stage) scene.Request {
	pool := s.Pool(5, func(c *pgxpool.Config) {
		throughBalancer(s, c.ConnConfig)
		c.ConnConfig.RuntimeParams["statement_timeout"] = "100ms" // the server ends it
	})
	return func(ctx context.Context, _ int) error {
		soon, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		lease, err := pool.Acquire(soon) // leaves time for the query
		if err != nil {
			return err
		}
		defer lease.Release()
		return slowly(ctx, lease, 3*time.Second)
	}
}

// throughBalancer makes connections go through a balancer that loses cancel requests. When the caller gives up, the
// driver closes the socket at once, as many do.
func throughBalancer(s *scene.Stage, cc *pgx.ConnConfig) {
	network := s.Network()
	network.LosesCancels = true
	network.Direct(cc)
	cc.BuildContextWatcherHandler = func(pc *pgconn.PgConn) ctxwatch.Handler { return closer{pc} }
}

type closer struct{ *pgconn.PgConn }

func (c closer) HandleCancel(context.Context) { _ = c.Conn().Close() }
func (c closer) HandleUnwatchAfterCancel()    {}
