package scenarios

import (
	"context"
	"time"

	"ddtb/app/lab/scene"
)

const probes = 50

var _ = add(scene.Scenario{
	Number: 16, Name: "probe-connects", Title: "a health probe opens a connection each time",
	Family: scene.TooMany, Message: "Readiness probe failed: FATAL: sorry, too many clients already",
	Why: "Each probe of each replica opens a connection, runs SELECT 1, and closes it. " +
		"The login costs the server a process and far more CPU time than the query. " +
		"And when the slots are used up, the probe fails and the orchestrator kills replicas that were serving.",
	Figure: "probes opened a connection", FixedBy: "a probe that queries through the application's own pool",
	SQL: `SELECT sessions, sessions / greatest(1, extract(epoch FROM now() - stats_reset)) AS per_second
FROM pg_stat_database WHERE datname = current_database(); -- PostgreSQL 14 and later`,
	Recipe: "pool", Threads: scene.Threads("bytedance/deer-flow#5166"), Tolerated: 5,
	Load:  scene.Load{Requests: probes, Every: 20 * time.Millisecond},
	Value: scene.Counted, Fails: probeConnectsFails, Works: probeConnectsWorks,
})

func probeConnectsFails(s *scene.Stage) scene.Request {
	countSessions(s)
	return func(ctx context.Context, _ int) error {
		conn, err := s.Connect(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close(ctx) }()
		_, err = conn.Exec(ctx, "SELECT 1")
		return err
	}
}

func probeConnectsWorks(s *scene.Stage) scene.Request {
	pool := s.Pool(5)
	countSessions(s)
	return func(ctx context.Context, _ int) error {
		_, err := pool.Exec(ctx, "SELECT 1") // also says whether the pool itself can serve
		if err != nil {
			s.Count(1) // a probe that fails is no better than one that connects
		}
		return err
	}
}

// sessionsReport is the maximum delay of the session counter: a backend reports at most once a second.
const sessionsReport = 1500 * time.Millisecond

// countSessions counts the connections that the server accepts during the run.
func countSessions(s *scene.Stage) {
	const accepted = "SELECT sessions FROM pg_stat_database WHERE datname = current_database()"
	before := s.Int(accepted)
	s.BeforeCounting(func() {
		if scene.Sleep(s.Context(), sessionsReport) == nil {
			s.Count(s.Int(accepted) - before)
		}
	})
}
