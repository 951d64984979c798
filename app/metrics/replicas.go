package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"ddtb/db"
)

// replicas reports the servers of declared reads. Without replicas there are no such metrics.
type replicas struct{ db *db.DB }

// FollowReplicas reports the replicas of d.
func (m *Metrics) FollowReplicas(d *db.DB) { m.registry.MustRegister(replicas{d}) }

func replicaDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, []string{"host"}, nil)
}

var (
	replicaUp     = replicaDesc("ddtb_replica_up", "1 if declared reads go to this replica, else 0.")
	replicaLag    = replicaDesc("ddtb_replica_lag_seconds", "Seconds the replica is behind the primary.")
	replicaReads  = replicaDesc("ddtb_replica_reads_total", "Declared reads that the replica answered.")
	replicaFailed = replicaDesc("ddtb_replica_failed_reads_total", "Declared reads that failed on the replica, and were sent to the primary.")
	replicaBehind = replicaDesc("ddtb_replica_behind_reads_total", "Declared reads that went to the primary because the replica had not replayed their visitor's write.")
	replicaConns  = replicaDesc("ddtb_replica_conns", "Connections to the replica, held or not.")
)

// Describe implements prometheus.Collector.
func (replicas) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{replicaUp, replicaLag, replicaReads, replicaFailed, replicaBehind, replicaConns} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (r replicas) Collect(out chan<- prometheus.Metric) {
	for _, s := range r.db.Replicas() {
		up := 0.0
		if s.Serves {
			up = 1
		}
		gauge := func(d *prometheus.Desc, v float64) {
			out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, s.Host)
		}
		counter := func(d *prometheus.Desc, n int64) {
			out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), s.Host)
		}
		gauge(replicaUp, up)
		gauge(replicaLag, s.Lag.Seconds())
		gauge(replicaConns, float64(s.Stat.Open()))
		counter(replicaReads, s.Reads)
		counter(replicaFailed, s.Failed)
		counter(replicaBehind, s.Behind)
	}
}
