package activity

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Diagnosis names the problem of a server's connections, its cause, and what to do.
type Diagnosis struct {
	Health   Health    `json:"health"`
	Holds    []Holding `json:"holds"`    // why the sessions have their slots, the worst first
	Culprit  string    `json:"culprit"`  // the application; "" when all is well
	Scenario *Scenario `json:"scenario"` // null if all is well, or if it is no known scenario
	Also     *Scenario `json:"also"`     // a scenario that looks the same from outside; null if there is none
	ToTell   string    `json:"to_tell"`  // how to distinguish the two; "" without Also
	Steps    []Step    `json:"steps"`    // in order, the least harmful first; none when all is well
	Lab      string    `json:"lab"`      // the command that reproduces the scenario, with its fix; "" without one
	MaybeOut []Holding `json:"maybe_exhausted_pools"`
}

// Holding is a number of slots that one application has for one reason.
type Holding struct {
	Reason      Reason  `json:"reason"`
	Application string  `json:"application"` // "user …" for sessions without a name; ends in * if each process has its own name
	Sessions    int     `json:"sessions"`
	Longest     Age     `json:"longest_seconds"` // in that state
	Began       int     `json:"began"`           // since the earlier snapshot
	Moved       int     `json:"moved"`           // the others that changed their state since
	PIDs        []int32 `json:"pids"`

	sessions []Session
	compared bool // Began and Moved are known
}

// problem is a server and the holding on it that is judged.
type problem struct {
	Holding
	now            Snapshot
	earlier        *Snapshot
	all            []Holding
	family         families
	churn          float64         // short-lived sessions a second
	shortLivedApps map[string]bool // the applications, as in a Holding, of those that were seen, if there are many
	t              Thresholds
}

// examine groups the sessions into holdings. The problem's holding is the worst one, if there is any.
func examine(now Snapshot, earlier *Snapshot, t Thresholds) *problem {
	p := &problem{now: now, earlier: earlier, t: t}
	if earlier != nil {
		p.churn = turnover(now, *earlier)
	}
	var gone []Session
	if p.churn >= t.Churn && p.churn > 0 {
		gone = shortLived(now, *earlier)
	}
	seen := now
	seen.Sessions = slices.Concat(now.Sessions, gone)
	p.family = familiesOf(seen)
	p.shortLivedApps = p.family.namesOf(gone)
	p.all = p.holdings()
	if come := p.comers(gone); len(come) > 0 {
		p.all = append(come, slices.DeleteFunc(p.all, func(h Holding) bool { return h.Reason == Comes })...)
	}
	for i := range p.all {
		p.all[i].compare(now, earlier)
	}
	if len(p.all) > 0 {
		p.Holding = p.all[0]
	}
	return p
}

// of returns the problem of one holding.
func (p *problem) of(h Holding) *problem {
	other := *p
	other.Holding = h
	return &other
}

// Diagnose finds the problem and its cause. It only looks for a cause if Assess has a finding: otherwise there is no
// culprit. From outside, scenarios look alike. Diagnose names the likeliest; if another looks the same, ToTell says how
// to find out.
func Diagnose(now Snapshot, earlier *Snapshot, t Thresholds) Diagnosis {
	p := examine(now, earlier, t)
	d := Diagnosis{Health: p.health(), Holds: p.all, Steps: []Step{}, MaybeOut: []Holding{}}
	if d.Health.Level == OK {
		d.MaybeOut = append(d.MaybeOut, p.maybeExhausted()...)
		return d
	}
	worst := d.Health.Findings[0]
	p = worst.about
	d.Culprit, d.Steps = cmp.Or(worst.culprit, p.culprit()), worst.steps
	name, also := p.recognise()
	switch {
	case worst.AboutProcess() && worst.Code != CodeUnconnected:
		name, also = p.recogniseHeld()
		d.Lab = worst.Lab()
	case worst.culprit != "": // sessions don't show it
		name, also = worst.scenario, ""
	}
	d.Scenario, d.Also, d.ToTell = scenarioOf(name), scenarioOf(also), howToTell(name, also)
	if d.Scenario != nil {
		d.Lab = "ddtb lab run " + name
	}
	return d
}

// recogniseHeld returns the scenario of leases that are not released, if their sessions show one. An idle session shows
// none.
func (p *problem) recogniseHeld() (name, also string) {
	switch p.Reason {
	case WaitsForLock, WaitsForSync, LeakedTx, PausesInTx, UnreadRows, UnsentData, SlowQuery:
		return p.recognise()
	}
	return "", ""
}

// shortLived returns the sessions of programs that were seen to begin and end.
func shortLived(now, earlier Snapshot) []Session {
	return slices.DeleteFunc(ended(now, earlier), func(s Session) bool { return now.IsMonitor(s) || s.LogsIn() })
}

// isComing reports whether the session is one of many short-lived ones of its application.
func (p *problem) isComing(s Session) bool {
	return s.Age.Duration() < youngest && p.shortLivedApps[p.family.name(s)]
}

// comers returns the short-lived sessions by application, if they are the worst problem. After a restart many begin and
// end. Other sessions may also have more slots for a worse reason.
func (p *problem) comers(gone []Session) []Holding {
	young := slices.Concat(gone, slices.DeleteFunc(p.now.programs(), func(s Session) bool { return p.reasonFor(s, nil) != Comes }))
	if len(young) == 0 {
		return nil
	}
	others := slices.DeleteFunc(slices.Clone(p.all), func(h Holding) bool { return h.Reason == Comes })
	held := len(others) > 0 && reasons[others[0].Reason].gravity > reasons[Rests].gravity
	full := p.t.OfSlots(p.now.Slots) > OK && len(others) > 0 && others[0].Sessions > len(young)
	if (held || full) && !p.restarted() {
		return nil
	}
	return p.group(young, func(Session) Reason { return Comes })
}

// youngest is the age below which a session counts as short-lived, in any state, if there are many.
const youngest = churnSpan

// reasonFor returns why a session has its slot.
func (p *problem) reasonFor(s Session, roots map[int32]bool) Reason {
	switch {
	case s.LogsIn():
		return LogsIn
	case s.Waits:
		return WaitsForLock
	case s.Wait == "IPC/SyncRep":
		return WaitsForSync
	case roots[s.PID]:
		return Blocks
	case p.isComing(s):
		return Comes
	case s.Hidden:
		return CannotBeSeen
	case s.State == disabled:
		return NotTracked
	case p.leaked(s):
		return LeakedTx
	case s.InTransactionIdle():
		return PausesInTx
	case s.State == Active && s.Wait == "Client/ClientWrite":
		return UnreadRows
	case s.State == Active && s.Wait == "Client/ClientRead":
		return UnsentData
	case s.State == Active && s.InQuery.Duration() >= p.t.Slow:
		return SlowQuery
	case s.Listens():
		return Listens
	case s.State == Idle:
		return Rests
	}
	return Works
}

// leaked reports whether the session left a transaction open for longer than the thresholds allow.
func (p *problem) leaked(s Session) bool {
	return s.InTransactionIdle() && s.InState.Duration() >= p.t.IdleInTransaction
}

// holdings groups the sessions of programs, and the logins that don't finish, by reason and application.
func (p *problem) holdings() []Holding {
	roots := p.now.Blocks()
	return p.group(slices.Concat(p.now.programs(), p.hanging()), func(s Session) Reason { return p.reasonFor(s, roots) })
}

// group combines sessions that have their slots for one reason and one application, the worst reason first.
func (p *problem) group(sessions []Session, reason func(Session) Reason) []Holding {
	type key struct {
		Reason
		application string
	}
	byKey, total := map[key]*Holding{}, map[Reason]int{}
	for _, s := range sessions {
		k := key{reason(s), p.family.name(s)}
		if byKey[k] == nil {
			byKey[k] = &Holding{Reason: k.Reason, Application: k.application}
		}
		byKey[k].add(s)
		total[k.Reason]++
	}
	if total[Blocks] > 0 { // blocking sessions must be read with the waiting ones, and before them
		total[Blocks] += total[WaitsForLock]
	}
	out := []Holding{}
	for _, h := range byKey {
		out = append(out, *h)
	}
	weight := func(h Holding) int { return reasons[h.Reason].gravity * total[h.Reason] }
	blame := func(h Holding, surplus func(Session) bool) int { // a small pool at rest does not fill a server
		if n := h.count(surplus); blameFrom*n >= len(sessions) {
			return n
		}
		return 0
	}
	slices.SortFunc(out, func(a, b Holding) int {
		return cmp.Or(cmp.Compare(weight(b), weight(a)), cmp.Compare(a.Reason, b.Reason),
			cmp.Compare(blame(b, p.restsLong), blame(a, p.restsLong)), cmp.Compare(blame(b, Session.restsAfterOne), blame(a, Session.restsAfterOne)),
			cmp.Compare(ofForeignTables(a), ofForeignTables(b)), cmp.Compare(b.Sessions, a.Sessions), cmp.Compare(a.Application, b.Application))
	})
	return out
}

// blameFrom: idle sessions of one application are named before a pool in use if they are at least this part of all.
const blameFrom = 4

// ofForeignTables sorts the sessions of postgres_fdw last: each is the consequence of another one, perhaps on this server.
func ofForeignTables(h Holding) int {
	if h.Application == "postgres_fdw" {
		return 1
	}
	return 0
}

// restsLong reports whether the session has been idle for long. A pool in use has idle sessions too, but each for a
// moment.
func (p *problem) restsLong(s Session) bool {
	return s.State == Idle && s.InState.Duration() >= p.t.Idle
}

// restsAfterOne reports whether the session was used only when it began, and rests since.
func (s Session) restsAfterOne() bool {
	return s.State == Idle && s.usedOnce() && s.InState.Duration() >= atRest[len(atRest)-1]
}

// usedOnce reports whether the session was used only when it began.
func (s Session) usedOnce() bool { return s.Query != "" && s.Age-s.InState < seconds(2) }

// maybeExhausted returns pools whose connections all seem to be acquired inside the application: idle, or idle in
// transaction, with the same last query. The server sees no difference between these and an idle pool.
func (p *problem) maybeExhausted() (found []Holding) {
	for _, h := range p.all {
		same := func(s Session) bool { return s.Query == h.sessions[0].Query && s.Query != "" }
		if (h.Reason == Rests || h.Reason == PausesInTx) && h.Sessions >= leastPool && !p.judged(h) && !slices.ContainsFunc(h.sessions, func(s Session) bool { return !same(s) }) {
			found = append(found, h)
		}
	}
	return found
}

// judged reports whether the holding belongs to a ddtb server that reported its leases.
func (p *problem) judged(h Holding) bool {
	return slices.ContainsFunc(p.now.Processes, func(x Process) bool { return belongs(h.Application, x.Application) })
}

// leastPool is the least number of sessions that may be a pool.
const leastPool = 3

// IsMonitor reports whether x is the monitoring connection of a ddtb server of the same application.
func (s Snapshot) IsMonitor(x Session) bool {
	return s.Application != "" && x.Application == s.Application+monitorSuffix
}

func (h *Holding) add(s Session) {
	h.Sessions++
	h.Longest = max(h.Longest, s.InState)
	h.PIDs = append(h.PIDs, s.PID)
	h.sessions = append(h.sessions, s)
}

// compare counts what changed since the earlier snapshot, if there is one and the states are known.
func (h *Holding) compare(now Snapshot, earlier *Snapshot) {
	if earlier == nil || h.Reason == NotTracked || h.count(func(s Session) bool { return s.Hidden }) > 0 {
		return
	}
	h.compared = true
	for _, s := range h.sessions {
		switch {
		case s.Started.After(earlier.At):
			h.Began++
		case s.InState < Age(now.At.Sub(earlier.At)) && !s.LogsIn():
			h.Moved++
		}
	}
}

// Evidence returns the holding as a sentence.
func (h Holding) Evidence() string {
	text := fmt.Sprintf("%s of %s, %s", count(h.Sessions, "session", "sessions"), h.Application, reasons[h.Reason].words)
	if h.Reason == Comes {
		return text
	}
	switch longest := Short(h.Longest.Duration()); {
	case h.Longest == 0:
	case h.Sessions == 1:
		text += ", for " + longest
	default:
		text += ", the longest for " + longest
	}
	return text + h.load() + h.trend()
}

// load says what working sessions spend their time on, so that they aren't taken for a leak.
func (h Holding) load() string {
	if h.Reason != Works && h.Reason != SlowQuery {
		return ""
	}
	on := map[string]int{}
	for _, s := range h.sessions {
		on[cmp.Or(s.Wait, "the processor")]++
	}
	text := []string{}
	for _, c := range counts(on)[:min(len(on), mostLoads)] {
		text = append(text, fmt.Sprintf("%d on %s", c.Count, c.Name))
	}
	return "; no leak: " + strings.Join(text, ", ")
}

// mostLoads is how many kinds of work a sentence names.
const mostLoads = 3

// trend says whether the sessions increase, move or stand still.
func (h Holding) trend() string {
	switch {
	case !h.compared:
		return ""
	case h.Began > 0:
		return fmt.Sprintf("; growing: %d began in the last second", h.Began)
	case h.Moved > 0:
		return fmt.Sprintf("; %d moved in the last second", h.Moved)
	}
	return "; none moved in the last second"
}
