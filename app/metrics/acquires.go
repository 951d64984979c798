package metrics

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

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
	of       map[string]*acquiresOf
}

// acquiresOf are the metrics of one strategy, looked up before the requests.
type acquiresOf struct {
	took                      *waits
	failed                    map[string]prometheus.Counter
	count, duration, canceled prometheus.Counter
}

func newAcquires() *Acquires {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append([]string{"strategy"}, labels...))
	}
	a := &Acquires{
		took: newWaitsVec("ddtb_acquire_seconds",
			"How long it took until a lease was given or refused: the queue, and connecting where that was needed."),
		failed:   counter("ddtb_acquire_failures_total", "Leases that were asked for and not given, by cause.", "cause"),
		count:    counter("pgxpool_acquire_count", "Leases that were given."),
		duration: counter("pgxpool_acquire_duration_ns", "Nanoseconds that the leases which were given took."),
		canceled: counter("pgxpool_canceled_acquire_count", "Leases whose caller went away or had no more time."),
		of:       map[string]*acquiresOf{},
	}
	for _, s := range db.Names() {
		a.of[s] = a.figures(s)
	}
	return a
}

// figures returns a strategy's metrics, starting at 0 for a new one.
func (a *Acquires) figures(strategy string) *acquiresOf {
	of := &acquiresOf{
		took: a.took.with(strategy), failed: map[string]prometheus.Counter{}, count: a.count.WithLabelValues(strategy),
		duration: a.duration.WithLabelValues(strategy), canceled: a.canceled.WithLabelValues(strategy),
	}
	for _, c := range db.Causes {
		of.failed[string(c.Cause)] = a.failed.WithLabelValues(strategy, string(c.Cause))
	}
	for _, cause := range []string{gaveUp, report.InternalError} {
		of.failed[cause] = a.failed.WithLabelValues(strategy, cause)
	}
	return of
}

func (a *Acquires) collectors() []prometheus.Collector {
	return []prometheus.Collector{a.took, a.failed, a.count, a.duration, a.canceled}
}

// Acquires returns the counters for the database's acquires.
func (m *Metrics) Acquires() *Acquires { return m.acquires }

// Waits returns the waits for a lease of a strategy that have ended since New: successful or not, immediate or not.
func (a *Acquires) Waits(strategy string) Waits { return a.took.with(strategy).now() }

// Ended counts an acquire of a strategy when it succeeded or failed.
func (a *Acquires) Ended(strategy string, took time.Duration, err error) {
	of := a.of[strategy]
	if of == nil { // registered later: slower, but counted
		of = a.figures(strategy)
	}
	of.ended(took, err)
}

func (of *acquiresOf) ended(took time.Duration, err error) {
	of.took.add(took)
	if err == nil {
		of.count.Inc()
		of.duration.Add(float64(took))
		return
	}
	cause := causeOf(err)
	failed, known := of.failed[cause]
	if !known {
		failed = of.failed[report.InternalError]
	}
	failed.Inc()
	if cause == gaveUp || cause == string(db.PoolTimeout) {
		of.canceled.Inc()
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
