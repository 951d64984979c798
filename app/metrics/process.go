package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"ddtb/db/activity"
)

// process reports the verdict on this process's leases.
type process struct{ now func() activity.Process }

// FollowProcess reports problems of the leases of the process that now describes.
func (m *Metrics) FollowProcess(now func() activity.Process) { m.registry.MustRegister(process{now}) }

var (
	findingLevel = prometheus.NewDesc("ddtb_finding_level",
		"What is wrong with the leases of this process, by finding: 0 nothing, 1 warning, 2 critical.", []string{"finding"}, nil)
	stalledFor = prometheus.NewDesc("ddtb_pool_stalled_seconds",
		"How long every lease has been out and none was given; 0 when not so.", nil, nil)
)

// Describe implements prometheus.Collector.
func (p process) Describe(out chan<- *prometheus.Desc) {
	out <- findingLevel
	out <- stalledFor
}

// Collect implements prometheus.Collector.
func (p process) Collect(out chan<- prometheus.Metric) {
	now := p.now()
	levels := map[string]activity.Level{}
	for _, f := range now.Findings() {
		levels[f.Code] = f.Level
	}
	for _, code := range activity.ProcessCodes {
		gauge(out, findingLevel, float64(levels[code]), code)
	}
	gauge(out, stalledFor, now.Stalled.Duration().Seconds())
}
