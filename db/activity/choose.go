package activity

import "time"

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

// Choose returns the chosen sessions, the oldest first.
func (f Filter) Choose(s Snapshot) []Session {
	return s.clients(func(x Session) bool {
		return !x.Hidden && f.asked(s, x) && (f.Superusers || !x.Superuser) && f.rests(x)
	})
}

// Unseen returns the sessions that the filter might choose if their state were visible.
func (f Filter) Unseen(s Snapshot) []Session {
	return s.clients(func(x Session) bool { return x.Hidden && f.asked(s, x) && (f.Superusers || !x.Superuser) })
}

// Superuser returns the sessions that the filter leaves out because they are a superuser's.
func (f Filter) Superuser(s Snapshot) []Session {
	if f.Superusers {
		return nil
	}
	return s.clients(func(x Session) bool { return !x.Hidden && x.Superuser && f.asked(s, x) && f.rests(x) })
}

// listeners returns the sessions that the filter leaves out because they wait for notifications.
func (f Filter) listeners(s Snapshot) []Session {
	if f.AnyState || f.PID != 0 {
		return nil
	}
	return s.clients(func(x Session) bool {
		return !x.Hidden && f.asked(s, x) && x.Listens() && x.InState.Duration() >= f.OlderThan
	})
}

// asked reports whether the session is one of those requested by name.
func (f Filter) asked(s Snapshot, x Session) bool {
	database := f.Database
	if database == "" {
		database = s.Database
	}
	return !x.Self && x.Database == database &&
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
	switch {
	case f.AnyState:
		return true
	case x.Listens() && f.PID != x.PID:
		return false
	case x.State == Idle, f.InTransaction && x.InTransactionIdle():
		return x.InState.Duration() >= f.OlderThan
	}
	return false
}
