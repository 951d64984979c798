package activity

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Diagnosis says what is wrong with a server's connections, who is the cause, and what to do.
type Diagnosis struct {
	Health   Health    `json:"health"`
	Holds    []Holding `json:"holds"`    // for what the sessions have their slots, the gravest first
	Culprit  string    `json:"culprit"`  // the application; "" when all is well
	Scenario *Scenario `json:"scenario"` // null when all is well
	Also     *Scenario `json:"also"`     // what it may be as well, seen from outside
	Steps    []Step    `json:"steps"`    // three, in order; none when all is well
}

// Holding is a number of slots that one application has for one reason.
type Holding struct {
	Reason      Reason  `json:"reason"`
	Application string  `json:"application"`
	Sessions    int     `json:"sessions"`
	Longest     Age     `json:"longest_seconds"` // in that state
	PIDs        []int32 `json:"pids"`

	sessions []Session
}

// Reason is for what a session has its slot, as far as it can be told from outside.
type Reason string

// The reasons.
const (
	WaitsForLock Reason = "lock"               // waits for one, or blocks who does
	LeakedTx     Reason = "leaked-transaction" // left one open, for longer than Thresholds allow
	PausesInTx   Reason = "paused-transaction" // does something else inside one
	UnreadRows   Reason = "unread-rows"        // the server waits for the client to read on
	SlowQuery    Reason = "slow-query"         // for longer than slowAfter
	Listens      Reason = "listen"
	Works        Reason = "working"
	Rests        Reason = "idle"
	CannotBeSeen Reason = "not-visible" // by this role
)

// words are the reasons for a person.
var words = map[Reason]string{
	WaitsForLock: "waiting for a lock, or blocking who does", LeakedTx: "in a transaction that was left open",
	PausesInTx: "in a transaction, doing something else", UnreadRows: "with rows that the client does not read",
	SlowQuery: "running a slow query", Listens: "listening for notifications", Works: "working", Rests: "idle",
	CannotBeSeen: "doing what this role may not see",
}

const (
	slowAfter      = 5 * time.Second
	restartedSince = 2 * time.Minute // sessions of a server that came back so lately began in a stampede
)

// gravity is how much worse a slot with this reason is than one with a resting session, which closing frees.
var gravity = map[Reason]int{
	WaitsForLock: 4, LeakedTx: 4, PausesInTx: 2, UnreadRows: 3, SlowQuery: 3, Listens: 2, Works: 1, Rests: 1, CannotBeSeen: 1,
}

// Diagnose tells what is wrong. It looks for a cause only where something is: when Assess finds nothing, there is
// no culprit. Seen from outside, scenarios look alike: the one named is the likeliest.
func Diagnose(now Snapshot, earlier *Snapshot, t Thresholds) Diagnosis {
	d := Diagnosis{Health: Assess(now, earlier, t), Holds: holdings(now, t)}
	if d.Health.Level == OK || len(d.Holds) == 0 {
		return d
	}
	worst := d.Holds[0]
	c := &patient{Holding: worst, now: now, all: d.Holds}
	if earlier != nil {
		c.churn = Churn(now, *earlier)
	}
	d.Culprit = c.culprit()
	name, also := c.recognise(t)
	d.Scenario, d.Also = scenarioOf(name), scenarioOf(also)
	d.Steps = c.steps(name)
	return d
}

// reasonFor tells for what a session has its slot.
func reasonFor(s Session, roots map[int32]bool, t Thresholds) Reason {
	switch {
	case s.Waits || roots[s.PID]:
		return WaitsForLock
	case s.Hidden:
		return CannotBeSeen
	case s.InTransactionIdle() && s.InState.Duration() >= t.IdleInTransaction:
		return LeakedTx
	case s.InTransactionIdle():
		return PausesInTx
	case s.State == Active && s.Wait == "Client/ClientWrite":
		return UnreadRows
	case s.State == Active && s.InQuery.Duration() >= slowAfter:
		return SlowQuery
	case s.State == Idle && strings.HasPrefix(strings.ToUpper(strings.TrimSpace(s.Query)), "LISTEN"):
		return Listens
	case s.State == Idle:
		return Rests
	}
	return Works
}

// holdings sorts the client sessions by reason and application.
func holdings(now Snapshot, t Thresholds) []Holding {
	roots := map[int32]bool{}
	for _, r := range now.Roots() {
		roots[r.PID] = true
	}
	type key struct {
		Reason
		application string
	}
	byKey, total := map[key]*Holding{}, map[Reason]int{}
	for _, s := range now.clients(func(s Session) bool { return !s.Self && !isMonitor(now, s) }) {
		k := key{reasonFor(s, roots, t), s.Who()}
		if byKey[k] == nil {
			byKey[k] = &Holding{Reason: k.Reason, Application: k.application}
		}
		byKey[k].add(s)
		total[k.Reason]++
	}
	out := []Holding{}
	for _, h := range byKey {
		out = append(out, *h)
	}
	weight := func(h Holding) int { return gravity[h.Reason] * total[h.Reason] }
	slices.SortFunc(out, func(a, b Holding) int {
		return cmp.Or(cmp.Compare(weight(b), weight(a)), cmp.Compare(a.Reason, b.Reason),
			cmp.Compare(b.Sessions, a.Sessions), cmp.Compare(a.Application, b.Application))
	})
	return out
}

func isMonitor(now Snapshot, s Session) bool {
	return now.Application != "" && s.Application == now.Application+monitorSuffix
}

func (h *Holding) add(s Session) {
	h.Sessions++
	h.Longest = max(h.Longest, s.InState)
	h.PIDs = append(h.PIDs, s.PID)
	h.sessions = append(h.sessions, s)
}

// patient is one server in trouble: the worst holding, and what is around it.
type patient struct {
	Holding
	now   Snapshot
	all   []Holding
	churn float64
}

// culprit is the application to blame: of a lock queue, the one that all wait for, not those who wait.
func (c *patient) culprit() string {
	if roots := c.now.Roots(); c.Reason == WaitsForLock && len(roots) > 0 {
		return roots[0].Who()
	}
	return c.Application
}

// recognise names the scenario, and another that looks the same from outside, or "".
func (c *patient) recognise(t Thresholds) (name, also string) {
	restarted := c.now.At.Sub(c.now.Server.Started) < restartedSince
	switch c.Reason {
	case WaitsForLock:
		if roots := c.now.Roots(); len(roots) > 0 && roots[0].InTransactionIdle() {
			return "lock-queue", "leaked-transaction"
		}
		return "lock-queue", ""
	case LeakedTx:
		return "leaked-transaction", ""
	case PausesInTx:
		return "call-inside-transaction", "leaked-transaction"
	case UnreadRows:
		return "rows-not-closed", "stream-holds-lease"
	case SlowQuery:
		return "slow-query-pile-up", "cancel-snowball"
	case Listens:
		return "listen-pins-slot", ""
	}
	switch {
	case restarted && c.churn >= t.Churn:
		return "reconnect-stampede", "too-much-at-once"
	case c.churn >= t.Churn || c.Reason == Works:
		return "too-much-at-once", ""
	case c.Reason == CannotBeSeen:
		return "noisy-neighbour", ""
	}
	return c.recogniseIdle()
}

// recogniseIdle tells scenarios apart that all end in idle sessions.
func (c *patient) recogniseIdle() (name, also string) {
	addresses, foreign, usedOnce := map[string]bool{}, 0, 0
	for _, s := range c.sessions {
		addresses[s.Address] = true
		if s.Database != c.now.Database {
			foreign++
		}
		if s.Query != "" && s.Age-s.InState < seconds(2) {
			usedOnce++
		}
	}
	most := func(n int) bool { return 2*n > len(c.sessions) }
	switch {
	case looksLikeMonitor(c.Application):
		return "monitor-leaks", "probe-connects"
	case most(foreign):
		return "noisy-neighbour", ""
	case strings.HasSuffix(c.Application, "/persistent"):
		return "thread-leak", ""
	case len(addresses) > 2:
		return "replicas-times-pool", ""
	case most(usedOnce) && len(c.sessions) >= 5:
		return "thread-leak", "missed-close"
	case c.secondPool():
		return "hidden-second-pool", "replicas-times-pool"
	}
	return "replicas-times-pool", "hidden-second-pool"
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

func looksLikeMonitor(application string) bool {
	name := strings.ToLower(application)
	return slices.ContainsFunc([]string{"monitor", "exporter", "health", "probe", "pghero", "zabbix", "datadog", "telegraf"},
		func(word string) bool { return strings.Contains(name, word) })
}

// Evidence is the holding in a sentence.
func (h Holding) Evidence() string {
	text := fmt.Sprintf("%s of %s, %s", count(h.Sessions, "session", "sessions"), h.Application, words[h.Reason])
	if h.Longest > 0 {
		text += ", the longest for " + Short(h.Longest.Duration())
	}
	return text
}
