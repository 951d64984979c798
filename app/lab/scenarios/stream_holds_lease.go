package scenarios

import (
	"context"
	"time"

	"ddtb/app/lab/scene"
)

var _ = add(scene.Scenario{
	Number: 8, Name: "stream-holds-lease", Title: "a stream keeps its connection until it ends",
	Family: scene.TooLong, Message: "context deadline exceeded",
	Why: "A stream of events lasts as long as its client watches, and it acquires its connection at the start. " +
		"Between events the connection does nothing. " +
		"As many watching clients as the pool has connections stop the whole application.",
	Figure: "ordinary requests failed", FixedBy: "a connection for each event, not for the stream",
	SQL: `SELECT pid, application_name, now() - backend_start AS connected, state, now() - state_change AS since
FROM pg_stat_activity WHERE backend_type = 'client backend' ORDER BY 3 DESC;`,
	Recipe: "transaction", Threads: scene.Threads("galaxyproject/galaxy#22940"),
	Load: scene.Load{Requests: 50, Every: 20 * time.Millisecond, Patience: 4 * time.Second}, Of: 45,
	Value: scene.FailedFrom(streams), Fails: streamHoldsLeaseFails, Works: streamHoldsLeaseWorks,
})

const streams = 5 // the first requests open a stream; the others are ordinary

func streamHoldsLeaseFails(s *scene.Stage) scene.Request {
	pool := s.Pool(5)
	return func(ctx context.Context, n int) error {
		if n >= streams {
			return ordinary(ctx, pool)
		}
		lease, err := pool.Acquire(ctx)
		if err != nil {
			return err
		}
		defer lease.Release()            // when the client leaves
		return watch(ctx, func() error { // an event every 100 ms
			return latestPolls(ctx, lease)
		})
	}
}

func streamHoldsLeaseWorks(s *scene.Stage) scene.Request {
	pool := s.Pool(5)
	return func(ctx context.Context, n int) error {
		if n >= streams {
			return ordinary(ctx, pool)
		}
		return watch(ctx, func() error {
			return latestPolls(ctx, pool) // uses a connection for this event only
		})
	}
}

// ordinary is a request whose client waits for 0.8 s.
func ordinary(ctx context.Context, q querier) error {
	ctx, cancel := context.WithTimeout(ctx, 800*time.Millisecond)
	defer cancel()
	return latestPolls(ctx, q)
}

// watch sends an event every 100 ms, until the client leaves after 2.5 s.
func watch(ctx context.Context, event func() error) error {
	for range 25 {
		if err := event(); err != nil {
			return err
		}
		if err := scene.Sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}
