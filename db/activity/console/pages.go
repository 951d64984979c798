package console

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"ddtb/db/activity"
)

// page is the content of the full screen below its head.
type page int

const (
	sessions page = iota // the table
	details              // all details of the selected session
	locks                // the tree of waiting sessions
	help                 // the keys
)

// keys are listed on the help page.
var keys = [][2]string{
	{"↑ ↓ j k", "select another session; PgUp, PgDn, Home, End go farther"},
	{"space", "mark the session for c and t, or take its mark away"},
	{"enter", "all that is known of the session, with its whole query"},
	{"c", "cancel the query of the marked sessions, else of the selected one; the session stays"},
	{"t", "terminate them: what they were doing is rolled back"},
	{"l", "the tree of locks: who waits for whom"},
	{"/", "show only sessions with this text in any column"},
	{"s, r", "sort by another column; reverse the order"},
	{"esc", "back to the sessions; there, drop the filter and the marks"},
	{"q", "quit; nothing is ended"},
}

// turn opens another page, or goes back, and reports whether the key did so.
func (s *screen) turn(key string) bool {
	to, is := map[string]page{"enter": details, "l": locks, "?": help}[key]
	switch {
	case is && to != s.page:
		s.page = to
	case is, key == "esc" && s.page != sessions:
		s.page = sessions
	default:
		return false
	}
	return true
}

// body writes the page.
func (s *screen) body(p Printer) {
	switch s.page {
	case details:
		s.details(p)
	case locks:
		s.locks(p)
	case help:
		for _, k := range keys {
			p.Wrapped(fmt.Sprintf("  %-9s", k[0]), k[1])
		}
	default:
		s.sessions(p)
	}
}

func (s *screen) details(p Printer) {
	x, ok := s.chosen()
	if !ok {
		p.line("The selected session has ended. ↑ or ↓ selects another.")
		return
	}
	for _, f := range [][2]string{
		{"pid", fmt.Sprint(x.PID)},
		{"application", x.Application},
		{"user, database", x.User + "@" + x.Database},
		{"client", x.ClientAddress()},
		{"state", fmt.Sprintf("%s for %s", state(x), age(x.InState))},
		{"waits for", x.Wait},
		{"blocked by", list(x.BlockedBy, 10)},
		{"ages", fmt.Sprintf("session %s, transaction %s, query %s", age(x.Age), age(x.InTransaction), age(x.InQuery))},
		{"query", x.Query},
	} {
		p.Wrapped(fmt.Sprintf("  %-15s ", f[0]), cmp.Or(Clean(f[1]), "·"))
	}
}

func (s *screen) locks(p Printer) {
	if !p.lockTree(s.now, s.rowsShown) {
		p.line("No session waits for a lock.")
	}
}

// lockTree writes the tree of waiting sessions in at most that many lines, and reports whether any session waits.
func (p Printer) lockTree(now activity.Snapshot, most int) bool {
	t := lockTree{now: now, placed: map[int32]bool{}}
	for _, root := range now.Roots() {
		t.add(root, 0)
	}
	for i, l := range t.lines {
		if i == most-1 && len(t.lines) > most {
			p.line("… and %d more", len(t.lines)-i)
			break
		}
		p.line("%s", l)
	}
	return len(t.lines) > 0
}

type lockTree struct {
	now    activity.Snapshot
	placed map[int32]bool // each session is shown once, below the first that it waits for
	lines  []string
}

func (t *lockTree) add(x activity.Session, depth int) {
	if t.placed[x.PID] {
		return
	}
	t.placed[x.PID] = true
	indent := strings.Repeat("  ", depth)
	if depth > 0 {
		indent += "└ "
	}
	text := x.Describe()
	if x.Waits {
		text += ", waits " + age(x.Waited) + " for " + cmp.Or(strings.TrimPrefix(x.Wait, "Lock/"), "a lock")
	}
	if x.Query != "" {
		text += ": " + x.Query
	}
	t.lines = append(t.lines, indent+Clean(text))
	for _, y := range t.now.Sessions {
		if slices.Contains(y.BlockedBy, x.PID) && t.nearest(y) == x.PID {
			t.add(y, depth+1)
		}
	}
}

// nearest returns the blocker below which a session is shown. A blocker that waits itself is preferred, so that the
// tree shows the order of the queue.
func (t *lockTree) nearest(y activity.Session) int32 {
	for _, pid := range y.BlockedBy {
		waits := slices.ContainsFunc(t.now.Sessions, func(b activity.Session) bool { return b.PID == pid && len(b.BlockedBy) > 0 })
		if waits {
			return pid
		}
	}
	return y.BlockedBy[0]
}
