package scenarios

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/app/lab/scene"
)

var _ = add(scene.Scenario{
	Number: 24, Name: "no-recovery", Title: "the pool does not recover when the server does",
	Family: scene.Recovery, Message: "conn closed",
	Why: "A restart of the server closes every connection of the pool. " +
		"This pool takes connections back without checking them, and hands out dead ones. " +
		"The server is up after a second, and the application fails until it is restarted.",
	Figure: "requests failed after the restart", FixedBy: "closing a lost connection when it is released, and opening another",
	SQL: `SELECT application_name, backend_start, pg_postmaster_start_time() AS server_start
FROM pg_stat_activity WHERE backend_type = 'client backend'; -- an application that gave up is not in it`,
	Recipe: "recovery", Threads: scene.Threads("psycopg/psycopg#1315", "rails/rails#20114"), Of: 40,
	Load:  scene.Load{Requests: 120, Every: 25 * time.Millisecond},
	Setup: func(s *scene.Stage) { s.RestartAfter(300 * time.Millisecond) },
	Value: scene.FailedFrom(80), Fails: noRecoveryFails, Works: noRecoveryWorks,
})

func noRecoveryFails(s *scene.Stage) scene.Request {
	pool := connections(s, 5)
	return func(ctx context.Context, _ int) error {
		conn := <-pool
		defer func() { pool <- conn }() // in any state
		return latestPolls(ctx, conn)
	}
}

func noRecoveryWorks(s *scene.Stage) scene.Request {
	pool := connections(s, 5)
	return func(ctx context.Context, _ int) (err error) {
		conn := <-pool
		defer func() { pool <- conn }()
		if conn == nil || conn.IsClosed() { // lost: replace it
			if conn, err = s.Connect(ctx); err != nil {
				return err
			}
		}
		return latestPolls(ctx, conn)
	}
}

// connections is a simple hand-written pool.
func connections(s *scene.Stage, size int) chan *pgx.Conn {
	pool := make(chan *pgx.Conn, size)
	for range size {
		conn, err := s.Connect(s.Context())
		s.Failed(err)
		pool <- conn
	}
	return pool
}
