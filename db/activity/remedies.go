package activity

import (
	"cmp"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// steps are three: relief for now, the cure, and how to see that it worked. Nothing in them ends a session of
// anybody but the culprit, nor one that works.
func (c *patient) steps(scenario string) []Step {
	return []Step{c.relief(), c.cure(scenario), {"watch the slots come back", command("monitor --watch")}}
}

func (c *patient) relief() Step {
	switch c.Reason {
	case WaitsForLock:
		return c.reliefFromLock()
	case LeakedTx:
		return Step{
			"end the transactions that nobody continues (it shows them first, and asks)",
			command("close-idle --in-transaction --older-than=" + c.restsFor() + c.selector()),
		}
	case PausesInTx:
		return Step{"end nothing: these transactions are young; see how long they stay open, and on what", command("status")}
	case UnreadRows, SlowQuery:
		worst := c.longestQuery()
		return Step{
			fmt.Sprintf("cancel the query that runs longest (pid %d, %s); its session stays",
				worst.PID, Short(worst.InQuery.Duration())),
			command(fmt.Sprintf("cancel --pid=%d", worst.PID)),
		}
	case CannotBeSeen:
		return Step{
			"let this role see what other roles' sessions do, and ask again",
			c.now.GrantReadAll(),
		}
	case Comes:
		who := c.sessions[0]
		return Step{
			fmt.Sprintf("end nothing: they end by themselves; find the program that connects as %s in %s from %s",
				who.User, who.Database, cmp.Or(who.Address, "an address that this role may not see")),
			command("status"),
		}
	case Works:
		return Step{"end nothing: these sessions work; send less at once, or queue before the database", command("status")}
	}
	return Step{
		"close what has been idle for long (it shows the sessions first, and asks)",
		command("close-idle --older-than=" + c.restsFor() + c.selector()),
	}
}

// restsFor is for how long half of the culprit's sessions have rested at least, in round figures. What is used
// again within seconds is left alone: it is not what is too much.
func (c *patient) restsFor() string {
	for _, d := range []time.Duration{5 * time.Minute, time.Minute, 30 * time.Second} {
		n := 0
		for _, s := range c.sessions {
			if s.InState.Duration() >= d {
				n++
			}
		}
		if 2*n >= len(c.sessions) {
			return Short(d)
		}
	}
	return "10s"
}

func (c *patient) reliefFromLock() Step {
	roots := c.now.Roots()
	if len(roots) == 0 {
		return Step{"end nothing yet: the locks changed hands while we looked; see who waits", command("status")}
	}
	switch root := roots[0]; {
	case root.PID == 0:
		return Step{
			"end the prepared transaction that all wait for: find its gid, then ROLLBACK PREPARED 'gid'",
			c.now.psql(c.now.Role.Name, "SELECT gid, prepared, owner FROM pg_prepared_xacts ORDER BY prepared"),
		}
	case !root.Client():
		return Step{
			"end nothing: " + root.name() + " is the server's own work; it makes way by itself unless it prevents a wraparound",
			command("status"),
		}
	case root.InTransactionIdle():
		return Step{
			fmt.Sprintf("end %s (pid %d, %s): it does nothing, and keeps its locks", theOne(roots), root.PID, root.Who()),
			command(fmt.Sprintf("close-idle --in-transaction --older-than=0s --pid=%d", root.PID) + c.inDatabase(root)),
		}
	case root.State == Idle: // of a session, not of a transaction: an advisory lock, mostly
		return Step{
			fmt.Sprintf("end the one session that all wait for (pid %d, %s), if it has forgotten its lock: it does nothing",
				root.PID, root.Who()),
			command(fmt.Sprintf("close-idle --older-than=0s --pid=%d", root.PID) + c.inDatabase(root)),
		}
	case root.Hidden:
		return Step{
			"let this role see what " + root.name() + " does, and ask again",
			c.now.GrantReadAll(),
		}
	default:
		return Step{
			fmt.Sprintf("cancel the one query that all wait for (pid %d, %s), if it is not worth the wait", root.PID, root.Who()),
			command(fmt.Sprintf("cancel --pid=%d", root.PID)),
		}
	}
}

// theOne is the first of those that others wait for.
func theOne(roots []Session) string {
	if len(roots) == 1 {
		return "the one session that all wait for"
	}
	return fmt.Sprintf("the first of %d sessions that others wait for, then ask again", len(roots))
}

func (c *patient) longestQuery() (worst Session) {
	for _, s := range c.sessions {
		if s.InQuery > worst.InQuery {
			worst = s
		}
	}
	return worst
}

// cure is what keeps it from coming back.
func (c *patient) cure(scenario string) Step {
	role := "ALTER ROLE " + pgx.Identifier{cmp.Or(c.user(), "name")}.Sanitize()
	set := func(what string) string { return c.now.psql(c.mayAlter(), role+" SET "+what) }
	switch scenario {
	case "lock-queue":
		return Step{"bound how long anything waits for a lock, migrations above all, and try again later", set("lock_timeout = '2s'")}
	case "leaked-transaction":
		return Step{
			"let the server end such transactions; then find the code that returns without COMMIT or ROLLBACK",
			set("idle_in_transaction_session_timeout = '1min'"),
		}
	case "call-inside-transaction":
		return Step{
			"move the call before BEGIN or after COMMIT; until then bound it",
			set("idle_in_transaction_session_timeout = '30s'"),
		}
	case "migrate-refused":
		return Step{"migrate once, in a step of its own before the replicas start: `ddtb migrate`; take it out of their start", command("budget")}
	case "stream-holds-lease":
		return Step{
			"read into memory or a file first, or give streams a pool of their own; bound how long one may take",
			set("statement_timeout = '5min'"),
		}
	case "cancel-snowball":
		return Step{
			"let a client that gives up cancel its query, and bound every query on the server, below the clients' patience",
			set("statement_timeout = '10s'"),
		}
	case "probe-connects":
		return Step{
			"let the probe ask the application, or keep one connection; a probe of the server itself needs no login: pg_isready",
			c.isReady(),
		}
	case "half-open":
		return Step{
			fmt.Sprintf("let the server find out sooner that a client is gone: it asks after %s of silence (tcp_keepalives_idle)",
				Short(cmp.Or(c.now.Server.Keepalive.Duration(), 2*time.Hour))),
			c.now.psql(superuser, "ALTER SYSTEM SET tcp_keepalives_idle = 60") + " -c 'SELECT pg_reload_conf()'",
		}
	case "rows-not-closed":
		return Step{"close every result, also on the way out after an error; find the code by its query", command("status --json")}
	case "slow-query-pile-up":
		return Step{"bound every query, then find out why it is slow (EXPLAIN ANALYZE)", set("statement_timeout = '10s'")}
	case "too-much-at-once":
		return Step{"use a pool with a bound and a queue: strategy = \"pool\", and the max_size that fits", command("budget")}
	case "reconnect-stampede":
		return Step{"make clients wait longer after each failure, with jitter, and bound their pools", command("budget")}
	case "listen-pins-slot":
		return Step{"share one LISTEN connection among all modules of a process", command("status")}
	case "thread-leak":
		return Step{
			"give connections to requests rather than threads: strategy = \"pool\", and the max_size that fits",
			command("budget"),
		}
	case "monitor-leaks":
		return c.bound("let what watches keep one connection; bound it meanwhile", 3)
	case "noisy-neighbour":
		return c.bound("bound what the other application may have, so that some slots are left for this one", max(1, c.now.Slots.Usable()/2))
	case "hidden-second-pool":
		return Step{"give both pools of the program one bound between them; see what fits", command("budget")}
	}
	return Step{"make pools so small that all of them together fit, also during a deploy", command("budget")}
}

// bound is a limit on the culprit's connections, and on nobody else's: on its role, or its database, if it has one for
// itself.
func (c *patient) bound(do string, n int) Step {
	shares := func(same func(a, b Session) bool) bool {
		return len(c.now.clients(func(x Session) bool { return !x.Self && x.Who() != c.Application && same(x, c.sessions[0]) })) > 0
	}
	limit := fmt.Sprintf(" CONNECTION LIMIT %d", n)
	switch s := c.sessions[0]; {
	case !shares(func(a, b Session) bool { return a.User == b.User }):
		return Step{do, c.now.psql(superuser, "ALTER ROLE "+pgx.Identifier{s.User}.Sanitize()+limit)}
	case !shares(func(a, b Session) bool { return a.Database == b.Database }) && s.Database != c.now.Database:
		return Step{do, c.now.psql(superuser, "ALTER DATABASE "+pgx.Identifier{s.Database}.Sanitize()+limit)}
	}
	return Step{do + ": it shares its role with others, so give it one of its own, which has a limit", c.now.psql(superuser, "CREATE ROLE its_own LOGIN"+limit)}
}

// user is the role that most of the culprit's sessions have.
func (c *patient) user() string {
	n, most := map[string]int{}, ""
	for _, s := range c.now.Sessions {
		if s.Client() && s.Who() == c.culprit() && !s.Superuser {
			n[s.User]++
			if n[s.User] > n[most] {
				most = s.User
			}
		}
	}
	return most
}

// mayAlter is a role that may change the settings of the culprit's: itself, if that is who looks.
func (c *patient) mayAlter() string {
	if c.now.Role.Superuser || c.now.Role.Name == c.user() {
		return c.now.Role.Name
	}
	return superuser
}

// selector limits a command to the culprit's sessions.
func (c *patient) selector() string {
	s := c.sessions[0]
	by := " --application=" + ShellQuote(s.Application)
	if s.Application == "" { // there may be programs of all kinds without a name
		by += " --user=" + ShellQuote(s.User)
	}
	return by + c.inDatabase(s)
}

func (c *patient) inDatabase(s Session) string {
	if s.Database == c.now.Database {
		return ""
	}
	return " --database=" + ShellQuote(s.Database)
}

// command is one of ours.
func command(rest string) string { return "ddtb db-connections " + rest }

// superuser is what PostgreSQL's packages call theirs.
const superuser = "postgres"

// at is how PostgreSQL's programs are told of this server.
func (s Snapshot) at() string {
	if host, port, err := net.SplitHostPort(s.Server.Address); err == nil {
		return " -h " + ShellQuote(host) + " -p " + port
	}
	return " -h " + ShellQuote(s.Server.Address)
}

func (c *patient) isReady() string { return "pg_isready" + c.now.at() }

// psql is the command that runs a statement on this server as that role.
func (s Snapshot) psql(role, sql string) string {
	return "psql" + s.at() + " -U " + ShellQuote(role) + " -d " + ShellQuote(s.Database) + " -c " + ShellQuote(sql)
}

// GrantReadAll is the command that lets the role that looks see what other roles' sessions do.
func (s Snapshot) GrantReadAll() string {
	return s.psql(superuser, "GRANT pg_read_all_stats TO "+pgx.Identifier{s.Role.Name}.Sanitize())
}

// ShellQuote leaves plain words alone.
func ShellQuote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-./:=,@%+", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
