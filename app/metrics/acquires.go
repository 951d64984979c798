package metrics

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"ddtb/app/report"
	"ddtb/db"
)

// gaveUp is the cause of an acquire whose caller canceled it.
const gaveUp = "gave up"

// Acquires counts and times the acquires of the strategies. Its Ended is for db.Options.OnAcquire.
type Acquires struct {
	took     *waitsVec
	failed   *prometheus.CounterVec
	count    *prometheus.CounterVec
	duration *prometheus.CounterVec
	canceled *prometheus.CounterVec
}

func newAcquires(registry *prometheus.Registry) *Acquires {
	register := promauto.With(registry)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return register.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append([]string{"strategy"}, labels...))
	}
	a := &Acquires{
		took: newWaitsVec("ddtb_acquire_seconds",
			"How long it took until a lease was given or refused: the queue, and connecting where that was needed."),
		failed:   counter("ddtb_acquire_failures_total", "Leases that were asked for and not given, by cause.", "cause"),
		count:    counter("pgxpool_acquire_count", "Leases that were given."),
		duration: counter("pgxpool_acquire_duration_ns", "Nanoseconds that the leases which were given took."),
		canceled: counter("pgxpool_canceled_acquire_count", "Leases whose caller went away or had no more time."),
	}
	registry.MustRegister(a.took)
	for _, s := range db.Names() {
		a.begin(s)
	}
	return a
}

// begin starts a strategy's series at 0.
func (a *Acquires) begin(strategy string) {
	a.took.with(strategy)
	for _, vec := range []*prometheus.CounterVec{a.count, a.duration, a.canceled} {
		vec.WithLabelValues(strategy)
	}
	for _, cause := range []string{gaveUp, report.InternalError} {
		a.failed.WithLabelValues(strategy, cause)
	}
	for _, c := range db.Causes {
		a.failed.WithLabelValues(strategy, string(c.Cause))
	}
}

// Acquires returns the counters for the database's acquires.
func (m *Metrics) Acquires() *Acquires { return m.acquires }

// Waits returns the waits for a lease of a strategy that have ended since New: successful or not, immediate or not.
func (a *Acquires) Waits(strategy string) Waits { return a.took.with(strategy).now() }

// Ended counts an acquire of a strategy when it succeeded or failed.
func (a *Acquires) Ended(strategy string, took time.Duration, err error) {
	a.took.with(strategy).add(took)
	if err == nil {
		a.count.WithLabelValues(strategy).Inc()
		a.duration.WithLabelValues(strategy).Add(float64(took))
		return
	}
	cause := causeOf(err)
	a.failed.WithLabelValues(strategy, cause).Inc()
	if cause == gaveUp || cause == string(db.PoolTimeout) {
		a.canceled.WithLabelValues(strategy).Inc()
	}
}

func causeOf(err error) string {
	switch cause := string(db.CauseOf(err)); {
	case cause != "":
		return cause
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return gaveUp
	}
	return report.InternalError
}
