package activity

import (
	"errors"
	"fmt"
	"net"
	"time"

	"ddtb/db"
)

const (
	loginTime  = Age(time.Second) // a login that takes longer counts as unfinished
	mostLogins = 5                // so many may run at once on a busy server
	seesLogins = 180000           // from this version on pg_stat_activity shows running logins
)

// logins returns the sessions that have not finished their login within a second. If the server does not show when a
// login began, it counts if a snapshot from a second ago has it too.
func (s Snapshot) logins(earlier *Snapshot) []Session {
	before := map[int32]bool{}
	if earlier != nil && Age(s.At.Sub(earlier.At)) >= loginTime {
		for _, x := range earlier.clients(Session.LogsIn) {
			before[x.PID] = true
		}
	}
	return s.clients(func(x Session) bool { return x.LogsIn() && (x.Age > loginTime || x.Started.IsZero() && before[x.PID]) })
}

// hanging returns the unfinished logins, if they are more than a busy server has.
func (p *problem) hanging() []Session {
	seen := p.now.logins(p.earlier)
	if len(seen) < mostLogins {
		return nil
	}
	return seen
}

// logins finds clients that begin a login and don't finish it.
func (p *problem) logins() *Finding {
	seen := p.hanging()
	if len(seen) == 0 {
		return nil
	}
	f := &Finding{
		Level: max(Warning, p.t.OfSlots(p.now.Slots)), Code: "login",
		What:    fmt.Sprintf("%d logins don't finish; each has a slot until authentication_timeout (%s)", len(seen), Short(p.now.Server.LoginTime.Duration())),
		culprit: "clients that don't finish their login", steps: p.stepsForLogins(seen), PIDs: pids(seen),
	}
	if 2*len(seen) < p.now.Slots.Used { // other sessions are the cause of any lack of slots
		f.Level = Warning
	}
	switch {
	case !seen[0].Started.IsZero():
		f.What += "; they come from " + addressesOf(seen)
	case p.now.Server.VersionNum < seesLogins:
		f.What += "; pg_stat_activity does not show them before PostgreSQL 18"
	default:
		f.What += "; pg_stat_activity does not show them to this role"
	}
	return f
}

// Refused records the error with which the server refused the login of the run that takes the snapshot through another
// connection; nil: it did not. An error about the limit of a role or a database is left to their own findings.
func (s *Snapshot) Refused(err error) {
	ce, ok := errors.AsType[*db.ConnError](err)
	s.refused = ok && ce.Cause == db.SlotsExhausted && ce.Limit() == db.ServerLimit
}

// refusedLogin finds a server that refused this run's login though it shows free slots. A client that has not sent its
// name has a process and no slot: no view shows it, but the server bounds the processes too.
func (p *problem) refusedLogin() *Finding {
	if !p.now.refused || p.now.Slots.Free() == 0 {
		return nil
	}
	return &Finding{
		Level: Critical, Code: "login",
		What: fmt.Sprintf("the server refused a login for lack of a slot a moment ago, though it shows %d free: either they became free since, "+
			"or clients that have not begun their login hold its processes", p.now.Slots.Free()),
		culprit: "clients that don't begin their login",
		steps:   []Step{p.now.sockets("see which clients are connected, and whether the server shows all of them,")},
	}
}

// sockets lists the clients' addresses with the system's means, for which a provider has its own.
func (s Snapshot) sockets(do string) Step {
	if s.Server.Managed || s.hosted() {
		return Step{Do: do + " by what the provider shows of its network", Hurts: nobody}
	}
	_, port, _ := net.SplitHostPort(s.Server.Address) // empty if there is none
	return Step{do + " on the database's machine", "ss -Htn state established '( sport = :" + port + " )'", nobody}
}

func (p *problem) stepsForLogins(seen []Session) []Step {
	find := p.now.sockets("find their machines,")
	if !seen[0].Started.IsZero() {
		find = Step{"find the programs at the addresses above, and stop them or keep them out (a firewall, pg_hba.conf)", command("status"), nobody}
	}
	steps := []Step{find, {
		Do:      "let the server give up sooner on a login (new ones have it, those that hang end within " + Short(p.now.Server.LoginTime.Duration()) + ")",
		Command: p.now.setSystem("authentication_timeout = '10s'"),
		Hurts:   "clients that need more than ten seconds to log in",
	}}
	if p.now.Server.VersionNum >= seesLogins {
		steps = append(steps, Step{
			Do: "end those that have hung for five seconds",
			Command: p.now.psqlAsSuperuser("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity " +
				"WHERE state = 'starting' AND backend_start < now() - interval '5 seconds'"),
			Hurts: "a client that was about to finish a slow login",
		})
	}
	return steps
}
