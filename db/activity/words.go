package activity

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// clients returns the client sessions for which keep is true, the oldest first.
func (s Snapshot) clients(keep func(Session) bool) (kept []Session) {
	for _, x := range s.Sessions {
		if x.Client() && keep(x) {
			kept = append(kept, x)
		}
	}
	return kept
}

// programs returns the sessions of programs: the clients without monitoring connections and logins under way.
func (s Snapshot) programs() []Session {
	return s.clients(func(x Session) bool { return !x.Self && !s.IsMonitor(x) && !x.LogsIn() })
}

// own returns the sessions of the configured application, without the monitoring ones.
func (s Snapshot) own() []Session {
	return slices.DeleteFunc(s.programs(), func(x Session) bool { return !belongs(x.Application, s.Application) })
}

// longestFirst returns the client sessions for which keep is true, the one with the greatest age first.
func (s Snapshot) longestFirst(age func(Session) Age, keep func(Session) bool) []Session {
	kept := s.clients(keep)
	slices.SortStableFunc(kept, func(a, b Session) int { return cmp.Compare(age(b), age(a)) })
	return kept
}

func inState(s Session) Age { return s.InState }

func inQuery(s Session) Age { return s.InQuery }

func pids(sessions []Session) []int32 {
	out := make([]int32, len(sessions))
	for i, s := range sessions {
		out[i] = s.PID
	}
	return out
}

func (s Session) name() string { return fmt.Sprintf("pid %d, %s", s.PID, s.Who()) }

// Describe returns a phrase for the session: which one it is, and what it does.
func (s Session) Describe() string {
	switch {
	case s.PID == 0:
		return "a prepared transaction (see pg_prepared_xacts)"
	case s.Hidden:
		return s.name() + ", of which this role sees no more"
	case s.State == "":
		return s.name()
	}
	return fmt.Sprintf("%s, %s for %s", s.name(), s.State, Short(s.InState.Duration()))
}

// within returns the client sessions that count against a limit.
func (s Snapshot) within(l Limit) []Session {
	return s.clients(func(x Session) bool {
		return l.Of == "role" && x.User == l.Name || l.Of == "database" && x.Database == l.Name
	})
}

// onlySelf reports whether the monitoring session alone counts against a limit: then it is made for it.
func (s Snapshot) onlySelf(l Limit) bool {
	within := s.within(l)
	return len(within) == 1 && within[0].Self
}

// mostNames bounds how many names a sentence lists.
const mostNames = 5

// Names lists items by their names, so many at most.
func Names[T any](items []T, most int, name func(T) string) string {
	text := []string{}
	for _, x := range items[:min(len(items), most)] {
		text = append(text, name(x))
	}
	if len(items) > most {
		text = append(text, "…")
	}
	return strings.Join(text, ", ")
}

// holders names the applications that have the connections that a limit counts, the largest first.
func (s Snapshot) holders(l Limit) string {
	return Names(s.byApplication(l), mostNames, func(g Group) string { return fmt.Sprintf("%s: %d", cmp.Or(g.Name, "no name"), g.Sessions) })
}

// largest returns the application with most of the connections that a limit counts.
func (s Snapshot) largest(l Limit) string {
	g := s.byApplication(l)
	if len(g) == 0 {
		return l.Name
	}
	return cmp.Or(g[0].Name, "user "+g[0].User)
}

func (s Snapshot) byApplication(l Limit) []Group {
	return groups(s.within(l), func(x Session) Group { return Group{Name: x.Application, User: x.User} })
}

// addressesOf returns the sessions' client machines, with the number of sessions of each, the largest first.
func addressesOf(sessions []Session) string {
	all := groups(sessions, func(x Session) Group { return Group{Address: cmp.Or(x.Address, "local")} })
	return Names(all, mostNames, func(g Group) string { return fmt.Sprintf("%s (%d)", g.Address, g.Sessions) })
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// Short formats a duration to two units, for example "0.4s", "1m 5s", "3h 20m", "2d".
func Short(d time.Duration) string {
	s := int(d.Seconds())
	switch {
	case d < 10*time.Second && d%time.Second != 0:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return two(s/60, "m", s%60, "s")
	case s < 86400:
		return two(s/3600, "h", s/60%60, "m")
	}
	return two(s/86400, "d", s/3600%24, "h")
}

func two(a int, unitA string, b int, unitB string) string {
	if b == 0 {
		return fmt.Sprintf("%d%s", a, unitA)
	}
	return fmt.Sprintf("%d%s %d%s", a, unitA, b, unitB)
}
