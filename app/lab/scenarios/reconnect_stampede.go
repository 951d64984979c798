//nolint:gosec // jitter need not be secret
package scenarios

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/app/lab/scene"
)

const stampedeWorkers = 18

var _ = add(scene.Scenario{
	Number: 11, Name: "reconnect-stampede", Title: "after a restart every worker reconnects at once",
	Family: scene.Recovery, Message: "FATAL: the database system is starting up",
	Why: "A restart closes every connection at the same moment, so every worker connects at the same moment. " +
		"The server refuses while it starts, and the workers retry without a pause. " +
		"The attempts take CPU time from the starting server, and come in one wave when it is up.",
	Figure: "connection attempts", FixedBy: "an exponential backoff with jitter",
	Note: "18 workers connect. “Of 180” is ten attempts for each: a run with more of them is a stampede.",
	SQL: `SELECT date_trunc('second', backend_start) AS at, count(*)
FROM pg_stat_activity WHERE backend_type = 'client backend' GROUP BY 1 ORDER BY 2 DESC LIMIT 5;`,
	Recipe: "recovery", Threads: scene.Threads("porsager/postgres#1179"), Of: 10 * stampedeWorkers, Tolerated: 10 * stampedeWorkers,
	Load:  scene.Load{Requests: stampedeWorkers, Patience: 2500 * time.Millisecond},
	Setup: func(s *scene.Stage) { s.RestartAfter(400 * time.Millisecond) },
	Value: scene.Counted, Fails: reconnectStampedeFails, Works: reconnectStampedeWorks,
})

func reconnectStampedeFails(s *scene.Stage) scene.Request {
	return worker(func(ctx context.Context) (conn *pgx.Conn, err error) {
		for ctx.Err() == nil {
			s.Count(1)
			if conn, err = s.Connect(ctx); err == nil {
				return conn, nil
			}
		} // retries without a pause
		return nil, err
	})
}

func reconnectStampedeWorks(s *scene.Stage) scene.Request {
	return worker(func(ctx context.Context) (conn *pgx.Conn, err error) {
		for pause := 50 * time.Millisecond; ctx.Err() == nil; pause = min(2*pause, time.Second) {
			s.Count(1)
			if conn, err = s.Connect(ctx); err == nil {
				return conn, nil
			}
			_ = scene.Sleep(ctx, pause/2+rand.N(pause)) // ± 50 %
		}
		return nil, err
	})
}

// worker queries every 20 ms for 2 s, and reconnects after losing its connection.
func worker(connect func(context.Context) (*pgx.Conn, error)) scene.Request {
	return func(ctx context.Context, _ int) error {
		var conn *pgx.Conn
		for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
			if conn == nil || conn.IsClosed() {
				var err error
				if conn, err = connect(ctx); err != nil {
					return err
				}
			}
			_ = latestPolls(ctx, conn) // closes a lost connection
			_ = scene.Sleep(ctx, 20*time.Millisecond)
		}
		return nil
	}
}
