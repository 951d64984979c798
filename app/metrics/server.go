package metrics

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"ddtb/db"
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
	m.registry.MustRegister(collector(m.server.collect))
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

// monitor is the state of the sampler.
type monitor struct{ up, age float64 }

var monitorFigures = []db.Figure[monitor]{
	{Name: "ddtb_monitor_up", Help: "1 when the last look at the server succeeded: only then are there figures of it.", Gauge: func(m *monitor) float64 { return m.up }},
	{Name: "ddtb_monitor_age_seconds", Help: "How old the figures are: since the last look that succeeded, or the start.", Gauge: func(m *monitor) float64 { return m.age }},
}

func (s *server) collect(out chan<- prometheus.Metric) {
	r, m := s.look.Latest(), monitor{age: s.age().Seconds()}
	if r.Err == nil && !r.Sample.At.IsZero() {
		m.up = 1
		sendSnapshot(out, r.Snapshot)
	}
	send(out, monitorFigures, &m, nil)
}

func sendSnapshot(out chan<- prometheus.Metric, now activity.Snapshot) {
	st := activity.Summarise(now)
	send(out, activity.Figures, &st, nil)
	sendEach(out, "ddtb_sessions", "Client sessions of the server, by state.", "state", byState(st))
	sendEach(out, "ddtb_application_sessions", "Client sessions of the server, by application_name: the 20 with the most, and the others together.", "application", byApplication(st))
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
