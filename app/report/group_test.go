package report

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"ddtb/config"
	"ddtb/db"
)

var t0 = time.Date(2026, 11, 3, 2, 13, 5, 0, time.UTC)

// step is what happens at a moment, and what is reported then.
type step struct {
	at     string // after t0
	fails  string // "pool timeout /a 3, bug /b 1", one after the other
	served bool
	want   string // "pool timeout /a 1 first, recovered 4 in 2s"
}

func TestTheLimit(t *testing.T) {
	lim := config.MailLimit{Window: 10 * time.Minute, PerHour: 3}
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"the first failure is reported at once, the rest with the window's end", []step{
			{at: "0s", fails: "bug /a 201", want: "bug /a 1 first"},
			{at: "9m59s", fails: "bug /a 1"},
			{at: "10m", want: "bug /a 201"},
			{at: "20m"},
		}},
		{"a single failure is reported once", []step{
			{at: "0s", fails: "bug /a 1", want: "bug /a 1 first"},
			{at: "10m"},
		}},
		{"a group that was quiet for a window is new again", []step{
			{at: "0s", fails: "bug /a 1", want: "bug /a 1 first"},
			{at: "11m", fails: "bug /a 1", want: "bug /a 1 first"},
		}},
		{"each group has its own window", []step{
			{at: "0s", fails: "bug /a 2", want: "bug /a 1 first"},
			{at: "5m", fails: "bug /b 2", want: "bug /b 1 first"},
			{at: "10m", want: "bug /a 1 capped"},
		}},
		{"the cap holds for all groups, and loses no count", []step{
			{at: "0s", fails: "bug /a 1, bug /b 1, bug /c 1, bug /d 5", want: "bug /a 1 first, bug /b 1 first, bug /c 1 first capped"},
			{at: "30m", fails: "bug /d 2"},
			{at: "1h", want: "bug /d 7 first"},
		}},
		{"an outage ends when requests have succeeded for the settle time", []step{
			{at: "0s", fails: "pool timeout /a 5", want: "pool timeout /a 1 first"},
			{at: "2s", served: true},
			{at: "3s", served: true},
			{at: "4s", fails: "pool timeout /a 1"},
			{at: "5s", served: true},
			{at: "10s", want: "recovered 6 in 4s"},
			{at: "10m"},
		}},
		{"one outage is one group, whatever its causes and routes", []step{
			{at: "0s", fails: "server unavailable /a 5, circuit open /b 7", want: "server unavailable /a 1 first"},
			{at: "1s", fails: "pool timeout /c 2, slots exhausted /d 1"},
			{at: "2s", served: true},
			{at: "7s", want: "recovered 15 in 1s"},
		}},
		{"that the circuit is open is not the cause where another is known", []step{
			{at: "0s", fails: "server unavailable /a 1", want: "server unavailable /a 1 first"},
			{at: "1s", fails: "circuit open /b 2, server unavailable /c 1, circuit open /d 1"},
			{at: "10m", want: "server unavailable /c 4"},
		}},
		{"an outage that flaps reports one end, and the rest when the window ends", []step{
			{at: "0s", fails: "pool timeout /a 1", want: "pool timeout /a 1 first"},
			{at: "1s", served: true},
			{at: "6s", want: "recovered 1 in 0s"},
			{at: "20s", fails: "pool timeout /a 4"},
			{at: "21s", served: true},
			{at: "26s"},
			{at: "10m", want: "pool timeout /a 4 capped"},
		}},
		{"an outage goes on until a success", []step{
			{at: "0s", fails: "pool timeout /a 1", want: "pool timeout /a 1 first"},
			{at: "24h"},
			{at: "24h1s", served: true},
			{at: "24h6s", want: "recovered 1 in 0s"},
		}},
		{"a recovery waits for the cap, and keeps its numbers", []step{
			{at: "0s", fails: "bug /a 1, bug /b 1, pool timeout /c 9", want: "bug /a 1 first, bug /b 1 first, pool timeout /c 1 first capped"},
			{at: "1s", served: true},
			{at: "6s"},
			{at: "1h", want: "recovered 9 in 0s"},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newState()
			for _, step := range c.steps {
				now := t0.Add(parseDuration(t, step.at))
				var due []*notice
				for _, f := range parseFailures(t, step.fails, now) {
					s.add(f)
					due = append(due, take(s, now, lim)...)
				}
				if step.served {
					s.served(now)
				}
				due = append(due, take(s, now, lim)...)
				equal(t, "reported at "+step.at, describe(due), step.want)
				s = reload(t, s, now)
			}
		})
	}
}

func TestAClockThatIsSetBackSilencesNothing(t *testing.T) {
	lim := config.MailLimit{Window: 10 * time.Minute, PerHour: 3}
	s := newState()
	for _, route := range []string{"/a", "/b", "/c"} {
		for _, f := range parseFailures(t, "bug "+route+" 2", t0) {
			s.add(f)
		}
	}
	equal(t, "reported", len(take(s, t0, lim)), 3)
	before := t0.Add(-365 * 24 * time.Hour)
	s = reload(t, s, before)
	for _, f := range parseFailures(t, "bug /a 1", before) {
		s.add(f)
	}
	equal(t, "reported after the clock went back", describe(take(s, before, lim)), "bug /a 1 first")
}

func TestTheStateStaysBoundedAndCountsTheRestTogether(t *testing.T) {
	s := newState()
	for i := range 100_000 {
		s.add(&failure{Cause: "bug", Request: Request{Route: fmt.Sprint(i)}, At: t0})
	}
	s.add(&failure{Cause: string(db.PoolTimeout), NoConn: true, At: t0})
	equal(t, "groups", len(s.Groups), maxGroups+2)
	equal(t, "counted together", s.Groups[manyKinds].Pending, 100_000-maxGroups)
	equal(t, "failures to connect stay a group of their own", s.Groups[outageKey].Pending, 1)
}

func TestFailuresWhoseNoticeWasNotSentAreDueWithTheNextWindow(t *testing.T) {
	lim := config.MailLimit{Window: 10 * time.Minute, PerHour: 3}
	s := newState()
	for _, f := range parseFailures(t, "bug /a 1", t0) {
		s.add(f)
	}
	lost := s.due("bug\n/a\n", t0, lim)
	for _, f := range parseFailures(t, "bug /a 2", t0.Add(time.Minute)) {
		s.add(f)
	}
	equal(t, "reported while it is sent", describe(take(s, t0.Add(10*time.Minute), lim)), "")
	s.Groups[lost.key].done(false)
	equal(t, "reported too early", describe(take(s, t0.Add(9*time.Minute), lim)), "")
	due := take(s, t0.Add(10*time.Minute), lim)
	equal(t, "reported", describe(due), "bug /a 3")
	equal(t, "since", due[0].First, t0)
}

func describe(notices []*notice) string {
	var out []string
	for _, n := range notices {
		s := fmt.Sprintf("%s %s %d", n.Cause, n.Route, n.Pending)
		if n.Over {
			s = fmt.Sprintf("recovered %d in %s", n.Pending, n.Last.Sub(n.Since))
		} else if n.Reported.IsZero() {
			s += " first"
		}
		if !n.Capped.IsZero() {
			s += " capped"
		}
		out = append(out, s)
	}
	return strings.Join(out, ", ")
}

func parseFailures(t *testing.T, s string, at time.Time) (out []*failure) {
	for _, one := range strings.Split(s, ", ") {
		if one == "" {
			continue
		}
		words := strings.Fields(one)
		n := len(words)
		var count int
		if _, err := fmt.Sscan(words[n-1], &count); err != nil {
			t.Fatal(err)
		}
		for range count {
			f := &failure{Cause: strings.Join(words[:n-2], " "), Request: Request{Route: words[n-2]}, At: at}
			f.NoConn = f.Cause != "bug"
			out = append(out, f)
		}
	}
	return out
}

func parseDuration(t *testing.T, s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// take returns what is due now, as sent.
func take(s *state, now time.Time, lim config.MailLimit) (due []*notice) {
	for _, key := range slices.Sorted(maps.Keys(s.Groups)) {
		if n := s.due(key, now, lim); n != nil {
			s.Groups[key].done(true)
			due = append(due, n)
		}
	}
	return due
}

// reload is the state as the next process reads it, with the examples that this process has.
func reload(t *testing.T, s *state, now time.Time) *state {
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var read state
	if err := json.Unmarshal(data, &read); err != nil {
		t.Fatal(err)
	}
	sound := read.sound(now)
	for key, g := range sound.Groups {
		g.Example = s.Groups[key].Example
	}
	return sound
}
