package report

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

var t0 = time.Date(2026, 11, 3, 2, 13, 5, 0, time.UTC)

// step is what happens at a moment, and what is told then.
type step struct {
	at     string // after t0
	fails  string // "pool timeout /a 3, internal error /b 1"
	served bool
	want   string // "pool timeout /a 1 first, recovered 4"
	next   string // when to look again, after t0; "" never
}

func TestTheLimit(t *testing.T) {
	lim := limit{window: 10 * time.Minute, perHour: 3}
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"the first failure is told at once, the rest with the window's end", []step{
			{at: "0s", fails: "bug /a 200", want: "bug /a 1 first", next: "10m"},
			{at: "9m59s", fails: "bug /a 1", next: "10m"},
			{at: "10m", want: "bug /a 200"},
			{at: "20m"},
		}},
		{"a single failure is told once", []step{
			{at: "0s", fails: "bug /a 1", want: "bug /a 1 first"},
			{at: "10m"},
		}},
		{"a kind that was quiet for a window is new again", []step{
			{at: "0s", fails: "bug /a 1", want: "bug /a 1 first"},
			{at: "11m", fails: "bug /a 1", want: "bug /a 1 first"},
		}},
		{"each kind has its own window", []step{
			{at: "0s", fails: "bug /a 2", want: "bug /a 1 first", next: "10m"},
			{at: "5m", fails: "bug /b 2", want: "bug /b 1 first", next: "10m"},
			{at: "10m", want: "bug /a 1 capped", next: "1h"},
		}},
		{"the cap holds for all kinds, and loses no count", []step{
			{at: "0s", fails: "bug /a 1, bug /b 1, bug /c 1, bug /d 5", want: "bug /a 1 first, bug /b 1 first, bug /c 1 first capped", next: "1h"},
			{at: "30m", fails: "bug /d 2", next: "1h"},
			{at: "1h", want: "bug /d 7 first held"},
		}},
		{"an outage ends when requests have succeeded for the settle time", []step{
			{at: "0s", fails: "pool timeout /a 5", want: "pool timeout /a 1 first", next: "10m"},
			{at: "2s", served: true, next: "7s"},
			{at: "3s", served: true, next: "7s"},
			{at: "4s", fails: "pool timeout /a 1", next: "10m"},
			{at: "5s", served: true, next: "10s"},
			{at: "10s", want: "recovered 6 in 4s"},
			{at: "10m"},
		}},
		{"causes and routes share one outage with one end", []step{
			{at: "0s", fails: "server unavailable /a 5, circuit open /b 7", want: "circuit open /b 1 first, server unavailable /a 1 first", next: "10m"},
			{at: "1s", served: true, next: "6s"},
			{at: "6s", want: "recovered 12 in 0s capped"},
		}},
		{"an outage that flaps tells one end, and the rest when the window ends", []step{
			{at: "0s", fails: "pool timeout /a 1", want: "pool timeout /a 1 first", next: "24h"},
			{at: "1s", served: true, next: "6s"},
			{at: "6s", want: "recovered 1 in 0s"},
			{at: "20s", fails: "pool timeout /a 4", next: "10m"},
			{at: "21s", served: true, next: "26s"},
			{at: "26s", next: "10m"},
			{at: "10m", want: "pool timeout /a 4 capped"},
		}},
		{"no success, no recovery", []step{
			{at: "0s", fails: "pool timeout /a 1", want: "pool timeout /a 1 first", next: "24h"},
			{at: "24h"},
		}},
		{"a recovery waits for the cap, and keeps its numbers", []step{
			{at: "0s", fails: "bug /a 1, bug /b 1, pool timeout /c 9", want: "bug /a 1 first, bug /b 1 first, pool timeout /c 1 first capped", next: "1h"},
			{at: "1s", served: true, next: "1h"},
			{at: "6s", next: "1h"},
			{at: "1h", want: "recovered 9 in 0s"},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := &ledger{Marks: map[string]*mark{}}
			for _, s := range c.steps {
				now := t0.Add(parseDuration(t, s.at))
				l.tidy(now, lim)
				for _, k := range parseKinds(t, s.fails, now) {
					l.failed(k)
				}
				if s.served {
					l.served(now)
				}
				equal(t, "told at "+s.at, describe(l.take(now, lim, 10)), s.want)
				equal(t, "next look after "+s.at, after(l.next(lim)), s.next)
				l = reload(t, l)
			}
		})
	}
}

func TestAClockThatIsSetBackSilencesNothing(t *testing.T) {
	lim := limit{window: 10 * time.Minute, perHour: 3}
	l := &ledger{Marks: map[string]*mark{}}
	for _, route := range []string{"/a", "/b", "/c"} {
		l.failed(&kind{fingerprint: fingerprint{Cause: "bug", Route: route}, count: 2, first: t0, last: t0})
	}
	equal(t, "told", len(l.take(t0, lim, 10)), 3)
	before := t0.Add(-365 * 24 * time.Hour)
	l.tidy(before, lim)
	equal(t, "told after the clock went back", len(l.take(before, lim, 10)), 0)
	l.tidy(before.Add(time.Hour), lim)
	equal(t, "told an hour later", len(l.take(before.Add(time.Hour), lim, 10)), 3)
}

func TestNothingIsToldWithoutRoomAndNothingIsLost(t *testing.T) {
	lim := limit{window: time.Minute, perHour: 100}
	l := &ledger{Marks: map[string]*mark{}}
	l.failed(&kind{fingerprint: fingerprint{Cause: "bug"}, count: 3, first: t0, last: t0})
	equal(t, "without room", describe(l.take(t0, lim, 0)), "")
	equal(t, "with room", describe(l.take(t0.Add(time.Second), lim, 1)), "bug  3 first held")
}

func TestTheLedgerStaysBoundedAndCountsTheRestTogether(t *testing.T) {
	l := &ledger{Marks: map[string]*mark{}}
	for i := range 100_000 {
		l.failed(&kind{fingerprint: fingerprint{Cause: "bug", Route: fmt.Sprint(i)}, count: 1, first: t0, last: t0})
	}
	equal(t, "marks", len(l.Marks), maxKinds+1)
	equal(t, "counted together", l.Marks[others.key()].Untold, 100_000-maxKinds)
}

func describe(notices []notice) string {
	var out []string
	for _, n := range notices {
		s := fmt.Sprintf("%s %s %d", n.Cause, n.Route, n.count)
		if n.recovered {
			s = fmt.Sprintf("recovered %d in %s", n.count, n.last.Sub(n.since))
		} else if n.previous.IsZero() {
			s += " first"
		}
		if n.held {
			s += " held"
		}
		if !n.capped.IsZero() {
			s += " capped"
		}
		out = append(out, s)
	}
	return strings.Join(out, ", ")
}

func parseKinds(t *testing.T, s string, at time.Time) (out []*kind) {
	for _, one := range strings.Split(s, ", ") {
		if one == "" {
			continue
		}
		words := strings.Fields(one)
		n := len(words)
		k := &kind{fingerprint: fingerprint{Cause: strings.Join(words[:n-2], " "), Route: words[n-2]}, first: at, last: at}
		k.noConn = k.Cause != "bug"
		if _, err := fmt.Sscan(words[n-1], &k.count); err != nil {
			t.Fatal(err)
		}
		out = append(out, k)
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

func after(next time.Time) string {
	if next.IsZero() {
		return ""
	}
	return duration(next.Sub(t0))
}

// reload is the ledger as another process reads it.
func reload(t *testing.T, l *ledger) *ledger {
	data, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	var read ledger
	if err := json.Unmarshal(data, &read); err != nil {
		t.Fatal(err)
	}
	read = read.sound()
	return &read
}
