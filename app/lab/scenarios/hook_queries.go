package scenarios

import (
	"context"
	"errors"
	"time"

	"github.com/getsentry/sentry-go"

	"ddtb/app/lab/scene"
)

var _ = add(scene.Scenario{
	Number: 27, Name: "hook-queries", Title: "an error reporter's hook queries the database",
	Family: scene.Reporting, Message: "couldn't get a connection after 0.50 sec",
	Why: "A hook of the error reporter adds the user's name to each event, and queries the database for it. " +
		"The event is captured while the request holds its connection, so the hook asks for a second one. " +
		"When several requests fail at once, each waits for the others: reporting an error causes more errors.",
	Figure: "answers later than 0.4 s", FixedBy: "a hook that uses what the request already knows",
	SQL: `SELECT pid, application_name, state, now() - state_change AS since, query
FROM pg_stat_activity WHERE backend_type = 'client backend' ORDER BY state_change;`,
	Recipe: "reporting",
	Load:   scene.Load{Requests: 60, Burst: 6, Every: 100 * time.Millisecond},
	Value:  scene.Slower(400 * time.Millisecond), Fails: hookQueriesFails, Works: hookQueriesWorks,
})

func hookQueriesFails(s *scene.Stage) scene.Request {
	pool := s.Pool(3)
	capture := sentryWithHook(s, func(*sentry.Event) {
		ctx, cancel := context.WithTimeout(s.Context(), 500*time.Millisecond)
		defer cancel()
		_ = latestPolls(ctx, pool) // looks up the user on a second connection
	})
	return func(ctx context.Context, _ int) error {
		lease, err := pool.Acquire(ctx)
		if err != nil {
			return err
		}
		defer lease.Release()
		capture(slowly(ctx, lease, 5*time.Millisecond))
		return nil
	}
}

func hookQueriesWorks(s *scene.Stage) scene.Request {
	pool := s.Pool(3)
	capture := sentryWithHook(s, func(e *sentry.Event) {
		e.User.Username = "known since the login" // no query
	})
	return func(ctx context.Context, _ int) error {
		lease, err := pool.Acquire(ctx)
		if err != nil {
			return err
		}
		defer lease.Release()
		capture(slowly(ctx, lease, 5*time.Millisecond))
		return nil
	}
}

var errStock = errors.New("out of stock")

// sentryWithHook is a real Sentry client that passes each event to a hook before sending it.
func sentryWithHook(s *scene.Stage, hook func(*sentry.Event)) (capture func(error)) {
	client, err := sentry.NewClient(sentry.ClientOptions{
		Dsn: s.Sentry(200).DSN, Transport: sentry.NewHTTPSyncTransport(),
		BeforeSend: func(e *sentry.Event, _ *sentry.EventHint) *sentry.Event { hook(e); return e },
	})
	s.Failed(err)
	return func(err error) { client.CaptureException(errors.Join(errStock, err), nil, nil) }
}
