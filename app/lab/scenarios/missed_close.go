package scenarios

import (
	"context"
	"time"

	"ddtb/app/lab/scene"
)

var _ = add(scene.Scenario{
	Number: 2, Name: "missed-close", Title: "a middleware does not pass Close on",
	Family: scene.Leaks, Message: "couldn't get a connection after 1.00 sec",
	Why: "The framework releases the connection when the server closes the response. " +
		"Instrumentation wraps the response in its own object, and does not pass Close on. " +
		"Each instrumented response keeps its lease for ever, until none is left.",
	Figure: "requests failed", FixedBy: "passing Close on to the wrapped response",
	SQL: `SELECT pid, application_name, state, now() - state_change AS since, query
FROM pg_stat_activity WHERE state LIKE 'idle%' ORDER BY state_change LIMIT 20;`,
	Recipe: "leaks", Threads: scene.Threads("getsentry/sentry-python#132", "pallets/werkzeug#1854"),
	Load:  scene.Load{Requests: 60, Every: 10 * time.Millisecond, Patience: time.Second},
	Fails: missedCloseFails, Works: missedCloseWorks,
})

// response is returned by a handler and closed by the server.
type response struct {
	body  string
	Close func()
}

func missedCloseFails(s *scene.Stage) scene.Request {
	handler := pollsHandler(s)
	return func(ctx context.Context, _ int) error {
		inner, err := handler(ctx)
		if err != nil {
			return err
		}
		timed := response{body: inner.body, Close: func() {}} // the wrapper's Close does nothing
		defer timed.Close()
		return nil
	}
}

func missedCloseWorks(s *scene.Stage) scene.Request {
	handler := pollsHandler(s)
	return func(ctx context.Context, _ int) error {
		inner, err := handler(ctx)
		if err != nil {
			return err
		}
		timed := response{body: inner.body, Close: inner.Close} // passed on
		defer timed.Close()
		return nil
	}
}

// pollsHandler releases its lease when its response is closed.
func pollsHandler(s *scene.Stage) func(context.Context) (response, error) {
	pool := s.Pool(10)
	return func(ctx context.Context) (response, error) {
		lease, err := pool.Acquire(ctx)
		if err != nil {
			return response{}, err
		}
		s.Afterwards(lease.Release) // clean-up for the lab
		return response{"polls", lease.Release}, latestPolls(ctx, lease)
	}
}
