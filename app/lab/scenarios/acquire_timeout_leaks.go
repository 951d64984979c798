package scenarios

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"ddtb/app/lab/scene"
)

var _ = add(scene.Scenario{
	Number: 23, Name: "acquire-timeout-leaks", Title: "a timed-out acquire gets its connection later",
	Family: scene.Leaks, Message: "couldn't get a connection after 0.20 sec",
	Why: "The acquire has no timeout, so the code wraps it: a goroutine acquires, and the caller waits for it or for a timer. " +
		"When the timer fires first, the goroutine goes on waiting, and gets a connection later. " +
		"The caller has left, so the connection is lost: a short overload empties the pool for ever.",
	Figure: "failed after the overload", FixedBy: "giving the timeout to the acquire itself",
	SQL: `SELECT application_name, state, count(*), min(state_change) AS since
FROM pg_stat_activity WHERE backend_type = 'client backend' GROUP BY 1, 2;`,
	Recipe: "leaks", Threads: scene.Threads("MagicStack/asyncpg#467"), Of: 40,
	Load:  scene.Load{Requests: 80, Burst: 20, Every: 500 * time.Millisecond, Patience: 800 * time.Millisecond},
	Value: scene.FailedFrom(40), Fails: acquireTimeoutLeaksFails, Works: acquireTimeoutLeaksWorks,
})

func acquireTimeoutLeaksFails(s *scene.Stage) scene.Request {
	pool := s.Pool(5)
	return overloadThenCalm(func(ctx context.Context) (*pgxpool.Conn, error) {
		got := make(chan *pgxpool.Conn, 1)
		s.Go(func(ctx context.Context) {
			if lease, err := pool.Acquire(ctx); err == nil {
				s.Afterwards(lease.Release) // clean-up for the lab
				got <- lease                // there may be no reader any more
			}
		})
		select {
		case lease := <-got:
			return lease, nil
		case <-time.After(200 * time.Millisecond):
			return nil, context.DeadlineExceeded
		}
	})
}

func acquireTimeoutLeaksWorks(s *scene.Stage) scene.Request {
	pool := s.Pool(5)
	return overloadThenCalm(func(ctx context.Context) (*pgxpool.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		defer cancel()
		return pool.Acquire(ctx) // gives up its place in the queue
	})
}

// overloadThenCalm holds each connection for a long time in the first half of the load, and briefly in the second.
func overloadThenCalm(acquire func(context.Context) (*pgxpool.Conn, error)) scene.Request {
	return func(ctx context.Context, n int) error {
		lease, err := acquire(ctx)
		if err != nil {
			return err
		}
		defer lease.Release()
		if n < 40 {
			return slowly(ctx, lease, 300*time.Millisecond)
		}
		return latestPolls(ctx, lease)
	}
}
