// Package lab implements the test endpoints. They exhaust connections on purpose, count the effect on the server, and
// report it in JSON. They use the live strategy, or a private instance.
//
// Every run is limited in connections and time, ends when its client disconnects, and leaves nothing behind. The
// endpoints exist only if the configuration enables them. The package does not depend on polls, users, or how an error
// is answered.
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
	sentry config.Sentry // the application's; without a DSN, experiments use a stand-in
	turn   chan struct{} // one stress run at a time

	mu      sync.Mutex
	leaked  map[*db.Lease]func() // the deliberate leaks, with the function that reclaims each
	leaking int                  // leaks in progress
}

// New makes the lab.
func New(d *db.DB, server *activity.Observer, cfg config.Test, log *slog.Logger) *Lab {
	l := &Lab{db: d, server: server, log: log, turn: make(chan struct{}, 1), leaked: map[*db.Lease]func(){}}
	l.Configure(cfg)
	return l
}

// Configure applies new limits, and enables or disables the endpoints.
func (l *Lab) Configure(cfg config.Test) { l.limits.Store(&cfg) }

// UseSentry sends the events of experiments to the application's Sentry. Call it before the first request.
func (l *Lab) UseSentry(cfg config.Sentry) { l.sentry = cfg }

// Enabled reports whether the endpoints are enabled.
func (l *Lab) Enabled() bool { return l.limits.Load().Enabled }

// Close reclaims the deliberate leaks.
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

// guard rejects requests to a test endpoint unless the endpoints are enabled and the request comes from the user: a
// page of another site must not start a run.
func (l *Lab) guard(next echo.HandlerFunc) echo.HandlerFunc {
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

// begin reserves the single stress run.
func (l *Lab) begin() (end func(), err error) {
	select {
	case l.turn <- struct{}{}:
		return func() { <-l.turn }, nil
	default:
		return nil, fault.New(fault.Conflict, "Another stress run is under way. Wait for its end, then try again.")
	}
}

// strategyFor returns the live strategy, or a private instance with the requested settings.
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
