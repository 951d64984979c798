package metrics

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"ddtb/db/activity"
)

// server reports the use of the server's slots, from the sampler's snapshots.
type server struct {
	look *activity.Sampler

	mu     sync.Mutex
	seenAt time.Time // by this machine's clock: the last good snapshot; at first, the start

	stop    context.CancelFunc
	stopped sync.WaitGroup
}

// FollowServer reports the snapshots of s, until Close.
func (m *Metrics) FollowServer(s *activity.Sampler) {
	ctx, stop := context.WithCancel(context.Background())
	m.server = &server{look: s, seenAt: time.Now(), stop: stop}
	m.server.stopped.Go(func() { m.server.follow(ctx) })
	m.registry.MustRegister(m.server)
}

func (s *server) follow(ctx context.Context) {
	var r activity.Reading
	for {
		next, err := s.look.Next(ctx, r)
		if err != nil {
			return
		}
		if r = next; r.Err == nil {
			s.mu.Lock()
			s.seenAt = time.Now()
			s.mu.Unlock()
		}
	}
}

func (s *server) close() {
	s.stop()
	s.stopped.Wait()
}

func (s *server) age() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Since(s.seenAt)
}

var (
	monitorUp      = prometheus.NewDesc("ddtb_monitor_up", "1 when the last look at the server succeeded: only then are there figures of it.", nil, nil)
	monitorAge     = prometheus.NewDesc("ddtb_monitor_age_seconds", "How old the figures are: since the last look that succeeded, or the start.", nil, nil)
	slotsMax       = prometheus.NewDesc("ddtb_slots_max", "The server's max_connections.", nil, nil)
	slotsReserved  = prometheus.NewDesc("ddtb_slots_reserved", "Slots reserved for superusers and for roles with pg_use_reserved_connections.", nil, nil)
	slotsUsable    = prometheus.NewDesc("ddtb_slots_usable", "Slots that an ordinary role can get.", nil, nil)
	slotsUsed      = prometheus.NewDesc("ddtb_slots_used", "Slots that are taken, by whomever.", nil, nil)
	sessions       = prometheus.NewDesc("ddtb_sessions", "Client sessions of the server, by state.", []string{"state"}, nil)
	applications   = prometheus.NewDesc("ddtb_application_sessions", "Client sessions of the server, by application_name: the 20 with the most, and the others together.", []string{"application"}, nil)
	lockWaiters    = prometheus.NewDesc("ddtb_sessions_waiting_for_lock", "Sessions that wait for another's lock.", nil, nil)
	oldestIdleInTx = prometheus.NewDesc("ddtb_oldest_idle_in_transaction_seconds", "How long the session has done nothing that has done so for longest in an open transaction.", nil, nil)
)

// Describe implements prometheus.Collector.
func (s *server) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		monitorUp, monitorAge, slotsMax, slotsReserved, slotsUsable, slotsUsed, sessions, applications, lockWaiters, oldestIdleInTx,
	} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (s *server) Collect(out chan<- prometheus.Metric) {
	r := s.look.Latest()
	up := 0.0
	if r.Err == nil && !r.Sample.At.IsZero() {
		up = 1
		tell(out, r.Snapshot)
	}
	gauge(out, monitorUp, up)
	gauge(out, monitorAge, s.age().Seconds())
}

func gauge(out chan<- prometheus.Metric, d *prometheus.Desc, value float64, labels ...string) {
	out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
}

func tell(out chan<- prometheus.Metric, now activity.Snapshot) {
	st := activity.Summarise(now)
	gauge(out, slotsMax, float64(now.Slots.Max))
	gauge(out, slotsReserved, float64(now.Slots.Reserved))
	gauge(out, slotsUsable, float64(now.Slots.Usable()))
	gauge(out, slotsUsed, float64(now.Slots.Used))
	for state, n := range byState(st) {
		gauge(out, sessions, float64(n), state)
	}
	for application, n := range byApplication(st) {
		gauge(out, applications, float64(n), application)
	}
	gauge(out, lockWaiters, float64(len(st.WaitingOnLocks)))
	var idle activity.Age
	if st.OldestIdleInTx != nil {
		idle = st.OldestIdleInTx.InState
	}
	gauge(out, oldestIdleInTx, idle.Duration().Seconds())
}

// byState always includes the usual states, so that their graphs fall to 0 instead of ending.
func byState(st activity.Status) map[string]int {
	n := map[string]int{activity.Active: 0, activity.Idle: 0, activity.IdleInTransaction: 0, activity.IdleInTransactionEr: 0}
	for _, s := range st.States {
		n[s.Name] += s.Count
	}
	return n
}

const (
	maxApplications = 20
	unnamed         = "unnamed"
)

// byApplication counts all but the largest groups, which come first, under Other.
func byApplication(st activity.Status) map[string]int {
	n := map[string]int{}
	for i, g := range st.Applications {
		name := strings.ToValidUTF8(g.Name, "?")
		switch {
		case i >= maxApplications:
			name = Other
		case name == "":
			name = unnamed
		}
		n[name] += g.Sessions // two groups may now have the same name
	}
	return n
}
