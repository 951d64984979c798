package scenarios

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"ddtb/app/lab/scene"
)

var _ = add(scene.Scenario{
	Number: 20, Name: "half-open", Title: "the pool hands out connections the network forgot",
	Family: scene.Recovery, Message: "context deadline exceeded",
	Why: "A firewall, a NAT or a failover forgets idle connections without telling either side. " +
		"The pool has no reason to doubt them, and hands them out. " +
		"Each one costs a request its whole timeout, and keeps its place in the pool even longer; on the server it keeps its slot until TCP's keepalive notices, after two hours by default.",
	Figure: "requests failed", FixedBy: "a ping with a short timeout before an idle connection is used, and a keepalive of seconds",
	SQL: `SELECT pid, client_addr, now() - state_change AS silent_for FROM pg_stat_activity
WHERE backend_type = 'client backend' AND state = 'idle' ORDER BY 3 DESC;`,
	Recipe: "recovery", Threads: scene.Threads("jackc/pgx#2394"),
	Load:  scene.Load{Requests: 60, Every: 25 * time.Millisecond, Patience: 1500 * time.Millisecond},
	Fails: halfOpenFails, Works: halfOpenWorks,
})

func halfOpenFails(s *scene.Stage) scene.Request {
	network := s.Network()
	pool := s.Pool(8, func(c *pgxpool.Config) { network.Direct(c.ConnConfig) })
	forgetIdle(s, pool, network)
	return func(ctx context.Context, _ int) error {
		return latestPolls(ctx, pool)
	}
}

func halfOpenWorks(s *scene.Stage) scene.Request {
	network := s.Network()
	pool := s.Pool(8, func(c *pgxpool.Config) {
		network.Direct(c.ConnConfig)
		c.PrepareConn = func(ctx context.Context, conn *pgx.Conn) (bool, error) {
			ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
			defer cancel()
			if conn.Ping(ctx) == nil {
				return true, nil
			}
			_ = conn.PgConn().Conn().Close() // otherwise closing it takes pgx 15 s
			return false, nil                // the pool uses another one
		}
	})
	forgetIdle(s, pool, network)
	return func(ctx context.Context, _ int) error {
		return latestPolls(ctx, pool)
	}
}

// forgetIdle fills the pool with idle connections, whose state the network then loses.
func forgetIdle(s *scene.Stage, pool *pgxpool.Pool, network *scene.Network) {
	var leases []*pgxpool.Conn
	for range 8 {
		lease, err := pool.Acquire(s.Context())
		if err != nil {
			s.Failed(err)
			return
		}
		leases = append(leases, lease)
	}
	for _, lease := range leases {
		lease.Release()
	}
	network.Silence()
}
