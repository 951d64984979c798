// Package lab holds the test endpoints: they make connections run out on purpose, count on the server what that
// does, and say it in JSON. They run on the live strategy, or on a private instance beside it.
//
// It promises that every run is bounded in connections and time, ends when its client goes away, and leaves
// nothing behind; the endpoints are not there unless the configuration turns them on.
// It must not know polls, users, or how an error is answered.
package lab

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/labstack/echo/v4"

	"ddtb/app/fault"
	"ddtb/app/web"
	"ddtb/config"
	"ddtb/db"
	"ddtb/db/activity"
)

// Lab runs the test endpoints over the application's database.
type Lab struct {
	db     *db.DB
	server *activity.Observer
	log    *slog.Logger
	limits atomic.Pointer[config.Test]
	sentry config.Sentry // of the application; without a DSN, experiments use a stand-in
	turn   chan struct{} // one stress run at a time

	mu      sync.Mutex
	leaked  map[*db.Lease]func() // the leases leaked on purpose, and how to take each back
	leaking int                  // how many more are about to be
}

// New makes the lab.
func New(d *db.DB, server *activity.Observer, cfg config.Test, log *slog.Logger) *Lab {
	l := &Lab{db: d, server: server, log: log, turn: make(chan struct{}, 1), leaked: map[*db.Lease]func(){}}
	l.Configure(cfg)
	return l
}

// Configure puts other limits in force, and turns the endpoints on or off.
func (l *Lab) Configure(cfg config.Test) { l.limits.Store(&cfg) }

// UseSentry sends the events of experiments where the application's go. Call it before the first request.
func (l *Lab) UseSentry(cfg config.Sentry) { l.sentry = cfg }

// Enabled tells whether the endpoints are there.
func (l *Lab) Enabled() bool { return l.limits.Load().Enabled }

// Close takes back what was leaked on purpose.
func (l *Lab) Close() {
	l.mu.Lock()
	var back []func()
	for _, f := range l.leaked {
		back = append(back, f)
	}
	l.mu.Unlock()
	for _, f := range back {
		f()
	}
}

// Guard lets a request through to a test endpoint only when they are on, and only from the person at the
// browser: a page of another site must not start one.
func (l *Lab) Guard(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if !l.Enabled() {
			return fault.New(fault.NotFound, "The test endpoints are off. To turn them on, set enabled = true under [test] in the configuration file.")
		}
		switch c.Request().Header.Get("Sec-Fetch-Site") { // a browser sends it, and no page can change it
		case "", "none", "same-origin":
		default:
			err := fmt.Errorf("Sec-Fetch-Site is %q", web.Cut(c.Request().Header.Get("Sec-Fetch-Site")))
			return fault.Wrap(fault.Forbidden, err, "A page of another site can't start a test. Open this address yourself.")
		}
		return next(c)
	}
}

// begin takes the one turn for a stress run.
func (l *Lab) begin() (end func(), err error) {
	select {
	case l.turn <- struct{}{}:
		return func() { <-l.turn }, nil
	default:
		return nil, fault.New(fault.Conflict, "Another stress run is under way. Wait for its end, then try again.")
	}
}

// strategyFor is the live strategy, or a private instance with the settings that were asked for.
func (l *Lab) strategyFor(p *params, cfg config.Database) (_ acquirer, end func(), err error) {
	if !p.private {
		return l.db, func() {}, nil
	}
	s, err := db.NewSource(cfg, db.Options{Log: l.log})
	if err != nil {
		return nil, nil, err
	}
	return s, func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			l.log.Warn("the private strategy of a stress run did not close in time", "error", err)
		}
	}, nil
}

// acquirer is the live database or a private strategy.
type acquirer interface {
	Acquire(ctx context.Context) (*db.Lease, error)
	Stat() db.Stat
}
