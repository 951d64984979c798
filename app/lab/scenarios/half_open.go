package scenarios

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"ddtb/app/lab/scene"
)

func init() { add(&halfOpen) }

var halfOpen = scene.Scenario{
	Number: 20, Name: "half-open", Title: "the pool hands out connections the network forgot",
	Family: scene.Recovery, Message: "context deadline exceeded",
	Why: "A firewall, a NAT or a failover forgets connections that were idle, without telling either side. " +
		"The pool has no reason to doubt them, and hands them out. " +
		"Each costs a request its whole timeout, and keeps its place in the pool for longer; and on the server each keeps its slot until TCP's keepalive finds out, after two hours by default.",
	Figure: "requests failed", FixedBy: "a ping with a short limit before an idle connection is used, and keepalive in seconds",
	SQL: `SELECT pid, client_addr, now() - state_change AS silent_for FROM pg_stat_activity
WHERE backend_type = 'client backend' AND state = 'idle' ORDER BY 3 DESC;`,
	Recipe: "recovery", Threads: scene.Threads("jackc/pgx#2394"),
	Load:  scene.Load{Requests: 60, Every: 25 * time.Millisecond, Patience: 1500 * time.Millisecond},
	Fails: halfOpenFails, Works: halfOpenWorks,
}

func halfOpenFails(s *scene.Stage) scene.Request {
	proxy := s.Proxy()
	pool := s.Pool(8, func(c *pgxpool.Config) { proxy.Direct(c.ConnConfig) })
	forgetIdle(s, pool, proxy)
	return func(ctx context.Context, _ int) error {
		return latestPolls(ctx, pool)
	}
}

func halfOpenWorks(s *scene.Stage) scene.Request {
	proxy := s.Proxy()
	pool := s.Pool(8, func(c *pgxpool.Config) {
		proxy.Direct(c.ConnConfig)
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
	forgetIdle(s, pool, proxy)
	return func(ctx context.Context, _ int) error {
		return latestPolls(ctx, pool)
	}
}

// forgetIdle fills the pool with idle connections, whose state the network then loses.
func forgetIdle(s *scene.Stage, pool *pgxpool.Pool, proxy *scene.Proxy) {
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
	proxy.Silence()
}
