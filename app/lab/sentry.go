package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/getsentry/sentry-go"
	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/labstack/echo/v4"

	"ddtb/app/report"
	"ddtb/app/report/envelope"
	"ddtb/config"
	"ddtb/db"
)

// Sentry is the response of /test/sentry-db-interaction.
type Sentry struct {
	Test             string    `json:"test"`
	Strategy         string    `json:"strategy"`
	Settings         Settings  `json:"settings"`
	Private          bool      `json:"private"`   // on an instance of its own, beside the application's
	Hook             string    `json:"hook"`      // none or queries
	Transport        string    `json:"transport"` // async or sync
	SentTo           string    `json:"sent_to"`
	Steps            []Capture `json:"steps"`
	ConnectionsTaken int64     `json:"connections_taken_by_captures"`
	NestedAcquires   int64     `json:"nested_acquires"`          // leases asked for by a request that held one, as package db noticed
	Nested           []Nesting `json:"nested"`                   // from which lines
	DeliveryError    string    `json:"delivery_error,omitempty"` // not all events arrived
	Explanation      string    `json:"explanation"`
	Error            string    `json:"error,omitempty"` // the first of the steps'
}

// Nesting is a request that held a lease and asked for another, with its lines of code.
type Nesting struct {
	First  string `json:"first"`  // got the lease that is held
	Second string `json:"second"` // asks for another
}

// Capture is one of its steps.
type Capture struct {
	Step             string  `json:"step"`
	HoldsLease       bool    `json:"holds_lease"`
	TookMS           float64 `json:"took_ms"`
	LeaseHeldMS      float64 `json:"lease_held_ms"`
	ConnectionsTaken int64   `json:"connections_taken"` // leases given out during the capture
	EventID          string  `json:"event_id"`
	Error            string  `json:"error"`
}

const (
	hookQueries   = "queries"
	transportSync = "sync"

	mostSize = 3 // leases of a private instance: small enough to deadlock
)

// sentryInteraction captures events while a lease is held, in a transaction and after a failed query, and counts the
// leases that each capture acquires: none, unless hook=queries makes the event hook query the database. transport=sync
// makes each capture wait for Sentry. Both use a private instance.
func (l *Lab) sentryInteraction(c echo.Context) error {
	limits, cfg := *l.limits.Load(), l.db.Config()
	run, err := readSentry(c, limits, &cfg)
	if err != nil {
		return err
	}
	var end func()
	if run.db, end, err = l.begin(run.answer.Private, cfg, run.nested); err != nil {
		return err
	}
	defer end()
	ctx, cancel := context.WithTimeout(c.Request().Context(), limits.MaxHold)
	defer cancel()
	if err := run.all(ctx, l.sentry, cfg.Password); err != nil {
		return err
	}
	status := http.StatusOK
	if run.answer.Error != "" { // as in the report that the endpoint is based on: there the exception ends the request
		status = http.StatusInternalServerError
	}
	return answer(c, status, run.answer, run.answer.page)
}

// sentryRun is one run of the three steps.
type sentryRun struct {
	timeout  time.Duration // of the hook's wait, if the strategy has none; else 0
	patience time.Duration // timeout of a request to Sentry
	standIn  bool          // delay was given: use a stand-in for Sentry

	db      *db.DB
	since   time.Time // when the step acquired its lease
	client  *report.SentryClient
	sink    *envelope.Sink // the stand-in; nil: events go to the configured Sentry
	hookErr error          // of the current capture: the hook runs in its goroutine
	locked  int            // captures whose wait timed out while their own request held a lease
	answer  *Sentry
}

// readSentry reads the parameters. It changes cfg for a private instance, with one lease by default, if a capture may
// be slow or acquire a lease. The two captures that may wait for a lease end within max_hold.
func readSentry(c echo.Context, limits config.Test, cfg *config.Database) (*sentryRun, error) {
	q := newQuery(c)
	a := &Sentry{
		Test: "sentry-db-interaction", Hook: q.choice("hook", "none", "none", hookQueries),
		Transport: q.choice("transport", "async", "async", transportSync), Steps: []Capture{}, Nested: []Nesting{},
	}
	share, delay := limits.MaxHold/3, time.Duration(0)
	if a.Transport == transportSync {
		delay = min(time.Second, share)
	}
	if (a.Hook == hookQueries || a.Transport == transportSync || q.values.Has("timeout")) && !q.values.Has("max_size") {
		q.values.Set("max_size", "1")
	}
	a.Private = q.private(cfg, mostSize)
	timeout := q.duration("timeout", min(cmp.Or(timeoutOf(*cfg), 10*time.Second), share), time.Millisecond, share)
	if a.Private {
		setOwn(cfg, specOf(cfg).TimeoutKey, timeout.String())
	}
	if timeoutOf(*cfg) > 0 {
		timeout = 0
	}
	a.Strategy, a.Settings = cfg.Strategy, SettingsOf(*cfg)
	return &sentryRun{
		timeout: timeout, patience: min(sentryPatience, share), standIn: q.values.Has("delay"),
		sink: &envelope.Sink{Delay: q.duration("delay", delay, 0, limits.MaxHold)}, answer: a,
	}, q.end()
}

// all runs the steps. Afterwards, with no lease held, it waits until the events are sent.
func (r *sentryRun) all(ctx context.Context, to config.Sentry, password config.Secret) error {
	dsn, closeSink, err := r.destination(ctx, to)
	if err != nil {
		return err
	}
	defer closeSink()
	to.DSN, to.Spotlight, to.TracesSampleRate = dsn, false, 0
	if r.client, err = report.NewSentryClient(to, r.options, password); err != nil {
		return err
	}
	nested := r.db.Stat().Nested
	r.steps(ctx)
	r.answer.NestedAcquires = max(r.db.Stat().Nested-nested, 0)
	r.answer.Explanation = r.explain()
	ctx, cancel := context.WithTimeout(ctx, sentryPatience)
	defer cancel()
	err = r.client.Close(ctx)
	if r.sink != nil { // it counts; a synchronous client does not report lost events
		err = r.lost(len(r.sink.Items("event")))
	}
	if err != nil {
		r.answer.DeliveryError = err.Error()
	}
	return nil
}

// options sets how the client sends. BeforeSend runs in the capturing goroutine and with the capture's context.
func (r *sentryRun) options(o *sentry.ClientOptions) {
	o.HTTPClient.Timeout = r.patience
	if r.answer.Transport == transportSync {
		o.Transport = sentry.NewHTTPSyncTransport()
	}
	if clean := o.BeforeSend; r.answer.Hook == hookQueries {
		o.BeforeSend = func(e *sentry.Event, hint *sentry.EventHint) *sentry.Event {
			r.hookErr = r.query(hint.Context)
			return clean(e, hint)
		}
	}
}

func (r *sentryRun) lost(arrived int) error {
	sent := 0
	for _, s := range r.answer.Steps {
		if s.EventID != "" {
			sent++
		}
	}
	if arrived == sent {
		return nil
	}
	return fmt.Errorf("%d of %d events arrived: the client waits for %v at most", arrived, sent, r.patience)
}

// steps stops early when a step gets no connection or the time is up: the others would fare the same.
func (r *sentryRun) steps(ctx context.Context) {
	for _, s := range []struct {
		name string
		do   func(context.Context, *Capture) error
	}{
		{"capture while a lease is held", r.whileHolding},
		{"capture in a transaction", r.inTransaction},
		{"capture after a failed query", r.afterFailure},
	} {
		step := Capture{Step: s.name}
		err := s.do(ctx, &step)
		if err != nil {
			step.Error = err.Error()
		}
		r.answer.Steps = append(r.answer.Steps, step)
		r.answer.ConnectionsTaken += step.ConnectionsTaken
		if r.answer.Error == "" {
			r.answer.Error = step.Error
		}
		if err != nil || ctx.Err() != nil {
			return
		}
	}
}

// whileHolding captures while the rows of a query are open and hold their lease.
func (r *sentryRun) whileHolding(ctx context.Context, step *Capture) error {
	return r.holding(ctx, step, func(ctx context.Context) error {
		rows, err := r.db.Query(ctx, "SELECT 1")
		if err != nil {
			return err
		}
		r.since = time.Now()
		defer rows.Close()
		r.capture(ctx, step, errors.New("captured while a lease is held, on purpose"))
		return nil
	})
}

func (r *sentryRun) inTransaction(ctx context.Context, step *Capture) error {
	return r.holding(ctx, step, func(ctx context.Context) error {
		return r.db.InTx(ctx, func(q db.Querier) error {
			r.since = time.Now()
			if _, err := q.Exec(ctx, "SELECT 1"); err != nil {
				return err
			}
			r.capture(ctx, step, errors.New("captured in a transaction, on purpose"))
			return nil
		})
	})
}

// afterFailure captures after the lease was released: the recommended way.
func (r *sentryRun) afterFailure(ctx context.Context, step *Capture) error {
	var failure error
	err := r.holding(ctx, step, func(ctx context.Context) error {
		r.since = time.Now()
		_, failure = r.db.Exec(ctx, "SELECT 1/0")
		if pe, ok := errors.AsType[*pgconn.PgError](failure); ok && pe.Code == pgerrcode.DivisionByZero {
			return nil
		}
		return failure
	})
	if err != nil {
		return err
	}
	step.HoldsLease = false
	r.capture(ctx, step, fmt.Errorf("a query failed on purpose: %w", failure))
	return nil
}

// holding runs fn as a separate request, and records how long its lease was held.
func (r *sentryRun) holding(ctx context.Context, step *Capture, fn func(context.Context) error) error {
	ctx, end := r.db.Begin(ctx)
	step.HoldsLease = true
	err := fn(ctx)
	end()
	if err == nil {
		step.LeaseHeldMS = milliseconds(time.Since(r.since))
	}
	return err
}

// capture sends err. An error in the hook becomes the step's error.
func (r *sentryRun) capture(ctx context.Context, step *Capture, err error) {
	r.hookErr = nil
	before, began := r.db.Stat().Acquired, time.Now()
	step.EventID = r.client.Capture(ctx, err, map[string]string{"test": "sentry-db-interaction"})
	step.TookMS = milliseconds(time.Since(began))
	step.ConnectionsTaken = max(r.db.Stat().Acquired-before, 0) // negative if the live strategy was switched meanwhile
	if r.hookErr != nil {
		step.Error = r.hookErr.Error()
	}
	if step.HoldsLease && db.CauseOf(r.hookErr) == db.PoolTimeout {
		r.locked++
	}
}

// query is the hook. It queries with the capturing code's context, like code that is unaware of it. If the strategy
// leases per query, this asks for a second lease, which package db detects. If the request keeps its connection, that
// one is in use, and the hook acquires another, like code with its own pool.
func (r *sentryRun) query(ctx context.Context) error {
	if r.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.timeout)
		defer cancel()
	}
	cfg := r.db.Config()
	if spec, _ := db.Lookup(cfg.Strategy); !spec.HoldsForRequest(cfg) {
		_, err := r.db.Exec(ctx, "SELECT 1")
		return err
	}
	lease, err := r.db.Acquire(ctx)
	if err != nil {
		return err
	}
	defer lease.Release()
	_, err = lease.Conn().Exec(ctx, "SELECT 1")
	return err
}

// nested records a nested lease. Only the run's own goroutine asks for one.
func (r *sentryRun) nested(first, second string) {
	r.answer.Nested = append(r.answer.Nested, Nesting{first, second})
}
