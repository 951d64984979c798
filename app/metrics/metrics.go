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
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus" // provides the format, and histograms without locks
	"github.com/prometheus/client_golang/prometheus/collectors"

	"ddtb/app/report"
)

// Metrics are the metrics of one application.
type Metrics struct {
	registry *prometheus.Registry
	requests *requests
	acquires *Acquires
	failures *prometheus.CounterVec
}

// New creates the metrics. version is the application's.
func New(version string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: newRequests(), acquires: newAcquires(),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ddtb_failures_total", Help: "Requests that failed here, by cause.",
		}, []string{"cause"}),
	}
	for _, c := range report.Causes() {
		m.failures.WithLabelValues(c)
	}
	m.registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		buildInfo(version), m.failures,
	)
	m.registry.MustRegister(m.requests.collectors()...)
	m.registry.MustRegister(m.acquires.collectors()...)
	return m
}

func buildInfo(version string) prometheus.Collector {
	labels := prometheus.Labels{"version": version, "goversion": "unknown"}
	if info, ok := debug.ReadBuildInfo(); ok {
		labels["goversion"] = info.GoVersion
	}
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "ddtb_build_info", Help: "1, with the versions of the application and of Go.", ConstLabels: labels,
	})
	g.Set(1)
	return g
}

// Failed counts a request that failed with err.
func (m *Metrics) Failed(err error) { m.failures.WithLabelValues(report.CauseOf(err)).Inc() }

// FollowReports reports the number of mails and events that r sends.
func (m *Metrics) FollowReports(r *report.Reporter) {
	count := func(name, help string, labels prometheus.Labels, of func(report.Stat) int64) {
		m.registry.MustRegister(prometheus.NewCounterFunc(
			prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels},
			func() float64 { return float64(of(r.Stat())) },
		))
	}
	const mails = "Mails about failures, by what became of them."
	count("ddtb_mails_total", mails, prometheus.Labels{"outcome": "sent"}, func(s report.Stat) int64 { return s.MailsSent })
	count("ddtb_mails_total", mails, prometheus.Labels{"outcome": "failed"}, func(s report.Stat) int64 { return s.MailsFailed })
	count("ddtb_sentry_events_total", "Events about failures that were handed to Sentry's queue.", nil,
		func(s report.Stat) int64 { return s.Events })
	count("ddtb_suppressed_notices_total", "Failures that the limit on mails and events left to be counted in a later notice.", nil,
		func(s report.Stat) int64 { return s.Suppressed })
}
