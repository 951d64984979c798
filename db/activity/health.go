package activity

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

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
	Unknown // the server could not be looked at, for a reason that says nothing about its slots
)

var levelNames = []string{"ok", "warning", "critical", "unknown"}

func (l Level) String() string { return levelNames[l] }

// MarshalText writes the name.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (l *Level) UnmarshalText(b []byte) error {
	i := slices.Index(levelNames, string(b))
	*l = Level(max(0, i))
	if i < 0 {
		return fmt.Errorf("%q is no level", b)
	}
	return nil
}

// Thresholds are where a number becomes a reason.
type Thresholds struct {
	Warn              int           // % of the usable slots that are used: from here on, warning
	Critical          int           // above it, critical
	IdleRatio         int           // % of the sessions that are idle: above it, warning; see idleShare
	IdleInTransaction time.Duration // longer is a warning
	LongQuery         time.Duration // longer is a warning
	LockWait          time.Duration // longer is a warning, for one that waits; lockQueue of them are at once
	Churn             float64       // new sessions a second: from here on, warning

	// For Diagnose:
	Slow      time.Duration // a query of so long is slow
	Silent    time.Duration // an address from where nobody has stirred for so long may be gone
	Restarted time.Duration // for so long after the server's start, sessions that begin are those of a stampede
	Own       int           // connections that the configured application may have at most; 0: not known
}

// Beside what Thresholds set:
const (
	idleShare = 25 // % of the usable slots that idle sessions must have before their ratio matters: a small pool may rest
	lockQueue = 3  // sessions that wait for a lock are a queue
)

// ThresholdsOf are the configured ones, and for the rest the defaults.
func ThresholdsOf(m config.Monitor) Thresholds {
	d := config.Default().Monitor
	return Thresholds{
		Warn: cmp.Or(m.Warn, d.Warn), Critical: cmp.Or(m.Critical, d.Critical), IdleRatio: cmp.Or(m.IdleRatio, d.IdleRatio),
		IdleInTransaction: time.Minute, LongQuery: time.Minute, LockWait: 5 * time.Second, Churn: 10,
		Slow: 5 * time.Second, Silent: 30 * time.Minute, Restarted: 2 * time.Minute,
	}
}

// Health is the verdict on a server's connections.
type Health struct {
	Level    Level     `json:"level"`
	Slots    Slots     `json:"slots"`
	Findings []Finding `json:"findings"` // the gravest first; none when all is well
	Unseen   int       `json:"unseen"`   // sessions whose state the role may not see, and which are not judged
}

// Finding is one reason of a verdict.
type Finding struct {
	Level Level   `json:"level"`
	Code  string  `json:"code"` // utilisation, limit, idle, idle-in-transaction, churn, long-query, lock-queue, unreachable
	What  string  `json:"what"` // with the number that matters
	Do    string  `json:"do"`
	PIDs  []int32 `json:"pids,omitempty"` // the sessions that it is about, the worst first
}

// Assess judges a snapshot. With an earlier one of the same server, it also judges how fast sessions come and
// go. Client sessions alone are judged: autovacuum, replication and other background work have no slot.
func Assess(now Snapshot, earlier *Snapshot, t Thresholds) Health {
	h := Health{Slots: now.Slots, Findings: []Finding{}}
	for _, s := range now.Sessions {
		if s.Client() && s.Hidden {
			h.Unseen++
		}
	}
	for _, f := range []*Finding{
		utilisation(now, t), limits(now, t), lockQueues(now, t), idleInTransaction(now, t), longQueries(now, t),
		churn(now, earlier, t), idle(now, t),
	} {
		if f != nil {
			h.Findings = append(h.Findings, *f)
			h.Level = max(h.Level, f.Level)
		}
	}
	slices.SortStableFunc(h.Findings, func(a, b Finding) int { return cmp.Compare(b.Level, a.Level) })
	return h
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

// OfSlots is the verdict on the slots alone.
func (t Thresholds) OfSlots(s Slots) Level { return t.level(s.Utilisation()) }

func utilisation(s Snapshot, t Thresholds) *Finding {
	level := t.OfSlots(s.Slots)
	if level == OK {
		return nil
	}
	return &Finding{
		Level: level, Code: "utilisation",
		What: fmt.Sprintf("%d of %d usable slots are used (%.0f %%), %d are free",
			s.Slots.Used, s.Slots.Usable(), s.Slots.Utilisation(), s.Slots.Free()),
		Do: "ask `ddtb db-connections doctor` which application has them and how to get them back",
	}
}

// limits finds databases and roles that run into a limit of their own, which the server reports with the same
// SQLSTATE as a lack of slots.
func limits(s Snapshot, t Thresholds) *Finding {
	level, full := OK, []string{}
	for _, l := range s.Limits {
		if at := t.level(100 * float64(l.Used) / float64(max(1, l.Max))); at > OK && l.Used > 0 {
			level = max(level, at)
			full = append(full, fmt.Sprintf("%s %s has %d of %d", l.Of, l.Name, l.Used, l.Max))
		}
	}
	if len(full) == 0 {
		return nil
	}
	return &Finding{
		Level: level, Code: "limit", What: "connections near a limit of their own: " + strings.Join(full, "; "),
		Do: "use fewer, or raise it: ALTER DATABASE or ALTER ROLE … CONNECTION LIMIT n",
	}
}

func idle(s Snapshot, t Thresholds) *Finding {
	resting := s.clients(func(x Session) bool { return x.State == Idle && !x.Self })
	seen := len(s.clients(func(x Session) bool { return !x.Hidden }))
	ratio := 100 * float64(len(resting)) / float64(max(1, seen))
	if ratio <= float64(t.IdleRatio) || 100*len(resting) < idleShare*s.Slots.Usable() {
		return nil
	}
	return &Finding{
		Level: Warning, Code: "idle",
		What: fmt.Sprintf("%d of %d sessions are idle (%.0f %%), and keep %.0f %% of the usable slots",
			len(resting), seen, ratio, 100*float64(len(resting))/float64(max(1, s.Slots.Usable()))),
		Do: "make pools smaller or let them close what rests (pool.max_idle, conn_max_age); " +
			"for now `ddtb db-connections close-idle --older-than=5m`",
		PIDs: pids(resting),
	}
}

func idleInTransaction(s Snapshot, t Thresholds) *Finding {
	left := s.clients(func(x Session) bool {
		return x.InTransactionIdle() && x.InState.Duration() > t.IdleInTransaction
	})
	if len(left) == 0 {
		return nil
	}
	slices.SortStableFunc(left, func(a, b Session) int { return cmp.Compare(b.InState, a.InState) })
	return &Finding{
		Level: Warning, Code: "idle-in-transaction",
		What: fmt.Sprintf("%s idle in transaction for over %s, the longest for %s (%s); they keep locks as well as slots",
			count(len(left), "session is", "sessions are"), Short(t.IdleInTransaction),
			Short(left[0].InState.Duration()), left[0].name()),
		Do: "find the code that leaves a transaction open, and set idle_in_transaction_session_timeout; " +
			"for now `ddtb db-connections close-idle --in-transaction --older-than=1m`",
		PIDs: pids(left),
	}
}

func longQueries(s Snapshot, t Thresholds) *Finding {
	long := s.clients(func(x Session) bool { return !x.Self && !x.Waits && x.InQuery.Duration() > t.LongQuery })
	if len(long) == 0 {
		return nil
	}
	slices.SortStableFunc(long, func(a, b Session) int { return cmp.Compare(b.InQuery, a.InQuery) })
	return &Finding{
		Level: Warning, Code: "long-query",
		What: fmt.Sprintf("%s for over %s, the longest for %s (%s)",
			count(len(long), "query runs", "queries run"), Short(t.LongQuery), Short(long[0].InQuery.Duration()), long[0].name()),
		Do: fmt.Sprintf("see whether it is meant to; `ddtb db-connections cancel --pid=%d` ends the query and leaves the session; "+
			"statement_timeout bounds the next one", long[0].PID),
		PIDs: pids(long),
	}
}

func lockQueues(s Snapshot, t Thresholds) *Finding {
	waiting := s.clients(func(x Session) bool { return x.Waits })
	slices.SortStableFunc(waiting, func(a, b Session) int { return cmp.Compare(b.Waited, a.Waited) })
	if len(waiting) == 0 || len(waiting) < lockQueue && waiting[0].Waited.Duration() < t.LockWait {
		return nil
	}
	f := &Finding{
		Level: Warning, Code: "lock-queue",
		What: count(len(waiting), "session waits", "sessions wait") + " for a lock",
		Do:   "end what they wait for: `ddtb db-connections doctor` names it; set lock_timeout for whatever alters tables",
		PIDs: pids(waiting),
	}
	if longest := waiting[0].Waited; longest > 0 { // before PostgreSQL 14 it can't be seen of another role's session
		f.What += ", the first for " + Short(longest.Duration())
	}
	if roots := s.Roots(); len(roots) > 0 {
		f.What += ", behind " + roots[0].Describe()
		if more := len(roots) - 1; more > 0 {
			f.What += fmt.Sprintf(", and %d more", more)
		}
		f.PIDs = append([]int32{roots[0].PID}, f.PIDs...)
	}
	return f
}

func churn(now Snapshot, earlier *Snapshot, t Thresholds) *Finding {
	if earlier == nil {
		return nil
	}
	rate := Churn(now, *earlier)
	if rate < t.Churn {
		return nil
	}
	atLeast := ""
	if now.EverConnects == 0 { // the server does not count them
		atLeast = "at least "
	}
	return &Finding{
		Level: Warning, Code: "churn",
		What: fmt.Sprintf("%s%.0f sessions begin each second: each costs the server a process and a login",
			atLeast, math.Round(rate)),
		Do: "keep connections (strategy = \"pool\", or conn_max_age above 0), or put PgBouncer in front; " +
			"look for a client that reconnects in a loop",
	}
}

// Unreachable is the verdict when the server could not be looked at. That no slot was left is a verdict on the
// slots: critical. Anything else tells nothing about them: unknown.
func Unreachable(err error) Health {
	f := Finding{
		Level: Unknown, Code: "unreachable", What: err.Error(),
		Do: "see that the server runs and that the address and the login are right",
	}
	if db.CauseOf(err) == db.SlotsExhausted {
		f.Level, f.Code, f.Do = Critical, "utilisation", NoDoor(err).Advice()
	}
	return Health{Level: f.Level, Findings: []Finding{f}}
}

// CheckHealth looks at the server twice, a second apart, or once if ctx has less time, and gives the verdict. When
// it could not look, the Level is that of Unreachable, and the Finding says why.
func (o *Observer) CheckHealth(ctx context.Context, t Thresholds) Health {
	now, earlier, err := LookTwice(ctx, o)
	if err != nil {
		return Unreachable(err)
	}
	return Assess(now, earlier, t)
}
