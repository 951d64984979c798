package metrics

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"ddtb/db"
)

// leases tells how the strategy in force stands. Its gauges are of that one alone; its counters add up what all
// strategies counted, by name.
type leases struct {
	db *db.DB

	mu   sync.Mutex
	last db.Stat             // the newest that was added
	sums map[string]*db.Stat // by strategy; counters only
}

// FollowLeases tells how d's strategy stands. CountLeases is to be called before and after each switch.
func (m *Metrics) FollowLeases(d *db.DB) {
	m.leases = &leases{db: d, sums: map[string]*db.Stat{}}
	for _, s := range strategies {
		m.leases.sums[s] = &db.Stat{}
	}
	m.registry.MustRegister(m.leases)
}

// CountLeases adds what the strategy in force counted since the last time. What one that was replaced counts
// afterwards, with the requests that finish on it, is not seen.
func (m *Metrics) CountLeases() { m.leases.count() }

func (l *leases) count() db.Stat {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.db.Stat() // under the lock, else an older one could be added after a newer one
	l.add(now)
	return now
}

// add takes counters that went back for those of a strategy that has just begun.
func (l *leases) add(now db.Stat) {
	if now.Strategy != l.last.Strategy || now.Acquired < l.last.Acquired || now.Connects < l.last.Connects {
		l.last = db.Stat{}
	}
	sum := l.sums[now.Strategy]
	if sum == nil {
		sum = &db.Stat{}
		l.sums[now.Strategy] = sum
	}
	sum.Waited += max(0, now.Waited-l.last.Waited)
	sum.WaitTotal += max(0, now.WaitTotal-l.last.WaitTotal)
	sum.Leaked += max(0, now.Leaked-l.last.Leaked)
	sum.Reclaimed += max(0, now.Reclaimed-l.last.Reclaimed)
	sum.Nested += max(0, now.Nested-l.last.Nested)
	sum.Connects += max(0, now.Connects-l.last.Connects)
	sum.Connected += max(0, now.Connected-l.last.Connected)
	l.last = now
}

// leaseMetric is one figure of a Stat.
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
		leaseMetricOf("pgxpool_idle_conns", "Connections kept that nobody holds.", func(s *db.Stat) float64 { return float64(s.Idle) }),
		leaseMetricOf("pgxpool_total_conns", "Connections, held or not.", func(s *db.Stat) float64 { return float64(s.Open()) }),
		leaseMetricOf("ddtb_waiting_requests", "Requests that wait for a lease.", func(s *db.Stat) float64 { return float64(s.Waiting) }),
		leaseMetricOf("ddtb_oldest_wait_seconds", "How long the first of them has waited.", func(s *db.Stat) float64 { return s.OldestWait.Seconds() }),
	}
	leaseCounters = []leaseMetric{
		leaseMetricOf("pgxpool_empty_acquire", "Leases that had to be waited for.", func(s *db.Stat) float64 { return float64(s.Waited) }),
		leaseMetricOf("pgxpool_empty_acquire_wait_time_ns", "Nanoseconds that they were waited for.", func(s *db.Stat) float64 { return float64(s.WaitTotal) }),
		leaseMetricOf("pgxpool_new_conns_count", "Connections that were made.", func(s *db.Stat) float64 { return float64(s.Connected) }),
		leaseMetricOf("ddtb_connects_total", "Attempts to connect, those that failed too.", func(s *db.Stat) float64 { return float64(s.Connects) }),
		leaseMetricOf("ddtb_leaked_leases_total", "Leases that were out for longer than leak_after.", func(s *db.Stat) float64 { return float64(s.Leaked) }),
		leaseMetricOf("ddtb_reclaimed_leases_total", "Leases that were taken back after reclaim_after.", func(s *db.Stat) float64 { return float64(s.Reclaimed) }),
		leaseMetricOf("ddtb_nested_leases_total", "Leases asked for by a request that held one already.", func(s *db.Stat) float64 { return float64(s.Nested) }),
	}
)

// Describe is part of prometheus.Collector.
func (l *leases) Describe(out chan<- *prometheus.Desc) {
	out <- maxConns
	for _, m := range leaseGauges {
		out <- m.desc
	}
	for _, m := range leaseCounters {
		out <- m.desc
	}
}

// Collect is part of prometheus.Collector.
func (l *leases) Collect(out chan<- prometheus.Metric) {
	now := l.count()
	if now.Size > 0 {
		out <- prometheus.MustNewConstMetric(maxConns, prometheus.GaugeValue, float64(now.Size), now.Strategy)
	}
	for _, m := range leaseGauges {
		out <- prometheus.MustNewConstMetric(m.desc, prometheus.GaugeValue, m.of(&now), now.Strategy)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range leaseCounters {
		for strategy, sum := range l.sums {
			out <- prometheus.MustNewConstMetric(m.desc, prometheus.CounterValue, m.of(sum), strategy)
		}
	}
}
