package activity

import (
	"cmp"
	"slices"
	"time"
)

// Filter chooses sessions to end. It never chooses the monitoring session, replication and other background processes,
// sessions of a database other than the named one, or sessions of unknown state. A session that listens for
// notifications is idle by design: only AnyState or a PID chooses it.
type Filter struct {
	AnyState      bool          // also active sessions
	InTransaction bool          // also sessions idle in transaction
	OlderThan     time.Duration // at least this long in that state; ignored with AnyState
	Application   string        // its sessions: this name, or this name with a slash and more, without its monitor; NAME* for all names that begin so
	Nameless      bool          // sessions without a name; Application is "" then
	User          string
	Database      string // "": the connected one
	PID           int32
	Superusers    bool // also a superuser's sessions
}

// states returns the states that the filter accepts; none means any.
func (f Filter) states() []string {
	switch {
	case f.AnyState:
		return []string{}
	case f.InTransaction:
		return []string{Idle, IdleInTransaction, IdleInTransactionEr}
	}
	return []string{Idle}
}

// choose divides the sessions that the filter names: the chosen ones, the oldest first, and the numbers of those that it
// leaves alone.
func (f Filter) choose(s Snapshot) (c Closing) {
	for _, x := range s.clients(func(x Session) bool { return f.asked(s, x) }) {
		superuser := x.Superuser && !f.Superusers
		switch {
		case x.Hidden && !superuser:
			c.Unseen++
		case x.Hidden || !f.rests(x):
		case x.Listens() && !f.AnyState && f.PID == 0:
			c.Listeners++
		case superuser:
			c.Superuser++
		default:
			c.Sessions = append(c.Sessions, Ending{Session: x, Outcome: Planned})
		}
	}
	return c
}

// asked reports whether the session is one of those requested by name.
func (f Filter) asked(s Snapshot, x Session) bool {
	return !x.Self && x.Database == cmp.Or(f.Database, s.Database) &&
		(f.User == "" || x.User == f.User) &&
		(f.PID == 0 || x.PID == f.PID) &&
		(f.Application == "" || named(x.Application, f.Application)) &&
		(!f.Nameless || x.Application == "") &&
		!f.keepsMonitor(s, x)
}

// keepsMonitor protects the monitoring connection, which is the way into a full server, unless it is named itself.
func (f Filter) keepsMonitor(s Snapshot, x Session) bool {
	if f.PID == x.PID || f.Application == x.Application {
		return false
	}
	return x.Application == s.Application+monitorSuffix || x.Application == f.Application+monitorSuffix
}

// rests reports whether the session has been in one of the states for long enough.
func (f Filter) rests(x Session) bool {
	return f.AnyState || slices.Contains(f.states(), x.State) && x.InState.Duration() >= f.OlderThan
}
