package activity

import "time"

// Filter chooses sessions to end. Whatever it says, it never chooses the session that looks, replication and
// other background work, sessions of another database than the one named, or one whose state can't be seen. A session
// that listens for notifications is idle by design: it is chosen by AnyState or PID only.
type Filter struct {
	AnyState      bool          // also those that are doing something
	InTransaction bool          // also idle in transaction
	OlderThan     time.Duration // in that state for so long; not asked with AnyState
	Application   string        // its sessions: those called so, or so with a slash and more, but for its monitor; NAME* for all that begin so
	Nameless      bool          // those that call themselves nothing; Application is "" then
	User          string
	Database      string // "": the one that is connected to
	PID           int32
	Superusers    bool // a superuser's too
}

// states are those that the filter takes; none means any.
func (f Filter) states() []string {
	switch {
	case f.AnyState:
		return []string{}
	case f.InTransaction:
		return []string{Idle, IdleInTransaction, IdleInTransactionEr}
	}
	return []string{Idle}
}

// Choose picks the sessions, the oldest first.
func (f Filter) Choose(s Snapshot) []Session {
	return s.clients(func(x Session) bool {
		return !x.Hidden && f.asked(s, x) && (f.Superusers || !x.Superuser) && f.rests(x)
	})
}

// Unseen are the sessions that the filter might choose if their state could be seen.
func (f Filter) Unseen(s Snapshot) []Session {
	return s.clients(func(x Session) bool { return x.Hidden && f.asked(s, x) && (f.Superusers || !x.Superuser) })
}

// Superuser are the sessions that the filter leaves out because they are a superuser's.
func (f Filter) Superuser(s Snapshot) []Session {
	if f.Superusers {
		return nil
	}
	return s.clients(func(x Session) bool { return !x.Hidden && x.Superuser && f.asked(s, x) && f.rests(x) })
}

// listeners are the sessions that the filter leaves out because they wait for notifications.
func (f Filter) listeners(s Snapshot) []Session {
	if f.AnyState || f.PID != 0 {
		return nil
	}
	return s.clients(func(x Session) bool {
		return !x.Hidden && f.asked(s, x) && x.Listens() && x.InState.Duration() >= f.OlderThan
	})
}

// asked reports whether the session is among those that were asked for by name.
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

// keepsMonitor spares the connection that watches, our door to a server that is full, unless it is named itself.
func (f Filter) keepsMonitor(s Snapshot, x Session) bool {
	if f.PID == x.PID || f.Application == x.Application {
		return false
	}
	return x.Application == s.Application+monitorSuffix || x.Application == f.Application+monitorSuffix
}

// rests reports whether it is in one of the states, for long enough.
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
