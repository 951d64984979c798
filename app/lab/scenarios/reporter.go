package scenarios

import (
	"context"
	"log/slog"
	"time"

	"ddtb/app/lab/scene"
	reports "ddtb/app/report"
	"ddtb/config"
)

// newReporter starts this application's reporter, which limits mails and events by cause. report counts the failure, and
// returns at once. What is due is sent before the figure is counted.
func newReporter(s *scene.Stage, mail config.Mail, dsn string) (report func(error)) {
	r, err := reports.New(reports.Options{
		Mail: mail, Sentry: config.Sentry{DSN: config.Secret(dsn), Environment: "lab"}, Log: slog.New(slog.DiscardHandler),
	})
	s.Failed(err)
	end := func() {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		_ = r.Close(ctx) // unsent reports are not counted
	}
	s.BeforeCounting(end)
	s.Afterwards(end) // if the load was not sent
	return func(err error) {
		r.Report(reports.Incident{Err: err, Request: reports.Request{Method: "GET", Route: "/polls/", Path: "/polls/"}})
	}
}
