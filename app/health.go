package app

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"ddtb/app/web"
	"ddtb/db"
	"ddtb/db/activity"
	"ddtb/db/migrations"
)

// healthz tells that the process answers. It asks nothing of the database: a process that is restarted because
// the database is down makes an outage longer.
func (a *App) healthz(c echo.Context) error { return c.String(http.StatusOK, "ok\n") }

// Ready is the answer of /readyz.
type Ready struct {
	Ready  bool     `json:"ready"`
	Cause  db.Cause `json:"cause,omitempty"`
	Detail string   `json:"detail,omitempty"`
	// Warning is what an operator should set although requests are served: a pooler that is not declared.
	Warning string `json:"warning,omitempty"`

	stopping bool
}

// readyz tells whether requests can be served, and if not, why.
func (a *App) readyz(c echo.Context) error {
	r := a.ready.check(c.Request().Context())
	status := http.StatusOK
	if !r.Ready {
		status = http.StatusServiceUnavailable
		c.Response().Header().Set(echo.HeaderRetryAfter, "1")
	}
	c.Response().Header().Set(echo.HeaderCacheControl, "no-store")
	return c.JSON(status, r)
}

// readiness asks the server over the connection that is open anyway, and at most once in askEvery: a probe that
// connects, or many probes, would add to the crowd that it is to warn of. That connection works also while no other
// can be had, so it asks as well how requests fare. A pool that has stalled is unready until a lease comes back.
type readiness struct {
	db       *db.DB
	server   *activity.Observer
	pooler   undeclared
	leases   *activity.ProcessMonitor
	stopping atomic.Bool
	mu       sync.Mutex
	asked    time.Time
	last     Ready
}

const (
	askEvery   = time.Second
	askTimeout = 2 * time.Second
	failsFor   = 3 * time.Second // so long a failed request speaks for the next: nobody may be sent to try
)

func (r *readiness) check(ctx context.Context) Ready {
	if r.stopping.Load() {
		return Ready{Detail: "The server is stopping.", stopping: true}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.asked) < askEvery {
		return r.last
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout) // the answer is for others too
	defer cancel()
	err := r.server.Do(ctx, func(c *pgx.Conn) error { return migrations.Check(ctx, c) })
	if at, failed := r.db.Failing(); err == nil && time.Since(at) < failsFor {
		err = failed
	}
	if now := r.leases.Now(); err == nil && now.Dry() {
		err = &db.ConnError{
			Cause: db.PoolTimeout, Waited: now.Stalled.Duration(), Size: now.Now.Size, Leases: now.Now.Leases, Waiting: now.Now.Waiting,
		}
	}
	r.last, r.asked = Ready{Ready: err == nil}, time.Now()
	r.last.Warning = r.pooler.look(ctx, r.server, r.db.Config())
	if err != nil {
		r.last.Cause, r.last.Detail = db.CauseOf(err), web.ProblemOf(err).Detail
	}
	if old, is := errors.AsType[*migrations.SchemaError](err); is { // the others' texts name hosts and users, for the log
		r.last.Detail = old.Error()
	}
	if closed, is := errors.AsType[*migrations.AccessError](err); is {
		r.last.Detail = closed.Error()
	}
	return r.last
}
