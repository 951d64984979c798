package activity

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"ddtb/config"
	"ddtb/db"
)

// Level is a verdict. Its numbers are the exit codes of monitoring plugins.
type Level int

// The levels.
const (
	OK Level = iota
	Warning
	Critical
	Unknown // the server could not be polled, for a reason unrelated to its slots
)

var levelNames = []string{"ok", "warning", "critical", "unknown"}

func (l Level) String() string { return levelNames[l] }

// MarshalText writes the name.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads the output of MarshalText.
func (l *Level) UnmarshalText(b []byte) error {
	i := slices.Index(levelNames, string(b))
	*l = Level(max(0, i))
	if i < 0 {
		return fmt.Errorf("%q is no level", b)
	}
	return nil
}

// Thresholds are the limits above which a number becomes a finding.
type Thresholds struct {
	Warn              int           // % of the usable slots that are used: from here on, warning
	Critical          int           // above it, critical
	IdleRatio         int           // % of the sessions that are idle: above it, warning; see idleShare
	IdleInTransaction time.Duration // longer is a warning
	LongQuery         time.Duration // longer is a warning
	LockWait          time.Duration // longer is a warning for one waiting session; lockQueue of them are a warning at once
	Churn             float64       // short-lived sessions a second: from here on, warning
	Orphan            time.Duration // age at which a prepared transaction has probably lost its manager: warning
	Lag               time.Duration // of a standby: from here on, warning
	Replica           bool          // the configured application reads from a standby by design

	// For Diagnose:
	Idle      time.Duration // a session that has been idle this long is idle; in a pool in use, sessions are idle for a moment
	Slow      time.Duration // a query that takes this long is slow
	Silent    time.Duration // a client address without activity for this long may be unreachable
	Restarted time.Duration // for this long after the server's start, new sessions are those of a stampede
	Own       int           // connections that the configured application may have at most; 0: not known
	Budget    int           // of all processes with pools of automatic size; 0: not known
}

// Fixed limits beside Thresholds.
const (
	idleShare = 25 // % of the usable slots that idle sessions must have before their ratio matters: a small pool may be idle
	lockQueue = 3  // so many sessions that wait for a lock are a queue

	briefWait = 100 * time.Millisecond // clients of a PgBouncer in use wait for so long, without harm; from slowWait on it is critical
)

// ThresholdsOf returns the configured thresholds, with defaults for the rest.
func ThresholdsOf(m config.Monitor) Thresholds {
	d := config.Default().Monitor
	return Thresholds{
		Warn: cmp.Or(m.Warn, d.Warn), Critical: cmp.Or(m.Critical, d.Critical), IdleRatio: cmp.Or(m.IdleRatio, d.IdleRatio),
		IdleInTransaction: time.Minute, LongQuery: time.Minute, LockWait: 5 * time.Second, Churn: 10, Orphan: time.Minute, Lag: time.Minute,
		Idle: 10 * time.Second, Slow: 5 * time.Second, Silent: 30 * time.Minute, Restarted: 2 * time.Minute,
	}
}

// Health is the verdict on a server's connections.
type Health struct {
	Level    Level     `json:"level"`
	Slots    Slots     `json:"slots"`
	Findings []Finding `json:"findings"` // the gravest first; empty if all is well
	Unseen   int       `json:"unseen"`   // sessions whose state the role may not see; they are not judged

	Processes int `json:"processes"` // ddtb servers whose own leases are judged too
}

// Finding is one reason of a verdict.
type Finding struct {
	Level Level   `json:"level"`
	Code  string  `json:"code"` // see JSON.md
	What  string  `json:"what"` // with the number that matters
	Do    string  `json:"do"`
	PIDs  []int32 `json:"pids,omitempty"` // the sessions concerned, the worst first

	about    *problem // the holding that is the cause
	steps    []Step
	culprit  string // if it is not that holding's application
	scenario string // with culprit
	lab      string // the command of the lab as completed by Complete
}

// Assess judges a snapshot. With an earlier one of the same server, it also judges how fast sessions begin and end. It
// only judges client sessions: autovacuum, replication and other background processes have no slot.
func Assess(now Snapshot, earlier *Snapshot, t Thresholds) Health {
	return examine(now, earlier, t).health()
}

// health judges. Each finding's advice is the first step that Diagnose gives for it.
func (p *problem) health() Health {
	h := Health{Slots: p.now.Slots, Findings: []Finding{}}
	h.Unseen = len(p.now.clients(func(s Session) bool { return s.Hidden }))
	for _, f := range []*Finding{ // a pool that can't grow comes after the reason why it can't
		p.logins(), p.refusedLogin(), p.waitsForSync(), p.utilisation(), p.limits(), p.pooler(), p.poolerClients(), p.tickets(), p.lockQueues(), p.idleInTransaction(), p.longQueries(),
		p.comesAndGoes(), p.idle(), p.refusesWrites(), p.prepared(), p.walSlots(), p.replicationLag(),
	} {
		if f != nil {
			p.advise(f)
			h.Findings = append(h.Findings, *f)
			h.Level = max(h.Level, f.Level)
		}
	}
	h = h.With(p.now.Processes...)
	for i := range h.Findings {
		if h.Findings[i].about == nil {
			p.advise(&h.Findings[i])
		}
	}
	return h
}

// advise finds the holding that a finding concerns, and with it the steps, unless the finding has its own.
func (p *problem) advise(f *Finding) {
	f.about = p
	for _, pid := range f.PIDs {
		i := slices.IndexFunc(p.all, func(h Holding) bool { return slices.Contains(h.PIDs, pid) })
		if i >= 0 {
			f.about = p.of(p.all[i])
			break
		}
	}
	if f.about.Reason == Blocks {
		f.about.Reason = WaitsForLock
	}
	if f.steps == nil {
		f.steps = f.about.steps()
	}
	f.Do = f.steps[0].String()
}

func (t Thresholds) level(percent float64) Level {
	switch {
	case percent > float64(t.Critical):
		return Critical
	case percent >= float64(t.Warn):
		return Warning
	}
	return OK
}

// OfSlots returns the verdict on the slots alone. A full server is critical whatever the thresholds are.
func (t Thresholds) OfSlots(s Slots) Level {
	if s.Max > 0 && s.Free() == 0 {
		return Critical
	}
	return t.level(s.Utilisation())
}

func (p *problem) utilisation() *Finding {
	level := p.t.OfSlots(p.now.Slots)
	if level == OK {
		return nil
	}
	f := &Finding{Level: level, Code: "utilisation", What: p.now.Slots.String()}
	if p.now.Server.Pending {
		f.What += "; max_connections was changed in a file, which takes effect when the server is restarted, unless its command line sets it"
	}
	return f
}

// pooler finds pools of PgBouncer whose clients wait.
func (p *problem) pooler() *Finding {
	waiting, wait, worst := 0, Age(0), Pool{}
	for _, x := range p.now.Pools {
		if x.MaxWait.Duration() < briefWait {
			continue
		}
		waiting, wait = waiting+x.ClientWaiting, max(wait, x.MaxWait)
		if x.ClientWaiting > worst.ClientWaiting {
			worst = x
		}
	}
	if waiting == 0 || waiting < lockQueue && wait.Duration() < p.t.LockWait {
		return nil
	}
	level := Warning
	if wait.Duration() >= slowWait {
		level = Critical
	}
	f := &Finding{
		Level: level, Code: "pooler",
		What: fmt.Sprintf("%s in PgBouncer for a connection of pool %s as %s, the longest for %s; the pool has %d, of which %d are in use",
			count(worst.ClientWaiting, "client waits", "clients wait"), worst.Database, worst.User, Short(worst.MaxWait.Duration()),
			worst.servers(), worst.ServerActive),
		culprit: "PgBouncer's pool " + worst.Database + " as " + worst.User, scenario: "too-much-at-once",
	}
	if worst.servers() == 0 && !p.databaseFull(worst) { // no larger pool helps
		f.scenario = ""
	}
	if len(p.all) > 0 && slices.Contains([]Reason{WaitsForLock, Blocks, LeakedTx, WaitsForSync}, p.all[0].Reason) {
		f.culprit, f.PIDs = "", p.all[0].PIDs // a larger pool would only wait for the same
		return f
	}
	f.steps = p.stepsForPooler(worst)
	return f
}

// poolerClients finds a PgBouncer that refuses clients, or soon will.
func (p *problem) poolerClients() *Finding {
	l := p.now.PoolClients
	if l == nil || l.Max <= 0 {
		return nil
	}
	level := p.t.level(100 * float64(l.Used) / float64(l.Max))
	if level == OK {
		return nil
	}
	return &Finding{
		Level: level, Code: "pooler-clients",
		What:    fmt.Sprintf("PgBouncer has %d of %d clients (%s); further ones are refused", l.Used, l.Max, l.Name),
		culprit: "PgBouncer's " + l.Name, steps: p.stepsForPoolerClients(*l),
	}
}

// waitsForSync finds commits that wait for a standby.
func (p *problem) waitsForSync() *Finding {
	waiting := p.now.longestFirst(inQuery, func(s Session) bool { return s.Wait == "IPC/SyncRep" })
	if len(waiting) == 0 || len(waiting) < lockQueue && waiting[0].InQuery.Duration() < p.t.LockWait {
		return nil
	}
	return &Finding{
		Level: Critical, Code: "sync-standby",
		What: fmt.Sprintf("%s for a synchronous standby (synchronous_standby_names = '%s'), the longest for %s",
			count(len(waiting), "commit waits", "commits wait"), p.now.Server.SyncStandby, Short(waiting[0].InQuery.Duration())),
		PIDs: pids(waiting), culprit: "a synchronous standby that does not answer", steps: p.stepsForSync(),
	}
}

// limits finds databases and roles that reach a limit of their own. The server reports it with the same SQLSTATE as a
// lack of slots.
func (p *problem) limits() *Finding {
	level, full, worst := OK, []string{}, Limit{}
	for _, l := range p.now.Limits {
		at := p.t.level(100 * float64(l.Used) / float64(max(1, l.Max)))
		if at == OK || l.Used == 0 || p.now.onlySelf(l) {
			continue
		}
		full = append(full, fmt.Sprintf("%s %s has %d of %d (%s)", l.Of, l.Name, l.Used, l.Max, p.now.holders(l)))
		if at > level {
			level, worst = at, l
		}
	}
	if len(full) == 0 {
		return nil
	}
	return &Finding{
		Level: level, Code: "limit", What: "connections near a limit of their own: " + strings.Join(full, "; "),
		PIDs: pids(p.now.within(worst)), culprit: p.now.largest(worst), steps: p.stepsForLimit(worst),
	}
}

func (p *problem) idle() *Finding {
	resting := p.now.clients(func(s Session) bool { return s.State == Idle && !s.Self && s.InState.Duration() >= p.t.Idle })
	seen := len(p.now.clients(func(x Session) bool { return !x.Hidden }))
	ratio := 100 * float64(len(resting)) / float64(max(1, seen))
	if ratio <= float64(p.t.IdleRatio) || 100*len(resting) < idleShare*p.now.Slots.Usable() {
		return nil
	}
	f := &Finding{
		Level: Warning, Code: "idle",
		What: fmt.Sprintf("%d of %d sessions are idle (%.0f %%), and keep %.0f %% of the usable slots",
			len(resting), seen, ratio, 100*float64(len(resting))/float64(max(1, p.now.Slots.Usable()))),
	}
	if i := slices.IndexFunc(p.all, func(h Holding) bool { return h.Reason == Rests || h.Reason == Listens }); i >= 0 { // the largest comes first
		f.PIDs = slices.Clone(p.all[i].PIDs)
	}
	for _, s := range resting {
		if !slices.Contains(f.PIDs, s.PID) {
			f.PIDs = append(f.PIDs, s.PID)
		}
	}
	return f
}

func (p *problem) idleInTransaction() *Finding {
	left := p.now.longestFirst(inState, func(x Session) bool {
		return x.InTransactionIdle() && x.InState.Duration() > p.t.IdleInTransaction
	})
	if len(left) == 0 {
		return nil
	}
	return &Finding{
		Level: Warning, Code: "idle-in-transaction",
		What: fmt.Sprintf("%s idle in transaction for over %s, the longest for %s (%s); they keep locks as well as slots",
			count(len(left), "session is", "sessions are"), Short(p.t.IdleInTransaction),
			Short(left[0].InState.Duration()), left[0].name()),
		PIDs: pids(left),
	}
}

func (p *problem) longQueries() *Finding {
	long := p.now.longestFirst(inQuery, func(x Session) bool {
		return !x.Self && !x.Waits && x.Wait != "IPC/SyncRep" && x.InQuery.Duration() > p.t.LongQuery
	})
	if len(long) == 0 {
		return nil
	}
	return &Finding{
		Level: Warning, Code: "long-query",
		What: fmt.Sprintf("%s for over %s, the longest for %s (%s)",
			count(len(long), "query runs", "queries run"), Short(p.t.LongQuery), Short(long[0].InQuery.Duration()), long[0].name()),
		PIDs: pids(long),
	}
}

func (p *problem) lockQueues() *Finding {
	waiting := p.now.waiting()
	if len(waiting) == 0 || len(waiting) < lockQueue && waiting[0].Waited.Duration() < p.t.LockWait {
		return nil
	}
	f := &Finding{
		Level: Warning, Code: "lock-queue",
		What: count(len(waiting), "session waits", "sessions wait") + " for a lock",
		PIDs: pids(waiting),
	}
	if longest := waiting[0].Waited; longest > 0 { // before PostgreSQL 14 it is hidden for another role's session
		f.What += ", the first for " + Short(longest.Duration())
	}
	if roots := p.now.Roots(); len(roots) > 0 {
		f.What += ", behind " + roots[0].Describe()
		if more := len(roots) - 1; more > 0 {
			f.What += fmt.Sprintf(", and %d more", more)
		}
		f.PIDs = append([]int32{roots[0].PID}, f.PIDs...)
	}
	if p.moves() {
		f.What += "; the queue moves"
	}
	return f
}

func (p *problem) comesAndGoes() *Finding {
	if p.churn < p.t.Churn {
		return nil
	}
	atLeast := ""
	if p.now.EverConnects == 0 { // the server does not count sessions
		atLeast = "at least "
	}
	f := &Finding{
		Level: Warning, Code: "churn",
		What: fmt.Sprintf("%s%.0f sessions begin and end each second: each costs the server a process and a login",
			atLeast, math.Round(p.churn)),
	}
	if i := slices.IndexFunc(p.all, func(h Holding) bool { return h.Reason == Comes }); i >= 0 {
		f.PIDs = p.all[i].PIDs
	} else {
		f.culprit, f.steps = "clients that connect for each piece of work", []Step{p.endNothing("they end by themselves; look again for the program that connects")}
		if p.restarted() {
			f.scenario = "reconnect-stampede"
		}
	}
	return f
}

// Unreachable is the verdict if the server could not be polled. If no slot was left, that is a verdict on the slots:
// critical. Any other failure says nothing about them: unknown.
func Unreachable(err error) Health {
	why := err.Error()
	if ce, is := errors.AsType[*db.ConnError](err); is { // without what was to be polled
		why = ce.Error()
	}
	f := Finding{
		Level: Unknown, Code: "unreachable", What: "the server can't be monitored: " + why,
		Do: cmp.Or(toConnect[db.CauseOf(err)], db.Hint(err), toReach(err)),
	}
	_, refused := errors.AsType[*pgconn.PgError](err)
	switch {
	case errors.Is(err, errNoObserver):
		f.Do = "pass an Observer of the server with activity.WithObserver"
	case errors.Is(err, errNoAnswer):
		f.Do = "if this address is a pooler's, all its connections are in use: to monitor the server past it, set direct_host, or name the " +
			"server itself with --dsn; else see whether the server's machine hangs"
	case db.CauseOf(err) != db.PoolerFull && db.ByPooler(err) && db.Hint(err) != "": // the general advice is about the server
		f.Do = db.Hint(err)
	case refused && db.CauseOf(err) == "": // the server let us in, and then refused a query
		f.Do = cmp.Or(db.Hint(err), "the server answers, and the login works: the message says what it refuses")
	}
	if db.CauseOf(err) == db.SlotsExhausted {
		f.Level, f.Code, f.Do = Critical, "utilisation", NoAccess(err, nil, "").Advice()
	}
	return Health{Level: f.Level, Findings: []Finding{f}}
}

// toConnect says what to do if the server, or a pooler before it, answered and no connection came about.
var toConnect = map[db.Cause]string{
	db.PoolerFull: "the pooler is full: end some of its clients, or raise the limit that the message names; " +
		"to monitor the server past it, set direct_host, or name the server itself with --dsn",
	db.NoSuitableServer: "a server answers, but none that target_session_attrs allows: see whether a failover is under way",
	db.ServerTimeout:    "a time limit that is set on the server is too short for it: raise the one that the message names, for this role",
	db.LoginRejected:    "the server answers: correct the user, the password or the database's name, or the server's pg_hba.conf",
	db.SettingRefused:   "the server answers: remove or correct the setting that the message names",
	db.TLSRefused:       "the server answers: set an sslmode that it offers (pg_hba.conf and the server's setting ssl), with sslcert and sslkey if it asks for them",
	db.CertificateRejected: "the server answers: set sslrootcert to the authority of its certificate, and connect to a host name that the certificate has; " +
		"if the server does not trust ours, correct sslcert and sslkey",
}

// toReach says what to do if no server answered.
func toReach(err error) string {
	_, name := errors.AsType[*net.DNSError](err)
	op, dialed := errors.AsType[*net.OpError](err)
	wait, ok := errors.AsType[net.Error](err)
	switch {
	case name:
		return "the host's name can't be resolved: correct it, or see why the name service does not know it"
	case dialed && op.Op == "dial" && (errors.Is(op, syscall.ECONNREFUSED) || errors.Is(op, syscall.ENOENT)):
		return "see that the server runs (systemctl status postgresql), and that the host and the port are right: nothing listens there"
	case ok && wait.Timeout() && db.CauseOf(err) == db.ServerUnavailable:
		return "the address does not answer in time: see whether the server is suspended or its machine overloaded (ps -C postgres -o pid,stat,args; " +
			"T is stopped), or whether a firewall drops what is sent"
	}
	return "see that the server runs and that the address and the login are right"
}
