package activity

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"ddtb/db"
)

// The steps are the only source of advice: for the doctor, for each finding's Do, and so for everything that shows
// findings. Least harm comes first. Each step says whom it hurts. No step ends sessions of an application other than
// the culprit.

// Step is an action, with its command if there is one.
type Step struct {
	Do      string `json:"do"`
	Command string `json:"command,omitempty"`
	Hurts   string `json:"hurts,omitempty"` // whom it hurts, and how; "" for ways to connect
}

// String returns the step as a sentence.
func (s Step) String() string {
	if s.Command == "" {
		return s.Do
	}
	return s.Do + ": `" + s.Command + "`"
}

// Complete returns the diagnosis with each command completed for its reader: where the program is, and which server it
// has to reach.
func (d Diagnosis) Complete(complete func(command string) string) Diagnosis {
	d.Health, d.Steps, d.Lab = d.Health.Complete(complete), completed(d.Steps, complete), complete(d.Lab)
	return d
}

// Complete is Diagnosis.Complete for the steps of the findings.
func (h Health) Complete(complete func(command string) string) Health {
	h.Findings = slices.Clone(h.Findings)
	for i, f := range h.Findings {
		h.Findings[i].Do, h.Findings[i].steps, h.Findings[i].lab = complete(f.Do), completed(f.steps, complete), complete(f.Lab())
	}
	return h
}

func completed(steps []Step, complete func(string) string) []Step {
	steps = slices.Clone(steps)
	for i, s := range steps {
		steps[i].Command = complete(s.Command)
	}
	return steps
}

const nobody = "nobody"

func (p *problem) endNothing(why string) Step {
	return Step{"end nothing: " + why, command("status"), nobody}
}

// steps returns what helps now, how to prevent a recurrence, and how to see that it worked.
func (p *problem) steps() []Step {
	if len(p.sessions) == 0 {
		return []Step{p.endNothing("no session has a slot any more")}
	}
	name, _ := p.recognise()
	first := reasons[p.Reason].first(p)
	steps := slices.Clone(first)
	if p.Reason != NotTracked { // nothing is known yet
		steps = append(steps, p.stepToPrevent(name))
	}
	if name == "thread-leak" && !p.own() && !p.backups() && p.now.Server.VersionNum >= closesIdle {
		steps = append(steps, p.stepToSet("until then let the server close idle sessions", "idle_session_timeout = '10min'",
			"a session that is idle for ten minutes is closed (57P05); a pool connects again"))
	}
	if name == "thread-leak" && p.judged(p.Holding) { // a switch closes the idle connections, and hurts nobody
		steps = append([]Step{switchTo(db.Pool, "it closes these sessions, opens pool.max_size connections at most, and requests queue for them")}, first...)
	}
	back := "slots come back"
	if p.Reason == WaitsForLock {
		back = "waits end"
	}
	return append(steps, Step{"watch the " + back, command("monitor --watch"), nobody})
}

// closesIdle is the version from which on idle_session_timeout exists.
const closesIdle = 140000

func (p *problem) firstForLogins() []Step { return p.stepsForLogins(p.sessions) }

func (p *problem) firstForHidden() []Step {
	return []Step{{"let this role see what other roles' sessions do, and ask again" + p.onPrimary(), p.now.GrantReadAll(), nobody}}
}

func (p *problem) firstForUntracked() []Step {
	user, _ := p.user()
	if p.now.Server.Managed { // which refuses the other command
		return []Step{{"let the server record what sessions do, and ask again", p.now.setSystem("track_activities = on"), nobody}}
	}
	return []Step{{
		Do:      "let the server record what they do, and ask again (for new sessions of role " + user + ")" + p.onPrimary(),
		Command: p.now.onPrimary("ALTER ROLE " + quoted(user) + " SET track_activities = on"),
		Hurts:   nobody,
	}}
}

func (p *problem) firstForChurn() []Step {
	who := p.sessions[0]
	return []Step{p.endNothing(fmt.Sprintf("they end by themselves; find the program that connects as %s in %s from %s",
		who.User, who.Database, cmp.Or(who.ClientAddress(), "an address that this role may not see")))}
}

// inOneDatabase returns the problem in the database that has most of its sessions, and how a sentence names that
// database: no command reaches more than one.
func (p *problem) inOneDatabase() (one *problem, where string) {
	databases := groups(p.sessions, func(s Session) Group { return Group{Database: s.Database} })
	if len(databases) < 2 {
		return p, ""
	}
	most, h := databases[0], p.Holding
	h.sessions = slices.DeleteFunc(slices.Clone(p.sessions), func(s Session) bool { return s.Database != most.Database })
	return p.of(h), fmt.Sprintf(" in database %s, the one of %d with most of them,", most.Database, len(databases))
}

func (p *problem) firstForIdle() []Step {
	scenario, _ := p.recogniseOther()
	one, where := p.inOneDatabase()
	rested, resting := one.restsFor(atRest)
	slots := p.t.OfSlots(p.now.Slots)
	switch {
	case len(resting) == 0:
		return []Step{p.endNothing("these sessions have rested for a moment only, so they are in use")}
	case slots < Critical && scenario == "replicas-times-pool":
		return []Step{p.endNothing("pools at rest open again what is closed")}
	case one.selector() == "":
		return []Step{p.endNothing("no filter tells these sessions from those of other programs")}
	}
	return one.stepsToEnd(resting, Step{
		Do:      fmt.Sprintf("close the %d%s that have been idle for %s (it shows them first, and asks)", len(resting), where, rested),
		Command: command("close-idle --older-than=" + rested + one.selector()),
		Hurts: "the programs of these sessions: a pool connects again; one without a handler for a lost connection may end, " +
			"or fail once with 57P01",
	})
}

func (p *problem) firstForLeak() []Step {
	if p.backups() {
		return []Step{p.endNothing("the transaction is that of a backup, whose other sessions read what it sees")}
	}
	one, where := p.inOneDatabase()
	rested, resting := one.restsFor(leaked)
	if one.selector() == "" {
		return one.stepsToEndIdle(one.longest(inState))
	}
	return one.stepsToEnd(resting, Step{
		Do:      fmt.Sprintf("end the %d transactions%s that have been idle for %s (it shows them first, and asks)", len(resting), where, rested),
		Command: command("close-idle --in-transaction --older-than=" + rested + one.selector()),
		Hurts:   one.Application + ": what these transactions changed is rolled back, and idle sessions of it are closed too",
	})
}

// stepsToEndIdle end a session that is idle, in a transaction or not.
func (p *problem) stepsToEndIdle(s Session) []Step {
	inTransaction, loses := "", "its lock is released, though another session of it may still work under the lock"
	if s.InTransactionIdle() {
		inTransaction, loses = "--in-transaction ", "what its transaction changed is rolled back"
	}
	return p.stepsToEnd([]Session{s}, Step{
		Do:      fmt.Sprintf("end %s: it does nothing, and keeps its locks", s.name()),
		Command: command(fmt.Sprintf("close-idle %s--older-than=0s --pid=%d", inTransaction, s.PID) + p.inDatabase(s)),
		Hurts:   "the program behind it (" + s.ClientAddress() + "): " + loses,
	})
}

// firstForClient terminates: a cancelled session would still wait for its client.
func (p *problem) firstForClient() []Step {
	worst := p.longest(inQuery)
	stopped, fails := "reading", "its export or report ends with an error"
	if p.Reason == UnsentData {
		stopped, fails = "sending", "its import ends with an error, and nothing of it is stored"
	}
	if p.backups() {
		return []Step{p.endNothing("a backup reads as fast as it can write; see that its disk is not full")}
	}
	return p.stepsToEnd([]Session{worst}, Step{
		Do: fmt.Sprintf("if its client at %s has stopped %s, end the session that has waited longest (%s, for %s); cancelling has no effect there",
			worst.ClientAddress(), stopped, worst.name(), Short(worst.InQuery.Duration())),
		Command: command(fmt.Sprintf("force-close --pid=%d", worst.PID) + p.inDatabase(worst)),
		Hurts:   "that client: " + fails,
	})
}

func (p *problem) firstForSlow() []Step {
	worst := p.longest(inQuery)
	if p.backups() {
		return []Step{p.endNothing("a backup takes its time")}
	}
	return p.stepsToCancel(worst, fmt.Sprintf("cancel the query that runs longest (%s, for %s); its session stays", worst.name(), Short(worst.InQuery.Duration())),
		"the client that sent it: it fails with 57014")
}

func (p *problem) stepsToCancel(s Session, do, hurts string) []Step {
	return p.stepsToSignal([]Session{s}, Step{do, command(fmt.Sprintf("cancel --pid=%d", s.PID)), hurts}, true)
}

// stepsToEnd end sessions as the monitoring role. If that role lacks the right, a step before grants it.
func (p *problem) stepsToEnd(sessions []Session, s Step) []Step {
	return p.stepsToSignal(sessions, s, false)
}

func (p *problem) stepsToSignal(sessions []Session, s Step, cancel bool) []Step {
	super := slices.ContainsFunc(sessions, func(x Session) bool { return x.Superuser })
	may := !slices.ContainsFunc(sessions, func(x Session) bool { return !x.MayEnd })
	if super {
		s.Command += " --superusers"
	}
	switch {
	case may:
		return []Step{s}
	case super && p.now.Server.Managed:
		return []Step{p.endNothing("only the provider of this server may end a session of its superuser")}
	case super:
		return []Step{{
			Do:      fmt.Sprintf("as a superuser, for %s may not end a superuser's session: %s", p.now.Role.Name, s.Do),
			Command: p.now.endSQL(sessions, cancel),
			Hurts:   s.Hurts,
		}}
	}
	grant := "GRANT pg_signal_backend TO " + quoted(p.now.Role.Name)
	return []Step{
		{"let this role end other roles' sessions, for the next step needs it" + p.onPrimary(), p.now.onPrimary(grant), nobody}, s,
	}
}

// The times with which close-idle is advised, the longest that fits first.
var (
	atRest = []time.Duration{5 * time.Minute, time.Minute, 30 * time.Second, 10 * time.Second, 2 * time.Second}
	leaked = []time.Duration{5 * time.Minute, time.Minute, 30 * time.Second, 0}
)

// restsFor returns the longest time for which at least half of the sessions have been idle, and those that have. Sessions
// that are reused within seconds are not surplus, so they are left alone.
func (p *problem) restsFor(times []time.Duration) (rested string, resting []Session) {
	for i, d := range times {
		resting = slices.DeleteFunc(slices.Clone(p.sessions), func(s Session) bool { return s.InState.Duration() < d })
		if 2*len(resting) >= len(p.sessions) || i == len(times)-1 {
			return Short(d), resting
		}
	}
	return "", nil
}

// backups reports whether the sessions are those of programs that copy the whole database.
func (p *problem) backups() bool { return has(p.Application, backups) }

func (p *problem) longest(age func(Session) Age) Session {
	return slices.MaxFunc(p.sessions, func(a, b Session) int { return cmp.Compare(age(a), age(b)) })
}

func (p *problem) firstForLock() []Step {
	roots := p.now.Roots()
	switch {
	case p.now.replayed(roots):
		return p.stepsForReplay()
	case p.moves():
		return []Step{p.endNothing("the queue moves: another session has the lock than a second ago, so each gets its turn")}
	case len(roots) == 0:
		return []Step{p.endNothing("the locks changed hands meanwhile; see who waits")}
	}
	if head, freed := p.now.queueHead(); freed > 0 {
		steps := p.stepsToCancel(head,
			fmt.Sprintf("cancel the statement that waits first (%s: %s): %s for it alone, and not for %s",
				head.name(), FirstWords(head.Query, 40), count(freed, "session waits", "sessions wait"), roots[0].name()),
			"the client that sent it: it fails with 57014, has changed nothing, and can be tried again")
		if !p.idles(roots[0], head) {
			return steps
		}
		known := func(s Step) bool { return slices.Contains(steps, s) } // both may need the same right
		return append(steps, slices.DeleteFunc(p.stepsToEndIdle(roots[0]), known)...)
	}
	switch root := roots[0]; {
	case root.PID == 0:
		return p.stepsForPreparedLock()
	case !root.Client() && strings.HasSuffix(root.Query, "(to prevent wraparound)"):
		return []Step{p.endNothing(root.name() + " prevents a wraparound, so it does not make way: let it finish, and try later what waits for it")}
	case !root.Client() && !root.Hidden && root.Kind != AutovacuumWorker:
		return p.stepsForWorker(root)
	case !root.Client():
		return []Step{p.endNothing(root.name() + " is the server's own work; it makes way by itself unless it prevents a wraparound")}
	case has(root.Application, backups):
		return []Step{p.endNothing(root.name() + " is a backup: let it finish, and try later what waits for it")}
	case root.Hidden:
		return []Step{{"let this role see what " + root.name() + " does, and ask again" + p.onPrimary(), p.now.GrantReadAll(), nobody}}
	case root.State == Idle || root.InTransactionIdle(): // idle: usually a session's advisory lock
		return p.stepsToEndIdle(root)
	case p.now.holdsAdvisoryLock(root):
		return append([]Step{p.endNothing(root.name() + " has an advisory lock, by which programs take turns: let it finish")}, p.stepsToEnd([]Session{root}, Step{
			Do:      fmt.Sprintf("if it is stuck, end its session (%s): cancelling its query may leave it the lock, which belongs to the session", root.name()),
			Command: command(fmt.Sprintf("force-close --pid=%d", root.PID) + p.inDatabase(root)),
			Hurts:   "the program behind it (" + root.ClientAddress() + "): its query fails, and what its transaction changed is rolled back",
		})...)
	default:
		return p.stepsToCancel(root, fmt.Sprintf("cancel the one query that all wait for (%s), if it is not worth the wait", root.name()),
			"the client that sent it: it fails with 57014, and its transaction is rolled back")
	}
}

// stepsForReplay are for a standby. The server itself cancels what is in the way of replay, after
// max_standby_streaming_delay.
func (p *problem) stepsForReplay() []Step {
	const why = "all wait for the replay of a change that locks the table"
	s, ok := p.now.inReplaysWay()
	switch {
	case !ok && p.now.hides():
		return []Step{{why + ": let this role see what is in its way, and ask again" + p.onPrimary(), p.now.GrantReadAll(), nobody}}
	case !ok:
		return []Step{p.endNothing(why + ": look on the primary" + p.primary() + " for the open transaction that made it")}
	case has(s.Application, backups):
		return []Step{p.endNothing(why + ", and replay most likely waits for a backup, " + s.name() + ": let it finish")}
	}
	steps := p.stepsToCancel(s, fmt.Sprintf("%s, and replay most likely waits for the oldest query here: cancel that, if it is not worth the wait (%s, for %s)",
		why, s.name(), Short(s.InTransaction.Duration())), "the client that sent it: it fails with 57014")
	if s.InTransactionIdle() {
		steps = p.stepsToEndIdle(s)
	}
	if s.MayEnd || s.Superuser {
		return steps
	}
	end := steps[len(steps)-1]
	return []Step{{
		Do:      "as a superuser, for a right that is granted on the primary arrives by replay only: " + end.Do,
		Command: p.now.endSQL([]Session{s}, s.State == Active),
		Hurts:   end.Hurts,
	}}
}

// stepsForWorker are those for a process of the server without a client that is not of autovacuum, such as the one that
// applies a subscription.
func (p *problem) stepsForWorker(root Session) []Step {
	from := fmt.Sprintf(" FROM pg_stat_activity WHERE pid = %d AND backend_type = '%s'", root.PID, strings.ReplaceAll(root.Kind, "'", "''"))
	return []Step{
		{
			Do:      fmt.Sprintf("see what %s does: it is a process of the server, and makes way when its transaction ends", root.name()),
			Command: p.now.psqlAsSuperuser("SELECT backend_type, wait_event_type, wait_event, xact_start, query" + from),
			Hurts:   nobody,
		},
		{
			Do:      "if it is stuck, end it",
			Command: p.now.psqlAsSuperuser("SELECT pg_terminate_backend(pid)" + from),
			Hurts:   "what its transaction changed is rolled back; a subscription's worker starts again with the same transaction",
		},
	}
}

func (p *problem) stepsForPreparedLock() []Step {
	if len(p.now.Prepared) == 0 {
		return []Step{p.endNothing("the prepared transaction has ended meanwhile")}
	}
	return p.stepsForPrepared(slices.MaxFunc(p.now.Prepared, func(a, b Prepared) int { return cmp.Compare(a.Waiting, b.Waiting) }))
}

func (p *problem) stepsForPrepared(x Prepared) []Step {
	here := p.now
	here.Database = x.Database // it can only be ended there
	literal := "'" + strings.ReplaceAll(x.GID, "'", "''") + "'"
	return []Step{
		{
			Do:      fmt.Sprintf("ask the transaction manager of %s what shall become of '%s': it may still commit it", x.Owner, x.GID),
			Command: here.psqlAsSuperuser("SELECT gid, prepared, owner, database FROM pg_prepared_xacts ORDER BY prepared"),
			Hurts:   nobody,
		},
		{
			Do:      "if the manager does not know it any more, roll it back",
			Command: here.psqlAsSuperuser("ROLLBACK PREPARED " + literal),
			Hurts:   "its application: what it changed is lost, while other databases of the same transaction may have committed",
		},
	}
}

// stepsForPooler let a pool grow by the setting that bounds it, so that all pools that share the setting still fit.
func (p *problem) stepsForPooler(pool Pool) []Step {
	free, servers := p.now.Slots.Free(), pool.servers()
	b := cmp.Or(p.now.bouncer, &bouncer{poolSize: servers, pools: 1})
	setting, what, size, sharing := "default_pool_size", "pool", servers, b.pools
	if p.databaseFull(pool) {
		setting, what, size, sharing = "max_db_connections", "database", b.perDatabase, b.databases
	}
	more := min(pool.ClientWaiting, max(1, free/2), free/sharing)
	switch {
	case free == 0:
		return []Step{p.endNothing("the pool can't grow, for the server has no slot left; find who else has them")}
	case servers == 0 && what == "pool":
		return []Step{{
			Do: "see why the pool has no connection at all: its database is paused or disabled there (RESUME, or ENABLE, ends that), " +
				"max_user_connections is reached, or logins fail (see PgBouncer's log)",
			Command: p.now.console("SHOW DATABASES"),
			Hurts:   nobody,
		}}
	case what == "pool" && servers != b.poolSize:
		return []Step{{
			Do: fmt.Sprintf("see why the pool does not have the %d connections of default_pool_size: its database's pool_size or max_db_connections, "+
				"max_user_connections, reserve_pool_size, or logins that fail (see PgBouncer's log); the server has %s free",
				b.poolSize, count(free, "slot", "slots")),
			Command: p.now.console("SHOW DATABASES"),
			Hurts:   nobody,
		}}
	case more == 0:
		return []Step{p.endNothing(fmt.Sprintf("%s holds for each of %d, and the server has %s free; give %s %s a larger size of its own in pgbouncer.ini",
			setting, sharing, count(free, "slot", "slots"), what, pool.Database))}
	}
	do := fmt.Sprintf("let each %s have %d connections instead of %d: the server has %s free; this needs one of admin_users, and for good "+
		"%s in pgbouncer.ini", what, size+more, size, count(free, "slot", "slots"), setting)
	return []Step{
		{do, p.now.console(fmt.Sprintf("SET %s = %d", setting, size+more)), "nobody, but the server has that much more to do at once"},
		{"see that nobody waits any more", p.now.console("SHOW POOLS"), nobody},
		{
			Do: "if they still wait, make transactions shorter: a client keeps its connection until its transaction ends (pool_mode = transaction), " +
				"or until it disconnects (session)",
			Command: command("status"),
			Hurts:   nobody,
		},
	}
}

// databaseFull reports whether max_db_connections, and not the pool's size, leaves the pool no further connection.
func (p *problem) databaseFull(pool Pool) bool {
	b := p.now.bouncer
	return b != nil && b.perDatabase > 0 && pool.servers() < b.poolSize && p.pooled(pool.Database) >= b.perDatabase
}

// pooled returns how many connections PgBouncer has to a database.
func (p *problem) pooled(database string) (n int) {
	for _, x := range p.now.Pools {
		if x.Database == database {
			n += x.servers()
		}
	}
	return n
}

func (p *problem) stepsForPoolerClients(l Limit) []Step {
	return []Step{
		{"see which programs have them", p.now.console("SHOW CLIENTS"), nobody},
		{
			Do: fmt.Sprintf("let PgBouncer have %d clients; this needs one of admin_users, and for good %s in pgbouncer.ini and as many file descriptors "+
				"(ulimit -n)", 2*l.Max, l.Name),
			Command: p.now.console(fmt.Sprintf("SET %s = %d", l.Name, 2*l.Max)),
			Hurts:   "nobody: the server's connections stay as many as the pools allow",
		},
	}
}

func (p *problem) stepsForSync() []Step {
	return []Step{
		{
			Do:      "bring the standby back; these are connected",
			Command: p.now.psqlAsSuperuser("SELECT application_name, state, sync_state FROM pg_stat_replication"),
			Hurts:   nobody,
		},
		{
			Do:      "if it stays away, commit without it",
			Command: p.now.setSystem("synchronous_standby_names = ''"),
			Hurts:   "durability: until it is set again, a commit is on this machine only. Cancelling a commit would do the same without saying so to others",
		},
	}
}

func (p *problem) stepsForLimit(l Limit) []Step {
	name := p.now.largest(l)
	if !slices.ContainsFunc(p.now.within(l), func(s Session) bool { return !has(s.Application, monitors) }) {
		return []Step{{"let the monitoring keep one connection; its limit leaves the other slots to the applications", command("status"), nobody}}
	}
	smaller := Step{"make the pools of " + name + " smaller", command("status"), nobody}
	used := max(1, l.Max, l.Used) // above the limit if that was lowered, or if some are a superuser's
	most := min(2*used, used+p.now.Slots.Free())
	if most <= used {
		return []Step{smaller}
	}
	sql := fmt.Sprintf("ALTER %s %s CONNECTION LIMIT %d", strings.ToUpper(l.Of), quoted(l.Name), most)
	smaller.Do = "or " + smaller.Do
	return []Step{{
		Do:      "raise the limit, which takes effect at once" + p.onPrimary(),
		Command: p.now.onPrimary(sql),
		Hurts:   "nobody now; fewer slots are left for others",
	}, smaller}
}

// stepToPrevent says how to prevent a recurrence.
func (p *problem) stepToPrevent(scenario string) Step {
	if has(p.culprit(), backups) {
		return p.endNothing("a limit would end the backup; let it run when the server has little else to do, or on a standby that serves nobody")
	}
	switch scenario {
	case "lock-queue":
		if p.now.replayed(p.now.Roots()) {
			if _, ok := p.now.inReplaysWay(); !ok {
				return Step{"on the primary, make transactions short that change a table: their lock holds here too", command("status"), nobody}
			}
			return Step{
				Do:      "let this standby cancel sooner what is in the way of replay",
				Command: p.now.setSystem("max_standby_streaming_delay = '10s'"),
				Hurts:   "queries here that need longer, and conflict with a change of the primary: they fail with 40001",
			}
		}
		if p.moves() {
			return Step{"make the transaction that holds the lock shorter, and let it touch the contended row last", command("status"), nobody}
		}
		user, super := p.user()
		head, freed := p.now.queueHead()
		if roots := p.now.Roots(); len(roots) > 0 && p.idles(roots[0], head) {
			return p.stepToPrevent("leaked-transaction")
		}
		if waiting := p.now.waiting(); freed == 0 && len(waiting) > 0 { // the culprit itself waits for nothing
			user, super = roleOf(waiting)
		}
		return p.stepToSetFor(user, super, "bound how long anything waits for a lock, migrations above all, and try again later", "lock_timeout = '2s'",
			"what waits longer fails with 55P03, and must be tried again")
	case "leaked-transaction":
		return p.stepToSet("let the server end such transactions; then find the code that returns without COMMIT or ROLLBACK",
			"idle_in_transaction_session_timeout = '1min'", "a transaction that pauses for a minute is rolled back, and its session closed")
	case "call-inside-transaction", "nested-acquire":
		return p.stepToSet("move the call before BEGIN or after COMMIT; until then bound it",
			"idle_in_transaction_session_timeout = '30s'", "a transaction that pauses for half a minute is rolled back, and its session closed")
	case "stream-holds-lease":
		if p.Reason == UnsentData {
			return Step{
				Do:      "let the program have its rows before it begins to send them; statement_timeout has no effect while the server waits for a client",
				Command: command("status"),
				Hurts:   nobody,
			}
		}
		return p.stepToSet("read into memory or a file first, or give streams a pool of their own; bound how long one may take",
			"statement_timeout = '5min'", "a statement over five minutes fails with 57014")
	case "cancel-snowball":
		return p.stepToSet("let a client that gives up cancel its query, and bound every query on the server, below what clients wait for",
			"statement_timeout = '10s'", "a statement over ten seconds fails with 57014, reports and backups of the role too")
	case "slow-query-pile-up":
		return p.stepToSet("bound every query, then find out why it is slow (EXPLAIN ANALYZE)",
			"statement_timeout = '10s'", "a statement over ten seconds fails with 57014, reports and backups of the role too")
	case "half-open":
		return Step{
			Do: fmt.Sprintf("let the server find out sooner that a client is gone: it asks after %s of silence (tcp_keepalives_idle)",
				Short(cmp.Or(p.now.Server.Keepalive.Duration(), 2*time.Hour))),
			Command: p.now.setSystem("tcp_keepalives_idle = 60"),
			Hurts:   nobody,
		}
	case "probe-connects":
		return Step{
			Do:      "let the probe ask the application, or keep one connection; a probe of the server itself needs no login: pg_isready",
			Command: "pg_isready" + p.now.at(),
			Hurts:   nobody,
		}
	case "monitor-leaks":
		return p.stepToLimit("let the monitoring keep one connection; bound it meanwhile", 3)
	case "noisy-neighbour":
		return p.stepToLimit("bound what the other application may have, so that some slots are left for this one", max(1, p.now.Slots.Usable()/2))
	}
	return p.stepToPreventInProgram(scenario)
}

// stepToPreventInProgram is stepToPrevent by a change of the program's code or configuration, not a statement.
func (p *problem) stepToPreventInProgram(scenario string) Step {
	pool := p.poolSetting()
	switch scenario {
	case "migrate-refused":
		return Step{"migrate once, in a step of its own before the replicas start, and take it out of their start", command("budget"), nobody}
	case "rows-not-closed":
		return Step{"close every result, also on the way out after an error; find the code by its query", command("status --json"), nobody}
	case "too-much-at-once":
		return Step{"use a pool with a bound and a queue: " + pool, command("budget"), nobody}
	case "reconnect-stampede":
		return Step{"make clients wait longer after each failure, with jitter, and bound their pools", command("budget"), nobody}
	case "listen-pins-slot":
		return Step{"share one LISTEN connection among all modules of a process", command("status"), nobody}
	case "thread-leak":
		return Step{"give connections to requests rather than threads: " + pool, command("budget"), nobody}
	case "hidden-second-pool":
		return Step{"give both pools of the program one bound between them; see what fits", command("budget"), nobody}
	}
	return Step{"make pools so small that all of them together fit, also during a deploy: " + pool, command("budget"), nobody}
}

// poolSetting returns what bounds the culprit's pool: our own key for our own program only.
func (p *problem) poolSetting() string {
	if p.own() {
		return `strategy = "pool", and the pool.max_size that fits`
	}
	text := inItsOwn
	if len(p.now.Pools) == 0 {
		text += ", or PgBouncer in front of it"
	}
	return text
}

// stepToSet makes a setting of the culprit's role, never of all clients. A superuser's role is not changed either: backups
// and migrations may have it too.
func (p *problem) stepToSet(do, setting, hurts string) Step {
	user, super := p.user()
	return p.stepToSetFor(user, super, do, setting, hurts)
}

func (p *problem) stepToSetFor(user string, super bool, do, setting, hurts string) Step {
	if super {
		return Step{
			Do:      fmt.Sprintf("%s: it logs in as the superuser %s, so give it a role of its own, with this setting%s", do, user, p.onPrimary()),
			Command: p.now.onPrimary("CREATE ROLE its_own LOGIN; ALTER ROLE its_own SET " + setting),
			Hurts:   nobody,
		}
	}
	as := p.now.Server.Superuser
	if p.now.Role.Superuser || p.now.Role.Name == user {
		as = p.now.Role.Name
	}
	return Step{
		Do:      fmt.Sprintf("%s (for new sessions of every program of role %s)%s", do, user, p.onPrimary()),
		Command: p.now.onPrimaryAs(as, "ALTER ROLE "+quoted(user)+" SET "+setting),
		Hurts:   "every program of role " + user + ": " + hurts,
	}
}

func (p *problem) onPrimary() string {
	if !p.now.Server.Standby {
		return ""
	}
	return "; on the primary" + p.primary() + ", for this is a standby"
}

// stepToLimit limits the culprit's connections only: those of its role, or of its database if no other application uses it.
func (p *problem) stepToLimit(do string, n int) Step {
	mine := func(x Session) bool {
		return slices.ContainsFunc(p.sessions, func(s Session) bool { return s.PID == x.PID })
	}
	shares := func(same func(a, b Session) bool) bool {
		return len(p.now.clients(func(x Session) bool {
			return !x.Self && !mine(x) && x.Who() != p.sessions[0].Who() && same(x, p.sessions[0])
		})) > 0
	}
	s, limit := p.sessions[0], fmt.Sprintf(" CONNECTION LIMIT %d", n)
	hurts := "the culprit alone: beyond the limit its logins fail with 53300"
	switch {
	case s.Superuser:
		return Step{do + ": it logs in as a superuser, whom no limit holds, so give it a role of its own", p.now.onPrimary("CREATE ROLE its_own LOGIN" + limit), nobody}
	case s.User != p.now.Role.Name && !shares(func(a, b Session) bool { return a.User == b.User }):
		return Step{do + p.onPrimary(), p.now.onPrimary("ALTER ROLE " + quoted(s.User) + limit), hurts}
	case s.Database != p.now.Database && !shares(func(a, b Session) bool { return a.Database == b.Database }):
		return Step{do + p.onPrimary(), p.now.onPrimary("ALTER DATABASE " + quoted(s.Database) + limit), hurts}
	}
	return Step{do + ": it shares its role with others, so give it one of its own, which has a limit", p.now.onPrimary("CREATE ROLE its_own LOGIN" + limit), nobody}
}

// user returns the role of most of the culprit's sessions, and whether it is a superuser.
func (p *problem) user() (name string, super bool) {
	mine := p.now.clients(func(s Session) bool { return s.Who() == p.culprit() })
	if len(mine) == 0 { // a family has many names
		mine = p.sessions
	}
	return roleOf(mine)
}

// roleOf returns the role of most of the sessions, and whether it is a superuser.
func roleOf(sessions []Session) (name string, super bool) {
	name = groups(sessions, func(s Session) Group { return Group{User: s.User} })[0].User
	return name, slices.ContainsFunc(sessions, func(s Session) bool { return s.User == name && s.Superuser })
}

// selector limits a command to the culprit's sessions; "" if no filter does.
func (p *problem) selector() string {
	s := p.sessions[0]
	in := p.inDatabase(s)
	chosenToo := func(x Session) bool {
		return x.Database == s.Database && named(x.Application, p.Application) && p.family.name(x) != p.Application
	}
	switch {
	case strings.HasSuffix(p.Application, anyName) && slices.ContainsFunc(p.now.programs(), chosenToo):
		return ""
	case p.Application == s.Application && s.Application != "", strings.HasSuffix(p.Application, anyName):
		return " --application=" + ShellQuote(p.Application) + in
	case p.Application == s.Who() && slices.Contains(drivers, s.Application):
		return " --application=" + ShellQuote(s.Application) + " --user=" + ShellQuote(s.User) + in
	case s.Application == "": // many programs may have no name
		return " --application='' --user=" + ShellQuote(s.User) + in
	case p.family.alone[s.role()]:
		return " --user=" + ShellQuote(s.User) + in
	}
	return ""
}

func (p *problem) inDatabase(s Session) string {
	if s.Database == p.now.Database {
		return ""
	}
	return " --database=" + ShellQuote(s.Database)
}
