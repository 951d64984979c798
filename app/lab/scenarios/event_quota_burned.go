package scenarios

import (
	"context"
	"errors"
	"time"

	"github.com/getsentry/sentry-go"

	"ddtb/app/lab/scene"
	"ddtb/config"
)

const (
	quota    = 40 // events that the plan pays for
	outage   = 80 // requests that fail without a slot; later ones hit a bug
	hitByBug = 20
)

var _ = add(scene.Scenario{
	Number: 19, Name: "event-quota-burned", Title: "one event per failure, then none for the next bug",
	Family: scene.Reporting, Message: "Your organization has used up its error quota",
	Why: "Every failed request sends an event to Sentry. " +
		"A short outage of the database sends thousands, and the quota of the month is used up. " +
		"Sentry answers the event of the next bug, a real one, with 429, and no one hears of it.",
	Figure: "kinds of failure unreported", FixedBy: "one event for a cause and a window, with a count of the rest",
	SQL: `SELECT current_setting('max_connections') AS max, count(*) AS used
FROM pg_stat_activity WHERE backend_type = 'client backend'; -- events leave no trace here`,
	Recipe: "reporting", Threads: scene.Threads("apache/superset#7165"), Of: 2,
	Load:  scene.Load{Requests: outage + hitByBug, Every: 8 * time.Millisecond, Patience: 30 * time.Second},
	Setup: func(s *scene.Stage) { s.Fill(20) },
	Value: scene.Counted, Fails: eventQuotaBurnedFails, Works: eventQuotaBurnedWorks,
})

func eventQuotaBurnedFails(s *scene.Stage) scene.Request {
	plan := s.Sentry(quota)
	transport := sentry.NewHTTPSyncTransport()
	client, err := sentry.NewClient(sentry.ClientOptions{Dsn: plan.DSN, Transport: transport})
	s.Failed(err)
	s.BeforeCounting(func() { s.Count(unreported(plan)) })
	request := shop(s)
	return func(ctx context.Context, n int) error {
		err := request(ctx, n)
		client.CaptureException(err, nil, nil) // every one
		return err
	}
}

func eventQuotaBurnedWorks(s *scene.Stage) scene.Request {
	plan := s.Sentry(quota)
	report := newReporter(s, config.Default().Mail, plan.DSN)
	s.BeforeCounting(func() { s.Count(unreported(plan)) })
	request := shop(s)
	return func(ctx context.Context, n int) error {
		err := request(ctx, n)
		report(err)
		return err
	}
}

// shop fails first without a slot, and then because of a bug.
func shop(s *scene.Stage) scene.Request {
	d := s.DB(func(c *config.Database) { c.Strategy = "per-request" })
	return func(ctx context.Context, n int) error {
		if n >= outage {
			return errPrice
		}
		return latestPolls(ctx, d)
	}
}

var errPrice = errors.New("the price is negative")

// unreported counts the kinds of failure without an event.
func unreported(plan *scene.Sentry) (n int) {
	for _, kind := range []string{"53300", "the price is negative"} {
		if plan.Accepted(kind) == 0 {
			n++
		}
	}
	return n
}
