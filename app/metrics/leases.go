package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"ddtb/db"
)

// leases reports the state of the leases. Its gauges are of the current strategy only; its counters are of all
// strategies used so far, by name.
type leases struct{ db *db.DB }

// FollowLeases reports the state of d's leases.
func (m *Metrics) FollowLeases(d *db.DB) { m.registry.MustRegister(leases{d}) }

// leaseMetric is one metric from a Stat.
type leaseMetric struct {
	desc *prometheus.Desc
	of   func(*db.Stat) float64
}

func leaseMetricOf(name, help string, of func(*db.Stat) float64) leaseMetric {
	return leaseMetric{prometheus.NewDesc(name, help, []string{"strategy"}, nil), of}
}

var (
	maxConns = prometheus.NewDesc("pgxpool_max_conns", "At most so many leases at once; absent where there is no bound.", []string{"strategy"}, nil)

	leaseGauges = []leaseMetric{
		leaseMetricOf("pgxpool_acquired_conns", "Leases that are out, or being connected.", func(s *db.Stat) float64 { return float64(s.Leases) }),
		leaseMetricOf("pgxpool_constructing_conns", "Attempts to connect that are under way.", func(s *db.Stat) float64 { return float64(s.Connecting) }),
		leaseMetricOf("pgxpool_idle_conns", "Connections kept that nobody holds.", func(s *db.Stat) float64 { return float64(s.Idle) }),
		leaseMetricOf("pgxpool_total_conns", "Connections, held or not.", func(s *db.Stat) float64 { return float64(s.Open()) }),
		leaseMetricOf("ddtb_shared_conns", "Connections that all reads share, under the strategy multiplex.", func(s *db.Stat) float64 { return float64(s.Shared) }),
		leaseMetricOf("ddtb_reads_in_flight", "Reads sent down them and not yet answered.", func(s *db.Stat) float64 { return float64(s.InFlight) }),
		leaseMetricOf("ddtb_budget", "Connections that all processes may have together; 0 unless pool.max_size is auto.", func(s *db.Stat) float64 { return float64(s.Budget) }),
		leaseMetricOf("ddtb_budget_tickets_own", "Of the budget, those of this process.", func(s *db.Stat) float64 { return float64(s.Tickets) }),
		leaseMetricOf("ddtb_budget_tickets_others", "Of the budget, those of the other processes.", func(s *db.Stat) float64 { return float64(s.TicketsOthers) }),
		leaseMetricOf("ddtb_budget_tickets_free", "Of the budget, those that nobody has.", func(s *db.Stat) float64 { return float64(s.TicketsFree) }),
		leaseMetricOf("ddtb_waiting_requests", "Requests that wait for a lease.", func(s *db.Stat) float64 { return float64(s.Waiting) }),
		leaseMetricOf("ddtb_oldest_wait_seconds", "How long the first of them has waited.", func(s *db.Stat) float64 { return s.OldestWait.Seconds() }),
	}
	leaseCounters = []leaseMetric{
		leaseMetricOf("pgxpool_empty_acquire", "Leases that had to be waited for.", func(s *db.Stat) float64 { return float64(s.Waited) }),
		leaseMetricOf("pgxpool_empty_acquire_wait_time_ns", "Nanoseconds that they were waited for.", func(s *db.Stat) float64 { return float64(s.WaitTotal) }),
		leaseMetricOf("pgxpool_new_conns_count", "Connections that were made.", func(s *db.Stat) float64 { return float64(s.Connected) }),
		leaseMetricOf("pgxpool_max_lifetime_destroy_count", "Connections of a pool that were closed after max_lifetime.", func(s *db.Stat) float64 { return float64(s.AgedOut) }),
		leaseMetricOf("pgxpool_max_idle_destroy_count", "Connections of a pool that were closed after max_idle.", func(s *db.Stat) float64 { return float64(s.IdledOut) }),
		leaseMetricOf("ddtb_shared_reads_total", "Reads that needed no lease.", func(s *db.Stat) float64 { return float64(s.Reads) }),
		leaseMetricOf("ddtb_refused_requests_total", "Requests that would have waited too long for a lease, and were refused at once.", func(s *db.Stat) float64 { return float64(s.Refused) }),
		leaseMetricOf("ddtb_connects_total", "Attempts to connect, those that failed too.", func(s *db.Stat) float64 { return float64(s.Connects) }),
		leaseMetricOf("ddtb_leaked_leases_total", "Leases that were out for longer than leak_after.", func(s *db.Stat) float64 { return float64(s.Leaked) }),
		leaseMetricOf("ddtb_reclaimed_leases_total", "Leases that were taken back after reclaim_after.", func(s *db.Stat) float64 { return float64(s.Reclaimed) }),
		leaseMetricOf("ddtb_nested_leases_total", "Leases asked for by a request that held one already.", func(s *db.Stat) float64 { return float64(s.Nested) }),
	}
)

// Describe implements prometheus.Collector.
func (l leases) Describe(out chan<- *prometheus.Desc) {
	out <- maxConns
	for _, m := range leaseGauges {
		out <- m.desc
	}
	for _, m := range leaseCounters {
		out <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (l leases) Collect(out chan<- prometheus.Metric) {
	now := l.db.Stat()
	if now.Size > 0 {
		out <- prometheus.MustNewConstMetric(maxConns, prometheus.GaugeValue, float64(now.Size), now.Strategy)
	}
	for _, m := range leaseGauges {
		out <- prometheus.MustNewConstMetric(m.desc, prometheus.GaugeValue, m.of(&now), now.Strategy)
	}
	totals := l.db.Totals()
	for _, strategy := range db.Names() {
		total := totals[strategy]
		for _, m := range leaseCounters {
			out <- prometheus.MustNewConstMetric(m.desc, prometheus.CounterValue, m.of(&total), strategy)
		}
	}
}
