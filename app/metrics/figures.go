package metrics

import (
	"math"

	"github.com/prometheus/client_golang/prometheus"

	"ddtb/db"
	"ddtb/db/activity"
)

// collector is a prometheus.Collector of figures that it takes when it is scraped. It does not declare them: a figure
// may be unknown, and a replica or an application may come and go.
type collector func(out chan<- prometheus.Metric)

// Describe implements prometheus.Collector.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) { c(out) }

// send sends the figures of s.
func send[S any](out chan<- prometheus.Metric, figures []db.Figure[S], s *S, labels prometheus.Labels) {
	for _, f := range figures {
		sendOne(out, f, s, labels)
	}
}

// sendOne sends a figure of s, if it is exported and known.
func sendOne[S any](out chan<- prometheus.Metric, f db.Figure[S], s *S, labels prometheus.Labels) {
	value, kind := f.Value(s), prometheus.GaugeValue
	if f.Counter != nil {
		kind = prometheus.CounterValue
	}
	if f.Name != "" && !math.IsNaN(value) {
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc(f.Name, f.Help, nil, labels), kind, value)
	}
}

// sendEach sends one gauge for each value of a label.
func sendEach(out chan<- prometheus.Metric, name, help, label string, values map[string]int) {
	desc := prometheus.NewDesc(name, help, []string{label}, nil)
	for of, n := range values {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(n), of)
	}
}

// FollowDB reports the state of d's leases, and of the replicas that serve its reads. The gauges of leases are of the
// current strategy only; the counters are of all strategies used so far, by name.
func (m *Metrics) FollowDB(d *db.DB) {
	m.registry.MustRegister(collector(func(out chan<- prometheus.Metric) {
		now, totals := d.Stat(), d.Totals()
		for _, f := range db.Figures {
			if f.Counter == nil {
				sendOne(out, f, &now, prometheus.Labels{"strategy": now.Strategy})
				continue
			}
			for _, strategy := range db.Names() {
				total := totals[strategy]
				sendOne(out, f, &total, prometheus.Labels{"strategy": strategy})
			}
		}
		for _, r := range d.Replicas() {
			send(out, db.ReplicaFigures, &r, prometheus.Labels{"host": r.Host})
		}
	}))
}

var processFigures = []db.Figure[activity.Process]{
	{Name: "ddtb_pool_stalled_seconds", Help: "How long every lease has been out and none was given; 0 when not so.", Gauge: func(p *activity.Process) float64 { return p.Stalled.Duration().Seconds() }},
}

// FollowProcess reports problems of the leases of the process that now describes.
func (m *Metrics) FollowProcess(now func() activity.Process) {
	m.registry.MustRegister(collector(func(out chan<- prometheus.Metric) {
		p, levels := now(), map[string]int{}
		for _, code := range activity.ProcessCodes {
			levels[code] = 0
		}
		for _, f := range p.Findings() {
			levels[f.Code] = int(f.Level)
		}
		send(out, processFigures, &p, nil)
		sendEach(out, "ddtb_finding_level", "What is wrong with the leases of this process, by finding: 0 nothing, 1 warning, 2 critical.", "finding", levels)
	}))
}
