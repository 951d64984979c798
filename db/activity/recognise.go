package activity

import (
	"slices"
	"strings"

	"ddtb/db"
)

// culprit is the application at fault. For a lock queue it is the application whose statement all others queue behind,
// or the one that all wait for, not the waiting ones. If several pools are idle, it is all of them.
func (p *problem) culprit() string {
	if p.Reason == WaitsForLock && p.now.replayed(p.now.Roots()) {
		if s, ok := p.now.inReplaysWay(); ok {
			return s.Who()
		}
		return Session{Kind: Startup}.Who()
	}
	if roots := p.now.Roots(); p.Reason == WaitsForLock && len(roots) > 0 {
		if head, freed := p.now.queueHead(); freed > 0 && !p.idles(roots[0], head) {
			return head.Who()
		}
		if waiting := p.now.waiting(); has(roots[0].Application, backups) && len(waiting) > 0 {
			return waiting[0].Who() // a backup holds its weak locks for long, and legitimately
		}
		return roots[0].Who()
	}
	if others := p.otherPools(); p.Reason == Rests && len(others) > 0 {
		return p.Application + ", " + Names(others, mostNames, func(h Holding) string { return h.Application })
	}
	return p.Application
}

// idles reports whether the root of a lock queue does nothing, for long or while more than the head of the queue waits for it.
func (p *problem) idles(root, head Session) bool {
	if has(root.Application, backups) || !root.InTransactionIdle() {
		return false
	}
	for _, s := range p.now.waiting() {
		if s.PID != head.PID && slices.Contains(s.BlockedBy, root.PID) {
			return true
		}
	}
	return p.leaked(root)
}

// moves reports whether a lock queue moves: all wait for another session or another transaction than in the earlier
// poll.
func (p *problem) moves() bool {
	roots := p.now.Roots()
	if p.earlier == nil || len(roots) == 0 || roots[0].PID == 0 {
		return false
	}
	before := Snapshot{Sessions: p.earlier.Roots()}
	span := Age(p.now.At.Sub(p.earlier.At))
	return len(before.Sessions) > 0 && (!before.has(roots[0]) || roots[0].InTransaction > 0 && roots[0].InTransaction < span)
}

// otherPools returns the idle pools beside the holding, if there are several services: at least two more, or one with
// another role or from another address. Together they have all slots. A pool for each tenant may be small.
func (p *problem) otherPools() (others []Holding) {
	elsewhere := false
	for _, h := range p.all {
		if h.Reason == Rests && h.Application != p.Application && h.Sessions >= min(leastPool, p.Sessions) && 2*h.Sessions >= p.Sessions {
			others = append(others, h)
			elsewhere = elsewhere || h.sessions[0].User != p.sessions[0].User || h.sessions[0].Address != p.sessions[0].Address
		}
	}
	if len(others) >= 2 || elsewhere {
		return others
	}
	return nil
}

// count returns for how many of the holding's sessions the condition holds.
func (h Holding) count(is func(Session) bool) (n int) {
	for _, s := range h.sessions {
		if is(s) {
			n++
		}
	}
	return n
}

// most reports whether the condition holds for more than half of the culprit's sessions.
func (p *problem) most(is func(Session) bool) bool { return 2*p.count(is) > len(p.sessions) }

// own reports whether the culprit is the application whose configuration is known.
func (p *problem) own() bool { return belongs(p.sessions[0].Application, p.now.Application) }

// recognise returns the scenario, and another that looks the same from outside, or "".
func (p *problem) recognise() (name, also string) {
	if len(p.sessions) == 0 {
		return "", ""
	}
	return reasons[p.Reason].scenario(p)
}

// recogniseOther distinguishes scenarios of sessions that work or are idle.
func (p *problem) recogniseOther() (name, also string) {
	switch watches := has(p.Application, monitors) || has(p.Application, probes); {
	case p.Reason == Rests && len(p.otherPools()) > 0:
		return "replicas-times-pool", ""
	case watches && p.Reason == Rests:
		return "monitor-leaks", ""
	case p.most(p.foreign):
		return "noisy-neighbour", ""
	case p.Reason == Works:
		return "too-much-at-once", ""
	}
	return p.recogniseIdle()
}

// recogniseUnread distinguishes a slow reader of an export from a result that was left open.
func (p *problem) recogniseUnread() (name, also string) {
	if p.most(func(s Session) bool { return startsWith(s.Query, "COPY") }) {
		return "stream-holds-lease", "rows-not-closed"
	}
	return "rows-not-closed", "stream-holds-lease"
}

func (p *problem) recogniseLock() (name, also string) {
	waiting := p.now.waiting()
	other := slices.DeleteFunc(slices.Clone(waiting), func(s Session) bool { return s.Wait == "Lock/advisory" })
	head, freed := p.now.queueHead()
	switch roots := p.now.Roots(); {
	case 2*len(other) < len(waiting):
		return "migrate-refused", "lock-queue"
	case len(roots) > 0 && freed == 0 && p.idles(roots[0], head) && !p.moves(): // there is no queue: all wait for this one
		return "leaked-transaction", "call-inside-transaction"
	case len(roots) > 0 && roots[0].InTransactionIdle():
		return "lock-queue", "leaked-transaction"
	}
	return "lock-queue", ""
}

// recognisePause distinguishes scenarios of young transactions that do something other than query.
func (p *problem) recognisePause() (name, also string) {
	switch {
	case p.most(func(s Session) bool { return s.State == IdleInTransactionEr }): // nothing but ROLLBACK is possible in it
		return "leaked-transaction", ""
	case p.most(func(s Session) bool { return startsWith(s.Query, "FETCH") || startsWith(s.Query, "DECLARE") }):
		return "stream-holds-lease", "call-inside-transaction"
	case p.own() && p.t.Own > 0 && p.Sessions >= p.t.Own: // the whole pool at once
		return "call-inside-transaction", "nested-acquire"
	}
	return "call-inside-transaction", "leaked-transaction"
}

func (p *problem) recogniseSlow() (name, also string) {
	if p.most(p.foreign) {
		return "noisy-neighbour", ""
	}
	same := p.sessions[0].Query
	if p.own() && p.t.Own > 0 && p.Sessions > p.t.Own && p.most(func(s Session) bool { return s.Query == same }) {
		return "cancel-snowball", "slow-query-pile-up"
	}
	return "slow-query-pile-up", "cancel-snowball"
}

func (p *problem) recogniseChurn() (name, also string) {
	switch {
	case p.restarted():
		return "reconnect-stampede", "too-much-at-once"
	case has(p.Application, probes) || p.most(func(s Session) bool { return asksNothing(s.Query) }):
		return "probe-connects", "too-much-at-once"
	}
	return "too-much-at-once", "probe-connects"
}

func (p *problem) restarted() bool { return p.now.At.Sub(p.now.Server.Started) < p.t.Restarted }

// foreign reports whether a session belongs to another party. If the configured application has sessions, that is a
// session in a database or of a role that they don't use. Otherwise it is a session in another database than the
// connected one, except PostgreSQL's own, from which operators monitor all others.
func (p *problem) foreign(s Session) bool {
	if belongs(s.Application, p.now.Application) {
		return false
	}
	ours := p.now.own()
	if len(ours) == 0 {
		return s.Database != p.now.Database && p.now.Database != "postgres" && p.now.Database != "template1"
	}
	uses := func(same func(Session) bool) bool { return slices.ContainsFunc(ours, same) }
	return !uses(func(x Session) bool { return x.Database == s.Database }) || !uses(func(x Session) bool { return x.User == s.User })
}

// recogniseIdle distinguishes scenarios that all end in idle sessions.
func (p *problem) recogniseIdle() (name, also string) {
	addresses := groups(p.sessions, func(s Session) Group { return Group{Address: s.Address} })
	switch {
	case p.most(func(s Session) bool { return strings.Contains(strings.ToLower(s.Query), "advisory_lock") }):
		return "migrate-refused", "lock-queue" // they retry instead of waiting in the server
	case p.most(p.fromSilence()):
		return "half-open", "replicas-times-pool"
	case db.StrategyIn(p.Application) == db.Persistent:
		return "thread-leak", ""
	case len(addresses) > 2:
		return "replicas-times-pool", ""
	case !p.own() && p.besideOurs():
		return "hidden-second-pool", "replicas-times-pool"
	case p.most(Session.usedOnce) && len(p.sessions) >= 5 && p.openedTogether():
		return "replicas-times-pool", "thread-leak"
	case p.most(Session.usedOnce) && len(p.sessions) >= 5:
		return "thread-leak", "missed-close"
	case p.secondPool():
		return "hidden-second-pool", "replicas-times-pool"
	}
	return "replicas-times-pool", "hidden-second-pool"
}

// openedTogether reports whether all sessions began within two seconds, and a while ago, as in a pool that opens with
// its program.
func (p *problem) openedTogether() bool {
	oldest, youngest := Age(0), p.sessions[0].Age
	for _, s := range p.sessions {
		oldest, youngest = max(oldest, s.Age), min(youngest, s.Age)
	}
	return oldest-youngest < seconds(2) && youngest > seconds(30)
}

// fromSilence returns sessions from addresses without activity for long, while the same application is active at other
// addresses.
func (p *problem) fromSilence() func(Session) bool {
	stirs, elsewhere := map[string]bool{}, false
	for _, s := range p.now.programs() {
		if s.State != Idle || s.InState.Duration() < p.t.Silent {
			stirs[s.Address] = true
			elsewhere = elsewhere || s.Who() == p.Application
		}
	}
	return func(s Session) bool { return elsewhere && s.Address != "local" && !stirs[s.Address] }
}

// besideOurs reports whether the configured application has sessions with the same role from the same address. A
// session from there under another name, or none, most likely belongs to the same program.
func (p *problem) besideOurs() bool {
	return slices.ContainsFunc(p.now.own(), func(s Session) bool {
		return s.User == p.sessions[0].User && s.Address == p.sessions[0].Address
	})
}

// secondPool reports whether the same clients have many idle sessions under another name as well.
func (p *problem) secondPool() bool {
	return slices.ContainsFunc(p.all, func(h Holding) bool {
		return h.Reason == Rests && h.Application != p.Application && 4*h.Sessions >= p.Sessions && len(h.sessions) > 2 &&
			h.sessions[0].Address == p.sessions[0].Address && h.sessions[0].User == p.sessions[0].User
	})
}

// The names of monitoring programs.
var (
	monitors = []string{
		"monitor", "exporter", "pghero", "zabbix", "datadog", "telegraf", "pgwatch", "pganalyze", "nagios", "check_postgres", "icinga",
		"newrelic", "nri-postgresql", "prometheus", "grafana", "pmm-agent", "netdata", "pgadmin",
	}
	backups = []string{"pg_dump", "pg_basebackup", "barman", "pgbackrest", "wal-g"}
	probes  = []string{"health", "probe", "readiness", "liveness", "pg_isready"}
)

func has(application string, words []string) bool {
	name := strings.ToLower(application)
	return slices.ContainsFunc(words, func(word string) bool { return strings.Contains(name, word) })
}

func startsWith(query, word string) bool {
	return strings.HasPrefix(strings.ToUpper(strings.TrimSpace(query)), word)
}

// asksNothing reports whether a query only checks that the server answers.
func asksNothing(query string) bool {
	switch q := strings.ToLower(strings.Trim(query, " ;\n\t")); q {
	case "", "select 1", "select", "-- ping", "select version()", "select now()", "select true", "show server_version":
		return true
	default:
		return strings.HasPrefix(q, "select 1 as ") || strings.HasPrefix(q, "/* ping */")
	}
}
