package metrics

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"ddtb/db"
	"ddtb/db/activity"
)

// monitor is the state of the sampler.
type monitor struct{ up, age float64 }

var monitorFigures = []db.Figure[monitor]{
	{Name: "ddtb_monitor_up", Help: "1 if the last poll of the server succeeded: only then are there figures of it.", Gauge: func(m *monitor) float64 { return m.up }},
	{Name: "ddtb_monitor_age_seconds", Help: "Age of the figures: since the last poll that succeeded, or the start.", Gauge: func(m *monitor) float64 { return m.age }},
}

// FollowServer reports the use of the server's slots, from the latest snapshot of s.
func (m *Metrics) FollowServer(s *activity.Sampler) {
	start := time.Now()
	m.registry.MustRegister(collector(func(out chan<- prometheus.Metric) {
		r := s.Latest()
		now := monitor{age: time.Since(start).Seconds()}
		if !r.Seen.IsZero() {
			now.age = time.Since(r.Seen).Seconds()
		}
		if r.Err == nil && !r.Sample.At.IsZero() {
			now.up = 1
			sendSnapshot(out, r.Snapshot)
		}
		send(out, monitorFigures, &now, nil)
	}))
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
