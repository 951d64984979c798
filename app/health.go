package app

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
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

// healthz reports that the process responds. It does not query the database: restarting a process because the database
// is down prolongs the outage.
func (a *App) healthz(c echo.Context) error { return c.String(http.StatusOK, "ok\n") }

// Ready is the JSON of /readyz.
type Ready struct {
	Ready  bool     `json:"ready"`
	Cause  db.Cause `json:"cause,omitempty"`
	Detail string   `json:"detail,omitempty"`
	// ReadOnly reports that the database takes no changes. Pages that only read work, so the server stays ready.
	ReadOnly bool `json:"read_only,omitempty"`
	// Warning is a problem for the operator: a pooler that is not declared, a database that takes no changes, or a
	// full disk or the like that requests met in the last minute.
	Warning string `json:"warning,omitempty"`

	stopping bool
}

// readyz reports whether requests can be served, and if not, why.
func (a *App) readyz(c echo.Context) error {
	r := a.ready.check(c.Request().Context())
	r.Detail, r.Warning = a.o.Complete(r.Detail), a.o.Complete(r.Warning)
	status := http.StatusOK
	if !r.Ready {
		status = http.StatusServiceUnavailable
		c.Response().Header().Set(echo.HeaderRetryAfter, "1")
	}
	c.Response().Header().Set(echo.HeaderCacheControl, "no-store")
	return c.JSON(status, r)
}

// readiness queries the server over the open monitoring connection, at most once per askEvery. Probes that connect, or
// frequent probes, would add to the load that they report. That connection works even when no other can be opened, so
// readiness also checks how requests fare, and for a few seconds goes by that alone while another query has the connection. A
// stalled pool is unready until a lease is released.
type readiness struct {
	db       *db.DB
	monitor  *activity.Observer
	pooler   undeclared
	leases   *activity.ProcessMonitor
	stopping atomic.Bool
	refused  atomic.Pointer[refusal]
	mu       sync.Mutex
	asked    time.Time
	last     Ready
	served   time.Time // when the server was last found ready
	busy     time.Time // since when checks have found the connection in use; zero: the last one did not
}

const (
	askEvery   = time.Second
	askTimeout = 2 * time.Second
	failsFor   = 3 * time.Second // how long a failed request counts: a balancer may send no other to try
	warnsFor   = time.Minute     // how long a refusal that only a person can end is a warning
	busyFor    = 3 * time.Second // how long checks may find the monitoring connection in use, while no request fails
	outageFor  = 3 * time.Second // how long a failover may take, in which requests wait or are retried
)

// refusal is the database's answer to a request that only a person can end: a full disk, a missing table.
type refusal struct {
	at     time.Time
	detail string
}

// noteLastingRefusal remembers a failure that only a person can end. Other requests may succeed, so the server stays
// ready. A refusal for want of a connection is not noted: the next check finds its cause, and it may happen thousands of
// times a second.
func (r *readiness) noteLastingRefusal(err error) {
	if db.CauseOf(err) != "" {
		return
	}
	if p := web.ProblemOf(err); p.Status == http.StatusServiceUnavailable && p.RetryAfter == 0 && p.Cause == "" {
		r.refused.Store(&refusal{time.Now(), p.Detail})
	}
}

// refusal returns the last minute's refusal as a warning, or "".
func (r *readiness) refusal() string {
	last := r.refused.Load()
	if last == nil || time.Since(last.at) > warnsFor {
		return ""
	}
	return "A request failed in the last minute: " + last.detail
}

const onlyReads = "The database accepts no changes: it is a standby, or default_transaction_read_only is on. Read-only pages still work."

func (r *readiness) check(ctx context.Context) Ready {
	if r.stopping.Load() {
		return Ready{Detail: "The server is stopping.", stopping: true}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.asked) < askEvery {
		return r.last
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout) // other callers share the answer
	defer cancel()
	readOnly, err := r.ask(ctx)
	r.asked = time.Now()
	if err == nil {
		r.served = r.asked
	}
	r.last = Ready{Ready: err == nil || r.servesWithoutPrimary(err), ReadOnly: readOnly}
	warnings := []string{r.pooler.check(ctx, r.monitor, r.db.Config())}
	if readOnly {
		warnings = append(warnings, onlyReads)
	}
	r.last.Warning = strings.TrimSpace(strings.Join(append(warnings, r.refusal()), " "))
	if err != nil {
		r.last.Cause, r.last.Detail = db.CauseOf(err), detail(err)
	}
	return r.last
}

// ask returns why requests that need the database fail, and whether it takes no changes.
func (r *readiness) ask(ctx context.Context) (readOnly bool, err error) {
	began := time.Now()
	err = r.monitor.Read(ctx, func(c *pgx.Conn) (err error) {
		if time.Since(began) > askTimeout/2 { // a query that runs out of time loses the connection
			return activity.ErrBusy
		}
		if err := migrations.Check(ctx, c); err != nil {
			return err
		}
		readOnly, err = activity.ReadOnly(ctx, c)
		return err
	})
	if r.forgives(err) {
		readOnly, err = r.last.ReadOnly, nil
	}
	at, failed := r.db.Failing()
	now := r.leases.Now()
	switch {
	case err != nil:
		err = activity.Unanswered(err)
	case time.Since(at) < failsFor:
		err = failed
	case now.Dry():
		err = &db.ConnError{
			Cause: db.PoolTimeout, Waited: now.Stalled.Duration(), Size: now.Now.Size, Leases: now.Now.Leases, Waiting: now.Now.Waiting,
		}
	}
	return readOnly, err
}

// forgives reports whether the check failed only because another query has the connection, and has not had it for long. The
// check before must have succeeded.
func (r *readiness) forgives(err error) bool {
	switch {
	case !errors.Is(err, activity.ErrBusy):
		r.busy = time.Time{}
		return false
	case r.busy.IsZero():
		r.busy = time.Now()
	}
	return r.last.Ready && r.last.Cause == "" && time.Since(r.busy) < busyFor
}

// detail returns the text of an error for the public. Errors about the tables are quoted. Others contain hosts and users,
// for the log only.
func detail(err error) string {
	if p, is := errors.AsType[*migrations.Problem](err); is {
		return p.Error()
	}
	return web.ProblemOf(err).Detail
}

// servesWithoutPrimary reports whether requests can be served although the primary is lost: a replica serves reads, or a
// failover to another host is expected. If all processes called themselves unready at once, a balancer would refuse every
// request.
func (r *readiness) servesWithoutPrimary(err error) bool {
	switch db.CauseOf(err) {
	case db.ServerUnavailable, db.NoSuitableServer, db.CircuitOpen:
	default:
		return false
	}
	failover := len(r.db.Config().Hosts.List()) > 1 && time.Since(r.served) < outageFor
	return failover || slices.ContainsFunc(r.db.Replicas(), func(s db.ReplicaStat) bool { return s.Serves })
}
