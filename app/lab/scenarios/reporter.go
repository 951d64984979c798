package scenarios

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"ddtb/app/lab/scene"
	"ddtb/app/report"
	"ddtb/config"
)

// reporter is this application's: it limits mails and events by cause.
type reporter struct {
	*report.Reporter
	end func() // sends the due reports
}

func newReporter(s *scene.Stage, mail config.Mail, dsn string) reporter {
	r, err := report.New(report.Options{
		Mail: mail, Sentry: config.Sentry{DSN: config.Secret(dsn), Environment: "lab"}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		s.Failed(err)
	}
	end := sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		_ = r.Close(ctx) // unsent reports are not counted
	})
	s.Afterwards(end)
	return reporter{r, end}
}

// report counts the failure, and returns at once.
func (r reporter) report(err error) {
	r.Report(report.Incident{Err: err, Request: report.Request{Method: "GET", Route: "/polls/", Path: "/polls/"}})
}
