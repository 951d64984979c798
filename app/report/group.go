package report

import (
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

// maxGroups bounds the groups that are told apart at once; the failures of further ones are counted together.
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
	First    time.Time `json:"first"`    // of the pending failures
	Last     time.Time `json:"last"`     // of all failures

	// The outage alone has these, until requests get connections again.
	Failed map[string]int `json:"failed,omitempty"` // requests by cause; nil: no outage
	Since  time.Time      `json:"since"`            // its first failure
	Served time.Time      `json:"served"`           // the first success after Last; earlier: none yet

	Example *failure `json:"-"` // one of the pending failures; nil: an earlier process had them
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

// add counts one failure, and returns its group.
func (s *state) add(f *failure) *group {
	g := s.group(f)
	if g.Pending == 0 {
		g.First = f.At
	}
	g.Pending++
	if f.At.After(g.Last) {
		g.Last = f.At
	}
	if g.Example == nil || f.Cause != string(db.CircuitOpen) { // that the circuit is open says less than why
		g.Example = f
	}
	if f.NoConn {
		g.Cause, g.Route, g.Origin = g.Example.Cause, g.Example.Route, g.Example.Origin
		if g.Failed == nil {
			g.Failed, g.Since = map[string]int{}, f.At
		}
		g.Failed[f.Cause]++
	}
	return g
}

func (s *state) group(f *failure) *group {
	key, fresh := outageKey, &group{Cause: f.Cause, Route: f.Route, Origin: f.Origin}
	if !f.NoConn {
		key = f.Cause + "\n" + f.Route + "\n" + f.Origin
		if s.Groups[key] == nil && len(s.Groups) >= maxGroups {
			key, fresh = manyKinds, &group{Cause: manyKinds}
		}
	}
	if s.Groups[key] == nil {
		s.Groups[key] = fresh
	}
	return s.Groups[key]
}

// restore counts the failures of an unsent notice again. They are due when the window ends.
func (s *state) restore(n *notice) {
	if n.Over {
		return
	}
	g := s.Groups[n.key]
	if g == nil {
		g = &group{Cause: n.Cause, Route: n.Route, Origin: n.Origin, Last: n.Last}
		s.Groups[n.key] = g
	}
	g.Pending += n.Pending
	g.First = n.First
	if g.Example == nil {
		g.Example = n.Example
	}
}

// served records that a request got a connection.
func (s *state) served(at time.Time) {
	if g := s.Groups[outageKey]; g != nil && !g.healed() {
		g.Served = at
	}
}

// waits reports whether an outage waits for its first success.
func (s *state) waits() bool {
	g := s.Groups[outageKey]
	return g != nil && g.Failed != nil && !g.healed()
}

func (g *group) healed() bool { return g.Served.After(g.Last) }

// over reports whether this is an outage that has ended.
func (g *group) over(now time.Time) bool {
	return g.Failed != nil && g.healed() && !now.Before(g.Served.Add(settle))
}

func (g *group) due(now time.Time, lim config.MailLimit) bool {
	return g.Pending > 0 && !now.Before(g.Reported.Add(lim.Window))
}

// take returns the notices that are due now. They count as reported.
func (s *state) take(now time.Time, lim config.MailLimit) (due []*notice) {
	s.Sent = slices.DeleteFunc(s.Sent, func(t time.Time) bool { return now.Sub(t) >= time.Hour })
	maps.DeleteFunc(s.Groups, func(_ string, g *group) bool {
		return g.Pending == 0 && g.Failed == nil && now.Sub(g.Reported) >= lim.Window
	})
	for _, key := range slices.Sorted(maps.Keys(s.Groups)) {
		g := s.Groups[key]
		over := g.over(now)
		if over && g.Reported.Before(g.Since) { // not reported yet: its failures are due with the window
			g.Failed, over = nil, false
		}
		if (over || g.due(now, lim)) && s.allowed(lim) {
			n := g.notice(key, now, lim, over)
			if s.Sent = append(s.Sent, now); !s.allowed(lim) {
				n.Capped = s.free(lim)
			}
			due = append(due, n)
		}
	}
	return due
}

// notice returns the group as it is, which counts as reported.
func (g *group) notice(key string, now time.Time, lim config.MailLimit, over bool) *notice {
	n := &notice{group: *g, key: key, Over: over}
	n.Failed = maps.Clone(g.Failed)
	if g.First.Sub(g.Reported) >= lim.Window { // it was quiet for a window
		n.Reported = time.Time{}
	}
	g.Pending, g.Example = 0, nil
	if over {
		n.Pending, g.Failed = n.Total(), nil
	} else {
		g.Reported = now
	}
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

func (s *state) allowed(lim config.MailLimit) bool { return len(s.Sent) < lim.PerHour }

// free is when the next notice is allowed, given that none is now.
func (s *state) free(lim config.MailLimit) time.Time {
	return s.Sent[len(s.Sent)-lim.PerHour].Add(time.Hour)
}

// next returns when take will return something if nothing else happens; zero: never.
func (s *state) next(lim config.MailLimit) (next time.Time) {
	for _, g := range s.Groups {
		if g.Failed != nil && g.healed() {
			next = sooner(next, g.Served.Add(settle))
		} else if g.Pending > 0 {
			next = sooner(next, g.Reported.Add(lim.Window))
		}
	}
	if !next.IsZero() && !s.allowed(lim) && s.free(lim).After(next) {
		next = s.free(lim)
	}
	return next
}

// sound returns a state from a file, within bounds. A time in the future, left by a clock that was set back, becomes
// now, so that it suppresses nothing.
func (s *state) sound(now time.Time) *state {
	out := newState()
	past := func(t *time.Time) {
		if t.After(now) {
			*t = now
		}
	}
	for key, g := range s.Groups {
		if g != nil && g.Pending >= 0 && len(out.Groups) < maxGroups && len(g.Failed) <= len(db.Causes) {
			g.Cause, g.Route, g.Origin = line(g.Cause), line(g.Route), line(g.Origin)
			past(&g.Reported)
			past(&g.Last)
			past(&g.Served)
			out.Groups[key] = g
		}
	}
	for _, t := range s.Sent {
		past(&t)
		out.Sent = append(out.Sent, t)
	}
	slices.SortFunc(out.Sent, time.Time.Compare)
	return out
}

// sooner returns the earlier time; zero means never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
