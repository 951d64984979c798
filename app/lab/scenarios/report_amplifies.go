package scenarios

import (
	"context"
	"fmt"
	"io"
	"time"

	"ddtb/app/lab/scene"
)

const failing = 20 // requests

var _ = add(scene.Scenario{
	Number: 28, Name: "report-amplifies", Title: "an error report connects again and again",
	Family: scene.Reporting, Message: "FATAL: sorry, too many clients already",
	Why: "The error report prints the local variables of every frame of the traceback. " +
		"Some are lazy: printing one runs a query, which opens a connection, which is refused like that of the request. " +
		"Each failing request becomes more than twenty attempts to log in, on a server without a free slot.",
	Figure: "connection attempts", FixedBy: "a report of what is already loaded, which never queries",
	Note: "A real Django 3.2 made 22 attempts for a failing request with a mail, and took 250 ms of CPU instead of 2. " +
		"Here a traceback of seven frames prints three lazy objects in each, so a request makes 22.",
	SQL: `SELECT current_setting('log_connections'); -- on: refused attempts are in the server's log,
-- "FATAL: sorry, too many clients already"; they never become sessions`,
	Recipe: "reporting", Threads: scene.Threads("debusine#795"), Of: 22 * failing, Tolerated: failing,
	Load:  scene.Load{Requests: failing, Every: 30 * time.Millisecond, Patience: 3 * time.Second},
	Setup: func(s *scene.Stage) { s.Fill(20) },
	Value: scene.Counted, Fails: reportAmplifiesFails, Works: reportAmplifiesWorks,
})

func reportAmplifiesFails(s *scene.Stage) scene.Request {
	return func(ctx context.Context, _ int) error {
		locals, err := view(ctx, s)
		for range 7 { // frames of the traceback
			for _, v := range locals {
				_, _ = fmt.Fprintf(io.Discard, "%v\n", v.String()) // queries
			}
		}
		return err
	}
}

func reportAmplifiesWorks(s *scene.Stage) scene.Request {
	return func(ctx context.Context, _ int) error {
		locals, err := view(ctx, s)
		for range 7 {
			for _, v := range locals {
				_, _ = fmt.Fprintf(io.Discard, "%s, not loaded\n", v.name)
			}
		}
		return err
	}
}

// lazy is a set of objects that is queried when it is printed.
type lazy struct {
	name string
	load func() error
}

func (l lazy) String() string { return fmt.Sprint(l.load()) }

// view is a page with three lazy sets that fails without a slot.
func view(ctx context.Context, s *scene.Stage) (locals []lazy, err error) {
	connect := func() error {
		s.Count(1)
		_, err := s.Connect(ctx)
		return err
	}
	for _, name := range []string{"polls", "choices", "user"} {
		locals = append(locals, lazy{name, connect})
	}
	return locals, connect()
}
