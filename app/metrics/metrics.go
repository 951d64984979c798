// Package metrics exports metrics for Prometheus: the waits for a lease, the causes of failed acquires, the use of the
// server's slots, and the responses to requests.
//
// What callers can rely on:
//
//   - A scrape makes no query: the server's figures are the sampler's last snapshot. /metrics works while every slot is
//     taken, and a hundred scrapers cost the server as much as one.
//   - The number of series is bounded: no label contains a client's text. Routes are patterns, methods are the known
//     ones, causes are those of package report, and applications are the 20 with the most sessions.
//   - A counter never decreases while the process runs, also when the strategy changes.
//   - No secret is exported. Names of applications are: restrict access to /metrics if they are confidential.
//
// Names that begin with pgxpool are those of github.com/IBM/pgxpoolprometheus, as far as the strategies have such
// figures, so that existing dashboards work.
//
// The package does not depend on pages or configuration files.
package metrics

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus" // provides the format, and histograms without locks
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"ddtb/app/report"
)

// Metrics are the metrics of one application.
type Metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	took     *prometheus.HistogramVec
	failures *prometheus.CounterVec
	acquires *Acquires
}

// New creates the metrics. version is the application's.
func New(version string) *Metrics {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	register := promauto.With(registry)
	m := &Metrics{
		registry: registry,
		acquires: newAcquires(registry),
		requests: register.NewCounterVec(prometheus.CounterOpts{
			Name: "http_requests_total", Help: "Requests that were answered; code 499 is a client that went away before.",
		}, []string{"route", "method", "code"}),
		took: register.NewHistogramVec(prometheus.HistogramOpts{
			Name: "http_request_duration_seconds", Help: "How long the answers took, the wait for a lease included.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"route", "method"}),
		failures: register.NewCounterVec(prometheus.CounterOpts{
			Name: "ddtb_failures_total", Help: "Requests that failed here, by cause.",
		}, []string{"cause"}),
	}
	for _, c := range report.Causes() {
		m.failures.WithLabelValues(c)
	}
	register.NewGauge(prometheus.GaugeOpts{
		Name: "ddtb_build_info", Help: "1, with the versions of the application and of Go.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	}).Set(1)
	return m
}

// Failed counts a request that failed with err.
func (m *Metrics) Failed(err error) { m.failures.WithLabelValues(report.CauseOf(err)).Inc() }

// FollowReports reports the number of mails and events that r sends.
func (m *Metrics) FollowReports(r *report.Reporter) {
	count := func(name, help string, labels prometheus.Labels, of func(report.Stat) int64) {
		promauto.With(m.registry).NewCounterFunc(
			prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels},
			func() float64 { return float64(of(r.Stat())) },
		)
	}
	const mails = "Mails about failures, by what became of them."
	count("ddtb_mails_total", mails, prometheus.Labels{"outcome": "sent"}, func(s report.Stat) int64 { return s.MailsSent })
	count("ddtb_mails_total", mails, prometheus.Labels{"outcome": "failed"}, func(s report.Stat) int64 { return s.MailsFailed })
	count("ddtb_sentry_events_total", "Events about failures that were handed to Sentry's queue.", nil,
		func(s report.Stat) int64 { return s.Events })
	count("ddtb_suppressed_notices_total", "Failures that the limit on mails and events left to be counted in a later notice.", nil,
		func(s report.Stat) int64 { return s.Suppressed })
}
