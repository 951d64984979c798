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
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"

	"ddtb/app/fault"
	"ddtb/app/web"
	"ddtb/config"
	"ddtb/db"
	"ddtb/db/activity"
)

// Lab runs the test endpoints over the application's database.
type Lab struct {
	db      *db.DB
	monitor *activity.Observer
	log     *slog.Logger
	limits  atomic.Pointer[config.Test]
	sentry  config.Sentry // the application's; without a DSN, experiments use a stand-in
	turn    chan struct{} // one run at a time

	mu      sync.Mutex
	leaked  map[*db.Lease]func() // the deliberate leaks, with the function that reclaims each
	leaking int                  // leaks in progress
}

// New makes the lab. The events of experiments go to the application's Sentry, if it has one.
func New(d *db.DB, monitor *activity.Observer, cfg config.Test, events config.Sentry, log *slog.Logger) *Lab {
	l := &Lab{db: d, monitor: monitor, sentry: events, log: log, turn: make(chan struct{}, 1), leaked: map[*db.Lease]func(){}}
	l.Configure(cfg)
	return l
}

// Configure applies new limits, and enables or disables the endpoints.
func (l *Lab) Configure(cfg config.Test) { l.limits.Store(&cfg) }

// Enabled reports whether the endpoints are enabled.
func (l *Lab) Enabled() bool { return l.limits.Load().Enabled }

// Close reclaims the deliberate leaks.
func (l *Lab) Close() {
	l.mu.Lock()
	reclaims := slices.Collect(maps.Values(l.leaked))
	l.mu.Unlock()
	for _, reclaim := range reclaims {
		reclaim()
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
		longest := 2*l.limits.Load().MaxHold + time.Minute // of a stress run: its holders wait, then hold
		_ = http.NewResponseController(c.Response().Writer).SetWriteDeadline(time.Now().Add(longest))
		return next(c)
	}
}

// begin reserves the single run of a test, on the application's database or on a private one with the settings. end closes
// that one, and lets the next run begin.
func (l *Lab) begin(private bool, cfg config.Database, onNested func(first, second string)) (d *db.DB, end func(), err error) {
	select {
	case l.turn <- struct{}{}:
	default:
		return nil, nil, fault.New(fault.Conflict, "Another stress run is under way. Wait until it has ended, then try again.")
	}
	free := func() { <-l.turn }
	if !private {
		return l.db, free, nil
	}
	if d, err = db.OpenWith(cfg, db.Options{Log: l.log, OnNested: onNested}); err != nil {
		free()
		return nil, nil, err
	}
	return d, func() {
		defer free()
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		if err := d.Close(ctx); err != nil {
			l.log.Warn("the private database of a test did not close in time", "error", err)
		}
	}, nil
}
