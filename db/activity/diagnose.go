package activity

import (
	"cmp"
	"fmt"
	"slices"
)

// Diagnosis says what is wrong with a server's connections, who is the cause, and what to do.
type Diagnosis struct {
	Health   Health    `json:"health"`
	Holds    []Holding `json:"holds"`    // for what the sessions have their slots, the gravest first
	Culprit  string    `json:"culprit"`  // the application; "" when all is well
	Scenario *Scenario `json:"scenario"` // null when all is well
	Also     *Scenario `json:"also"`     // what looks the same from outside; null when nothing does
	ToTell   string    `json:"to_tell"`  // how to tell the two apart; "" without Also
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
	WaitsForLock Reason = "lock"               // waits for one
	Blocks       Reason = "blocks"             // has a lock that others wait for, and waits for none
	LeakedTx     Reason = "leaked-transaction" // left one open, for longer than Thresholds allow
	PausesInTx   Reason = "paused-transaction" // does something else inside one
	UnreadRows   Reason = "unread-rows"        // the server waits for the client to read on
	SlowQuery    Reason = "slow-query"         // for longer than Thresholds allow
	Listens      Reason = "listen"
	Works        Reason = "working"
	Rests        Reason = "idle"
	CannotBeSeen Reason = "not-visible" // by this role
	Comes        Reason = "short-lived" // began while this looked; where sessions come and go too fast
)

// words are the reasons for a person.
var words = map[Reason]string{
	WaitsForLock: "waiting for a lock", Blocks: "with a lock that others wait for", LeakedTx: "in a transaction that was left open",
	PausesInTx: "in a transaction, doing something else", UnreadRows: "with rows that the client does not read",
	SlowQuery: "running a slow query", Listens: "listening for notifications", Works: "working", Rests: "idle",
	CannotBeSeen: "doing what this role may not see", Comes: "seen to begin within one second",
}

// gravity is how much worse a slot with this reason is than one with a resting session, which closing frees.
var gravity = map[Reason]int{
	WaitsForLock: 4, LeakedTx: 4, PausesInTx: 2, UnreadRows: 3, SlowQuery: 3, Listens: 2, Works: 1, Rests: 1, CannotBeSeen: 1,
	Blocks: 4,
}

// Diagnose tells what is wrong. It looks for a cause only where something is: when Assess finds nothing, there is
// no culprit. Seen from outside, scenarios look alike: the one named is the likeliest, and where another looks the
// same, ToTell says how to find out.
func Diagnose(now Snapshot, earlier *Snapshot, t Thresholds) Diagnosis {
	d := Diagnosis{Health: Assess(now, earlier, t), Holds: holdings(now, t), Steps: []Step{}}
	if d.Health.Level == OK {
		return d
	}
	c := &patient{now: now, all: d.Holds, t: t}
	if earlier != nil {
		c.churn = Churn(now, *earlier)
	}
	if come := c.comers(); len(come) > 0 {
		d.Holds = append(come, d.Holds...)
	}
	if len(d.Holds) == 0 {
		return d
	}
	c.Holding = d.Holds[0]
	if c.Reason == Blocks {
		c.Reason = WaitsForLock
	}
	d.Culprit = c.culprit()
	name, also := c.recognise()
	d.Scenario, d.Also, d.ToTell = scenarioOf(name), scenarioOf(also), howToTell(name, also)
	d.Steps = c.steps(name)
	return d
}

// comers are the sessions that came while this looked, by application, if that they come and go is the worst of
// it: the slots are not in danger, or everybody connects again after a restart.
func (c *patient) comers() []Holding {
	if c.churn < c.t.Churn || len(c.now.Came) == 0 {
		return nil
	}
	held := len(c.all) > 0 && gravity[c.all[0].Reason] > gravity[Rests]
	full := c.t.OfSlots(c.now.Slots) > OK
	if (held || full) && !c.restarted() {
		return nil
	}
	return group(c.now.Came, func(Session) Reason { return Comes })
}

// reasonFor tells for what a session has its slot.
func reasonFor(s Session, roots map[int32]bool, t Thresholds) Reason {
	switch {
	case s.Waits:
		return WaitsForLock
	case roots[s.PID]:
		return Blocks
	case s.Hidden:
		return CannotBeSeen
	case s.InTransactionIdle() && s.InState.Duration() >= t.IdleInTransaction:
		return LeakedTx
	case s.InTransactionIdle():
		return PausesInTx
	case s.State == Active && s.Wait == "Client/ClientWrite":
		return UnreadRows
	case s.State == Active && s.InQuery.Duration() >= t.Slow:
		return SlowQuery
	case s.State == Idle && startsWith(s.Query, "LISTEN"):
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
	sessions := now.clients(func(s Session) bool { return !s.Self && !isMonitor(now, s) })
	return group(sessions, func(s Session) Reason { return reasonFor(s, roots, t) })
}

// group puts sessions together that have their slots for one reason and one application, the gravest reason first.
func group(sessions []Session, reason func(Session) Reason) []Holding {
	type key struct {
		Reason
		application string
	}
	byKey, total := map[key]*Holding{}, map[Reason]int{}
	for _, s := range sessions {
		k := key{reason(s), s.Who()}
		if byKey[k] == nil {
			byKey[k] = &Holding{Reason: k.Reason, Application: k.application}
		}
		byKey[k].add(s)
		total[k.Reason]++
	}
	if total[Blocks] > 0 { // who blocks is to be read together with those who wait, and before them
		total[Blocks] += total[WaitsForLock]
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

// Evidence is the holding in a sentence.
func (h Holding) Evidence() string {
	text := fmt.Sprintf("%s of %s, %s", count(h.Sessions, "session", "sessions"), h.Application, words[h.Reason])
	switch longest := Short(h.Longest.Duration()); {
	case h.Longest == 0 || h.Reason == Comes:
		return text
	case h.Sessions == 1:
		return text + ", for " + longest
	default:
		return text + ", the longest for " + longest
	}
}
