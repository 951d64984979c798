package activity

import (
	"slices"
	"strings"
)

// patient is one server in trouble: the worst holding, and what is around it.
type patient struct {
	Holding
	now   Snapshot
	all   []Holding
	churn float64
	t     Thresholds
}

// culprit is the application to blame: of a lock queue, the one that all wait for, not those who wait.
func (c *patient) culprit() string {
	if roots := c.now.Roots(); c.Reason == WaitsForLock && len(roots) > 0 {
		return roots[0].Who()
	}
	return c.Application
}

// most tells whether it holds for more than half of the culprit's sessions.
func (c *patient) most(is func(Session) bool) bool {
	n := 0
	for _, s := range c.sessions {
		if is(s) {
			n++
		}
	}
	return 2*n > len(c.sessions)
}

// own tells whether the culprit is the application whose configuration is known.
func (c *patient) own() bool { return belongs(c.sessions[0].Application, c.now.Application) }

// recognise names the scenario, and another that looks the same from outside, or "".
func (c *patient) recognise() (name, also string) {
	switch c.Reason {
	case WaitsForLock:
		return c.recogniseLock()
	case LeakedTx:
		return "leaked-transaction", ""
	case PausesInTx:
		return c.recognisePause()
	case UnreadRows:
		if c.most(func(s Session) bool { return startsWith(s.Query, "COPY") }) {
			return "stream-holds-lease", "rows-not-closed"
		}
		return "rows-not-closed", "stream-holds-lease"
	case SlowQuery:
		return c.recogniseSlow()
	case Listens:
		return "listen-pins-slot", ""
	case Comes:
		return c.recogniseChurn()
	case CannotBeSeen:
		return "noisy-neighbour", ""
	}
	switch watches := has(c.Application, monitors) || has(c.Application, probes); {
	case watches && c.Reason == Rests:
		return "monitor-leaks", ""
	case c.most(c.foreign):
		return "noisy-neighbour", ""
	case c.Reason == Works:
		return "too-much-at-once", ""
	}
	return c.recogniseIdle()
}

func (c *patient) recogniseLock() (name, also string) {
	advisory := 0
	for _, h := range c.all {
		if h.Reason != WaitsForLock {
			continue
		}
		for _, s := range h.sessions {
			if s.Wait == "Lock/advisory" {
				advisory++
			}
		}
	}
	waiting := len(c.now.clients(func(s Session) bool { return s.Waits }))
	switch roots := c.now.Roots(); {
	case 2*advisory > waiting:
		return "migrate-refused", "lock-queue"
	case len(roots) > 0 && roots[0].InTransactionIdle():
		return "lock-queue", "leaked-transaction"
	}
	return "lock-queue", ""
}

// recognisePause tells young transactions apart, which do something else than query.
func (c *patient) recognisePause() (name, also string) {
	switch {
	case c.most(func(s Session) bool { return startsWith(s.Query, "FETCH") || startsWith(s.Query, "DECLARE") }):
		return "stream-holds-lease", "call-inside-transaction"
	case c.own() && c.t.Own > 0 && c.Sessions >= c.t.Own: // the whole pool at once
		return "call-inside-transaction", "nested-acquire"
	}
	return "call-inside-transaction", "leaked-transaction"
}

func (c *patient) recogniseSlow() (name, also string) {
	if c.most(c.foreign) {
		return "noisy-neighbour", ""
	}
	same := c.sessions[0].Query
	if c.own() && c.t.Own > 0 && c.Sessions > c.t.Own && c.most(func(s Session) bool { return s.Query == same }) {
		return "cancel-snowball", "slow-query-pile-up"
	}
	return "slow-query-pile-up", "cancel-snowball"
}

func (c *patient) recogniseChurn() (name, also string) {
	switch {
	case c.restarted():
		return "reconnect-stampede", "too-much-at-once"
	case has(c.Application, probes) || c.most(func(s Session) bool { return asksNothing(s.Query) }):
		return "probe-connects", "too-much-at-once"
	}
	return "too-much-at-once", "probe-connects"
}

func (c *patient) restarted() bool { return c.now.At.Sub(c.now.Server.Started) < c.t.Restarted }

// foreign tells whether a session is somebody else's. Where the configured application has sessions, that is one in a
// database or of a role that they don't use; else one in another database than the one that is connected to, unless
// that is PostgreSQL's own, from where an operator looks at all the others.
func (c *patient) foreign(s Session) bool {
	if belongs(s.Application, c.now.Application) {
		return false
	}
	ours := c.ours()
	if len(ours) == 0 {
		return s.Database != c.now.Database && c.now.Database != "postgres" && c.now.Database != "template1"
	}
	uses := func(same func(Session) bool) bool { return slices.ContainsFunc(ours, same) }
	return !uses(func(x Session) bool { return x.Database == s.Database }) || !uses(func(x Session) bool { return x.User == s.User })
}

// ours are the sessions of the configured application, but for those that watch.
func (c *patient) ours() []Session {
	return c.now.clients(func(x Session) bool {
		return !x.Self && belongs(x.Application, c.now.Application) && !isMonitor(c.now, x)
	})
}

// recogniseIdle tells scenarios apart that all end in idle sessions.
func (c *patient) recogniseIdle() (name, also string) {
	addresses := map[string]bool{}
	for _, s := range c.sessions {
		addresses[s.Address] = true
	}
	usedOnce := func(s Session) bool { return s.Query != "" && s.Age-s.InState < seconds(2) }
	switch {
	case c.most(func(s Session) bool { return strings.Contains(strings.ToLower(s.Query), "advisory_lock") }):
		return "migrate-refused", "lock-queue" // they try it again and again instead of waiting in the server
	case c.most(c.fromSilence()):
		return "half-open", "replicas-times-pool"
	case strings.HasSuffix(c.Application, "/persistent"):
		return "thread-leak", ""
	case len(addresses) > 2:
		return "replicas-times-pool", ""
	case !c.own() && c.besideOurs():
		return "hidden-second-pool", "replicas-times-pool"
	case c.most(usedOnce) && len(c.sessions) >= 5:
		return "thread-leak", "missed-close"
	case c.secondPool():
		return "hidden-second-pool", "replicas-times-pool"
	}
	return "replicas-times-pool", "hidden-second-pool"
}

// fromSilence finds sessions from addresses where nobody has stirred for long, while the same application is at
// work at others.
func (c *patient) fromSilence() func(Session) bool {
	stirs, elsewhere := map[string]bool{}, false
	for _, s := range c.now.clients(func(s Session) bool { return !s.Self && !isMonitor(c.now, s) }) {
		if s.State != Idle || s.InState.Duration() < c.t.Silent {
			stirs[s.Address] = true
			elsewhere = elsewhere || s.Who() == c.Application
		}
	}
	return func(s Session) bool { return elsewhere && s.Address != "local" && !stirs[s.Address] }
}

// besideOurs tells whether the configured application has sessions with the same role from the same address: what
// connects from there under another name, or none, is most likely the same program.
func (c *patient) besideOurs() bool {
	return slices.ContainsFunc(c.ours(), func(s Session) bool {
		return s.User == c.sessions[0].User && s.Address == c.sessions[0].Address
	})
}

// secondPool tells whether the same clients have many idle sessions under another name as well.
func (c *patient) secondPool() bool {
	for _, h := range c.all {
		if h.Reason == Rests && h.Application != c.Application && 4*h.Sessions >= c.Sessions && len(h.sessions) > 2 &&
			h.sessions[0].Address == c.sessions[0].Address && h.sessions[0].User == c.sessions[0].User {
			return true
		}
	}
	return false
}

// What programs that watch call themselves.
var (
	monitors = []string{
		"monitor", "exporter", "pghero", "zabbix", "datadog", "telegraf", "pgwatch", "pganalyze", "nagios", "check_postgres", "icinga",
		"newrelic", "nri-postgresql", "prometheus", "grafana", "pmm-agent", "netdata", "pgadmin",
	}
	probes = []string{"health", "probe", "readiness", "liveness", "pg_isready"}
)

func has(application string, words []string) bool {
	name := strings.ToLower(application)
	return slices.ContainsFunc(words, func(word string) bool { return strings.Contains(name, word) })
}

func startsWith(query, word string) bool {
	return strings.HasPrefix(strings.ToUpper(strings.TrimSpace(query)), word)
}

// asksNothing tells whether a query only sees whether the server answers.
func asksNothing(query string) bool {
	switch q := strings.ToLower(strings.Trim(query, " ;\n\t")); q {
	case "", "select 1", "select", "-- ping", "select version()", "select now()", "select true", "show server_version":
		return true
	default:
		return strings.HasPrefix(q, "select 1 as ") || strings.HasPrefix(q, "/* ping */")
	}
}
