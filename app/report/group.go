package report

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"ddtb/config"
	"ddtb/db"
)

// settle is the time without failures after the first success after which an outage is over: an outage that flaps
// counts once.
const settle = 5 * time.Second

// maxGroups bounds the groups; the failures of further ones are counted together.
const (
	maxGroups = 200
	manyKinds = "failures of many kinds"
	outageKey = "outage" // of the group of all failures to get a connection
)

// state is the data of the limits, and the contents of the state file. Its rules take the time as a parameter.
type state struct {
	Groups map[string]*group `json:"groups"`
	Sent   []time.Time       `json:"sent"` // notices of the last hour
}

// group is the failures that are reported together. It is forgotten after a window without failures.
type group struct {
	Cause    string    `json:"cause"`
	Route    string    `json:"route,omitempty"`
	Origin   string    `json:"origin,omitempty"`
	Reported time.Time `json:"reported"` // the last notice; zero: none yet
	Pending  int       `json:"pending"`  // failures since then
	Captured int       `json:"captured"` // of the pending failures: Sentry has them, only their mail was not sent
	First    time.Time `json:"first"`    // of the pending failures
	Last     time.Time `json:"last"`     // of all failures

	// The outage alone has these, until requests get connections again.
	Failed map[string]int `json:"failed,omitempty"` // requests by cause; nil: no outage
	Since  time.Time      `json:"since"`            // its first failure
	Served time.Time      `json:"served"`           // the first success after Last; earlier: none yet

	Example *failure `json:"-"` // one of the pending failures; nil: an earlier process had them
	sending *notice  // whose mail is neither sent nor given up; nil: none. There is no other notice until then
}

// notice is one thing to report: a group as it was.
type notice struct {
	group
	key     string
	Over    bool      // the outage: this is its end, and Pending counts all of it
	Capped  time.Time // no other notice until then; zero: the cap is not reached
	Dropped int       // failures that found the queue full, of whatever group
}

func newState() *state { return &state{Groups: map[string]*group{}} }

// add counts one failure, and returns the key of its group.
func (s *state) add(f *failure) (key string) {
	key = s.key(f)
	g := s.Groups[key]
	if g == nil {
		g = &group{Cause: f.Cause, Route: f.Route, Origin: f.Origin}
		if key == manyKinds {
			g = &group{Cause: manyKinds}
		}
		s.Groups[key] = g
	}
	if g.Pending == 0 {
		g.First = f.At
	}
	g.Pending++
	g.Last = f.At
	if g.Example == nil || f.Cause != string(db.CircuitOpen) { // that the circuit is open says less than why
		g.Example = f
	}
	if f.NoConn {
		g.Cause, g.Route, g.Origin = cmp.Or(g.Example.Opened, g.Example.Cause), g.Example.Route, g.Example.Origin
		if g.Failed == nil {
			g.Failed, g.Since = map[string]int{}, f.At
		}
		g.Failed[f.Cause]++
	}
	return key
}

func (s *state) key(f *failure) string {
	if f.NoConn {
		return outageKey
	}
	key := f.Cause + "\n" + f.Route + "\n" + f.Origin
	if s.Groups[key] == nil && len(s.Groups) >= maxGroups {
		return manyKinds
	}
	return key
}

// done ends a notice. If it was not sent, its failures are pending again, and due when the window ends.
func (g *group) done(sent bool) {
	if n := g.sending; n != nil && !sent && !n.Over {
		g.Pending += n.Pending
		g.Captured = n.Pending
		g.First = n.First
		g.Example = cmp.Or(g.Example, n.Example)
	}
	g.sending = nil
}

// served records that a request got a connection.
func (s *state) served(at time.Time) {
	if s.waits() {
		s.Groups[outageKey].Served = at
	}
}

// waits reports whether an outage waits for its first success.
func (s *state) waits() bool {
	g := s.Groups[outageKey]
	return g != nil && g.Failed != nil && !g.healed()
}

func (g *group) healed() bool { return g.Served.After(g.Last) }

// due returns what is to be reported of a group now, which then counts as reported; nil: nothing. The caller ends the
// notice by done.
func (s *state) due(key string, now time.Time, lim config.MailLimit) *notice {
	g := s.Groups[key]
	over := g.Failed != nil && g.healed() && !now.Before(g.Served.Add(settle))
	if over && g.Reported.Before(g.Since) { // not reported yet: its failures are due with the window
		g.Failed, over = nil, false
	}
	window := !now.Before(g.Reported.Add(lim.Window))
	switch {
	case g.sending != nil:
		return nil
	case window && g.Pending == 0 && g.Failed == nil:
		delete(s.Groups, key)
		return nil
	case !over && (g.Pending == 0 || !window): // nothing is due
		return nil
	case !s.allowed(now, lim): // which also forgets notices that are an hour old
		return nil
	}
	n := g.notice(key, now, lim.Window, over)
	if s.Sent = append(s.Sent, now); !s.allowed(now, lim) {
		n.Capped = s.Sent[0].Add(time.Hour)
	}
	return n
}

// allowed reports whether the cap allows one more notice.
func (s *state) allowed(now time.Time, lim config.MailLimit) bool {
	s.Sent = slices.DeleteFunc(s.Sent, func(t time.Time) bool { return now.Sub(t) >= time.Hour })
	return len(s.Sent) < lim.PerHour
}

// notice returns the group as it is, which then counts as reported.
func (g *group) notice(key string, now time.Time, window time.Duration, over bool) *notice {
	n := &notice{group: *g, key: key, Over: over}
	n.Failed = maps.Clone(g.Failed)
	if g.First.Sub(g.Reported) >= window { // it was quiet for a window
		n.Reported = time.Time{}
	}
	if over {
		n.Pending, g.Failed = n.Total(), nil
	} else {
		g.Reported = now
	}
	g.Pending, g.Captured, g.Example, g.sending = 0, 0, nil, n
	return n
}

// Open reports whether the notice is of an ongoing outage.
func (n *notice) Open() bool { return n.Failed != nil && !n.Over }

// Total is how many requests failed in the outage.
func (n *notice) Total() (total int) {
	for _, failed := range n.Failed {
		total += failed
	}
	return total
}

// ByCause is "circuit open: 12, pool timeout: 3".
func (n *notice) ByCause() string {
	var all []string
	for _, cause := range slices.Sorted(maps.Keys(n.Failed)) {
		all = append(all, fmt.Sprintf("%s: %d", cause, n.Failed[cause]))
	}
	return strings.Join(all, ", ")
}
