package activity

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"ddtb/db"
)

// Process is a snapshot of one ddtb server's own leases. PostgreSQL shows none of it: a leaked connection looks like an
// idle one. A ProcessMonitor makes it, and Findings judges it.
type Process struct {
	At          time.Time // by the process's clock, like all times here
	PID         int
	Application string // its application_name
	Now         db.Stat
	Past        db.Stat // Now, as it was Within ago
	Within      Age

	Stalled Age // how long every lease has been in use with none given; 0 if not so
	// In JSON they keep their earlier names: the server that is asked may be older than the command.
	FailedSinceStall int64 `json:"LostMeant"`  // requests that failed without a lease in that time
	FailedRecently   int64 `json:"LostLately"` // the same in the last 15 s
	Failure          *ConnectFailure
	Holders          []db.Holder // of leases, the oldest first, at most mostHolders
	LeakAfter        Age         // 0: long leases are not reported
	KeepsLeases      bool        // a request keeps its lease to its end

	Replicas []ReplicaUse // the configured ones
}

// ReplicaUse is a configured replica, as a ddtb server uses it.
type ReplicaUse struct {
	Process int    `json:"pid"` // of the ddtb server, on its machine
	Host    string `json:"host"`
	Serves  bool   `json:"serves_reads"`
	Why     string `json:"why,omitzero"` // why it serves no reads: the primary does in its place
	Lag     Age    `json:"lag_seconds"`
	Reads   int64  `json:"reads"` // that it answered, since the server's start
}

// ConnectFailure is the last failure to get a connection from the server.
type ConnectFailure struct {
	Cause db.Cause
	Limit string // of SlotsExhausted, see db.ConnError.Limit
	Ago   Age
	Over  bool // a lease was given since, or slots are free
}

// Codes of the findings about a process, the gravest first.
const (
	CodeUnconnected = "no-connection"  // the server gives the process no connection
	CodeStalled     = "pool-stalled"   // every lease is in use, and none is released
	CodeWaiting     = "pool-full"      // every lease is in use, and requests wait for long
	CodeLost        = "requests-lost"  // requests failed without a lease
	CodeLeak        = "lease-leak"     // a lease is held for too long
	CodeNested      = "nested-acquire" // requests asked for a lease while they held one
	CodeReplica     = "replica-unused" // a replica serves no reads
)

// ProcessCodes lists all codes of findings about a process.
var ProcessCodes = []string{CodeUnconnected, CodeStalled, CodeWaiting, CodeLost, CodeLeak, CodeNested, CodeReplica}

const (
	stalledAfter = 3 * time.Second  // a pool that gives no lease for this long is stalled, if requests wait
	stalledIdle  = 10 * time.Second // the same, if no request waits
	slowWait     = time.Second      // a wait for a lease this long is a warning
	recently     = 15 * time.Second // requests that failed within it count as failing now
	mostHolders  = 20
)

// Dry reports whether the process can serve no request that needs a lease: its pool has stalled, and requests have
// failed since. Dry stays true until a lease is released. So a balancer that stopped sending requests does not resume
// too soon. Under multiplex, reads need no lease and still work.
func (p Process) Dry() bool {
	return p.hasStalled() && p.FailedSinceStall > 0 && p.Now.Shared == 0
}

// Level returns the level of the gravest finding.
func (p Process) Level() Level {
	if found := p.Findings(); len(found) > 0 {
		return found[0].Level
	}
	return OK
}

// Findings judges the process, the gravest finding first.
func (p Process) Findings() []Finding {
	var found []Finding
	for _, f := range []*Finding{p.unconnected(), p.stalled(), p.waiting(), p.lost(), p.leaks(), p.nested(), p.unusedReplicas()} {
		if f != nil {
			f.culprit, f.Do = p.Application, f.steps[0].String()
			found = append(found, *f)
		}
	}
	slices.SortStableFunc(found, func(a, b Finding) int { return cmp.Compare(b.Level, a.Level) })
	return found
}

// Steps returns what to do about the finding, in order, the least harmful first.
func (f Finding) Steps() []Step { return f.steps }

// Lab returns the command that reproduces the finding's scenario, with its fix; "" if the finding alone names no
// scenario.
func (f Finding) Lab() string {
	if f.scenario == "" {
		return ""
	}
	return cmp.Or(f.lab, "ddtb lab run "+f.scenario)
}

// AboutProcess reports whether the finding is about a ddtb server's own leases, and not about PostgreSQL.
func (f Finding) AboutProcess() bool { return slices.Contains(ProcessCodes, f.Code) }

// With adds the findings about processes to the verdict on their server. A pool that is too small for its load comes
// after an application that leaves the server no room for a pool twice as large.
func (h Health) With(processes ...Process) Health {
	h.Findings, h.Processes = slices.Clone(h.Findings), h.Processes+len(processes)
	for _, p := range processes {
		p.Failure = p.Failure.seenWith(h.Slots)
		own := p.Application
		if len(processes) > 1 {
			p.Application = fmt.Sprintf("%s (process %d)", p.name(), p.PID)
		}
		found := p.Findings()
		if i := slices.IndexFunc(found, Finding.aboutLoad); i >= 0 && !p.hasStalled() && h.Slots.Free() <= p.Now.Size {
			h.blameCrowd(own, found[i].Level)
		}
		h.Findings = append(h.Findings, found...)
	}
	slices.SortStableFunc(h.Findings, func(a, b Finding) int { return cmp.Compare(b.Level, a.Level) })
	for _, f := range h.Findings {
		if h.Level != Critical && f.Level > h.Level || f.Level == Critical { // a known problem outweighs unknown slots
			h.Level = f.Level
		}
	}
	return h
}

// aboutLoad reports whether the finding is about a pool that is too small for its load.
func (f Finding) aboutLoad() bool { return f.Code == CodeWaiting || f.Code == CodeLost }

// blameCrowd raises a finding on the server's slots to the level, and so puts it first, if another application has most
// of them.
func (h Health) blameCrowd(own string, level Level) {
	for i, f := range h.Findings {
		if f.Code == "utilisation" && f.about != nil && len(f.about.sessions) > 0 && !belongs(f.about.Application, own) {
			h.Findings[i].Level = max(f.Level, level)
		}
	}
}

func (p Process) unconnected() *Finding {
	if p.Failure == nil {
		return nil
	}
	f := &Finding{Level: Critical, Code: CodeUnconnected, steps: p.stepsForFailure(), scenario: p.scenarioOfFailure()}
	f.What = fmt.Sprintf("%s gets no new connection: %s, last %s ago", p.name(), p.Failure.words(), Short(p.Failure.Ago.Duration()))
	if p.Failure.Over {
		f.Level, f.scenario = Warning, ""
		f.steps = []Step{{"do nothing now; if it happens again, ask while it lasts", command("doctor"), nobody}}
		f.What = fmt.Sprintf("%s got no new connection %s ago: %s; that is over",
			p.name(), Short(p.Failure.Ago.Duration()), p.Failure.words())
	}
	if failed := p.failedConnects(); failed > 0 {
		f.What += fmt.Sprintf("; %s failed %s", count(int(failed), "attempt to connect", "attempts to connect"), p.period())
	}
	return f
}

// seenWith marks a failure for want of a slot as over if the server has many free slots by now. No request may have
// tried since.
func (f *ConnectFailure) seenWith(slots Slots) *ConnectFailure {
	if f == nil || f.Over || f.Limit != db.ServerLimit || slots.Max == 0 || slots.Free()*10 < slots.Usable() {
		return f
	}
	over := *f
	over.Over = true
	return &over
}

func (f ConnectFailure) words() string {
	switch f.Limit {
	case db.RoleLimit, db.DatabaseLimit:
		return fmt.Sprintf("%s (the limit of the %s)", f.Cause, f.Limit)
	}
	return string(f.Cause)
}

func (p Process) failedConnects() int64 {
	failed := func(s db.Stat) int64 { return s.Connects - s.Connected - int64(s.Connecting) }
	return failed(p.Now) - failed(p.Past)
}

func (p Process) scenarioOfFailure() string {
	switch {
	case p.Failure.Cause == db.CircuitOpen, p.Failure.Cause == db.ServerUnavailable:
		return "no-recovery"
	case p.Failure.Cause != db.SlotsExhausted:
		return ""
	case p.Now.Strategy == db.Persistent:
		return "thread-leak"
	case p.Now.Strategy == db.PerRequest:
		return "too-much-at-once"
	}
	return "replicas-times-pool"
}

func (p Process) stepsForFailure() []Step {
	doctor := Step{"see who has the slots, and what to close", command("doctor"), nobody}
	switch p.Failure.Cause {
	case db.SlotsExhausted:
		if p.Failure.Limit != db.ServerLimit {
			return []Step{{"see which limit is reached, and who uses it up", command("doctor"), nobody}}
		}
		if p.Now.Strategy == db.Persistent || p.Now.Strategy == db.PerRequest {
			return []Step{switchTo("pool", "it opens pool.max_size connections at most, and requests queue for them"), doctor}
		}
		return []Step{doctor, {"make pool.max_size so small that all processes fit together", command("budget"), nobody}}
	case db.CircuitOpen, db.ServerUnavailable:
		return []Step{{
			Do:      "start the database server, or see why it does not answer; the application tries again by itself, and recovers with it",
			Command: connects,
			Hurts:   nobody,
		}}
	case db.PoolerFull:
		return []Step{{"look at PgBouncer's pools: who waits, and for what", command("doctor"), nobody}}
	}
	return []Step{{"compare the configuration with what the server allows, then save it: no restart is needed", connects, nobody}}
}

// connects is the command that logs in once, and prints the error.
const connects = "ddtb config check --connect"

// switchTo is a switch of the strategy, which takes effect at once.
func switchTo(strategy, why string) Step {
	return Step{
		Do:      fmt.Sprintf("switch the strategy to %q: %s", strategy, why),
		Command: "ddtb strategy " + strategy,
		Hurts:   "nobody: requests finish with the connections that they hold",
	}
}

func (p Process) stalled() *Finding {
	wanted := p.Now.Waiting > 0 || p.FailedSinceStall > 0
	if !p.hasStalled() || !wanted && p.Stalled.Duration() < stalledIdle {
		return nil
	}
	f := &Finding{Level: Warning, Code: CodeStalled, steps: p.stepsForHolders(), scenario: p.scenarioOfHolders(), PIDs: backends(p.Holders)}
	f.What = fmt.Sprintf("%s, and none came back for %s: %s", p.full(), Short(p.Stalled.Duration()), p.queued())
	if p.FailedSinceStall > 0 {
		f.What += fmt.Sprintf("; %s failed meanwhile", count(int(p.FailedSinceStall), "request", "requests"))
	}
	if wanted {
		f.Level = Critical
	}
	f.What += p.who(p.Holders)
	return f
}

func (p Process) hasStalled() bool { return p.Stalled.Duration() >= stalledAfter }

func (p Process) waiting() *Finding {
	if p.hasStalled() || p.Now.OldestWait < slowWait || p.Now.Leases < p.Now.Size {
		return nil
	}
	return &Finding{
		Level: Warning, Code: CodeWaiting, steps: p.stepsForLoad(), scenario: "slow-query-pile-up",
		What: fmt.Sprintf("%s, and come back slowly: %s%s", p.full(), p.queued(), p.who(p.Holders)),
	}
}

func (p Process) lost() *Finding {
	timedOut, refused := p.Now.TimedOut-p.Past.TimedOut, p.Now.Refused-p.Past.Refused
	if timedOut+refused <= 0 {
		return nil
	}
	f := &Finding{
		Level: Warning, Code: CodeLost, steps: p.stepsForLoad(), scenario: "slow-query-pile-up",
		What: fmt.Sprintf("%s of %s failed %s because no lease came free: %d waited in vain, %d were refused at once",
			count(int(timedOut+refused), "request", "requests"), p.name(), p.period(), timedOut, refused),
	}
	if p.FailedRecently > 0 {
		f.Level = Critical
	} else {
		f.What += fmt.Sprintf("; none in the last %s", Short(recently))
	}
	if p.hasStalled() {
		f.steps, f.scenario = p.stepsForHolders(), p.scenarioOfHolders()
	}
	return f
}

func (p Process) leaks() *Finding {
	late := slices.DeleteFunc(slices.Clone(p.Holders), func(h db.Holder) bool {
		return p.LeakAfter == 0 || p.At.Sub(h.Since) < p.LeakAfter.Duration()
	})
	reclaimed := p.Now.Reclaimed - p.Past.Reclaimed
	if len(late) == 0 && reclaimed <= 0 {
		return nil
	}
	f := &Finding{Level: Warning, Code: CodeLeak, steps: p.stepsForHolders(), scenario: p.scenarioOfHolders(), PIDs: backends(late)}
	var text []string
	if len(late) > 0 {
		text = append(text, fmt.Sprintf("%s of %s out for longer than leak_after (%s)%s",
			count(len(late), "lease", "leases"), p.name(), Short(p.LeakAfter.Duration()), p.who(late)))
	}
	if reclaimed > 0 {
		text = append(text, fmt.Sprintf("%s of %s had to be taken back %s",
			count(int(reclaimed), "lease", "leases"), p.name(), p.period()))
	}
	f.What = strings.Join(text, "; ")
	return f
}

func (p Process) nested() *Finding {
	n := p.Now.Nested - p.Past.Nested
	if n <= 0 {
		return nil
	}
	return &Finding{
		Level: Warning, Code: CodeNested, scenario: "nested-acquire",
		What: fmt.Sprintf("%s of %s asked for a lease %s while they held one: a small pool deadlocks on that",
			count(int(n), "request", "requests"), p.name(), p.period()),
		steps: []Step{{"give the lease back first, or query through the Querier that InTx gives; the log names both lines of code", "", nobody}},
	}
}

func (p Process) unusedReplicas() *Finding {
	text := []string{}
	for _, r := range p.Replicas {
		if !r.Serves {
			text = append(text, fmt.Sprintf("%s (%s)", r.Host, r.Why))
		}
	}
	if len(text) == 0 {
		return nil
	}
	return &Finding{
		Level: Warning, Code: CodeReplica, scenario: "fleet-failover",
		What: fmt.Sprintf("%s reads from the primary in place of %s: %s",
			p.name(), count(len(text), "replica", "replicas"), strings.Join(text, ", ")),
		steps: []Step{{"let the replica run, follow this primary and catch up: then it is used within a second; or take it out of [databases.replica]", "", nobody}},
	}
}

// stepsForHolders are for leases that are not released.
func (p Process) stepsForHolders() []Step {
	steps := []Step{{
		Do:    "release the lease on every way out, and before slow work" + p.at() + "; close rows that are not read to their end",
		Hurts: nobody,
	}}
	if p.hasStalled() {
		steps = append(steps, Step{
			Do: `to serve requests meanwhile, save another strategy or pool.max_size, on the dashboard under "Strategy" or in the ` +
				"configuration file: that brings a new pool at once",
			Hurts: "nobody; the leases that are out keep their slots until they come back",
		})
	}
	return append(steps, Step{
		Do:    `until the code is fixed, set reclaim_after = "30s" under [databases.default.pool]: a lease that is out for longer is taken back`,
		Hurts: "a request that still uses such a lease: its next query fails",
	})
}

// stepsForLoad are for leases that are released, but too slowly.
func (p Process) stepsForLoad() []Step {
	var steps []Step
	if p.KeepsLeases && p.Now.Strategy == db.Pool {
		steps = append(steps, Step{
			Do:    `set hold = "query" under [databases.default.pool]: a request then gives its lease back between two queries`,
			Hurts: nobody,
		})
	}
	steps = append(steps, Step{
		Do:      "make the work on a lease shorter" + p.at() + ": the slowest queries first",
		Command: command("status"),
		Hurts:   nobody,
	})
	if p.Now.Strategy == db.Pool {
		steps = append(steps,
			switchTo(db.Multiplex, "reads then share two connections, and need no lease"),
			Step{"or let the pool have more leases (pool.max_size), if the server has room for them", command("budget"), "nobody, while all pools together fit"})
	}
	return steps
}

func (p Process) scenarioOfHolders() string {
	if p.Now.Nested > p.Past.Nested {
		return "nested-acquire"
	}
	return "rows-not-closed"
}

func (p Process) name() string { return cmp.Or(p.Application, "this application") }

func (p Process) full() string {
	if p.Now.Size == 1 {
		return "the one lease of " + p.name() + " is out"
	}
	return fmt.Sprintf("all %d leases of %s are out", p.Now.Size, p.name())
}

func (p Process) queued() string {
	if p.Now.Waiting == 0 {
		return "the next request waits in vain"
	}
	return fmt.Sprintf("%s, the first for %s", count(p.Now.Waiting, "request waits", "requests wait"), Short(p.Now.OldestWait))
}

// period is the time over which the counters are compared.
func (p Process) period() string { return "in the last " + Short(p.Within.Duration()) }

// at names the line with most leases.
func (p Process) at() string {
	if h, _ := worst(p.Holders); h.Where != "" {
		return ", in " + h.Where
	}
	return ""
}

// who names the holders, in a clause.
func (p Process) who(holders []db.Holder) string {
	h, n := worst(holders)
	if h.Where == "" {
		return ""
	}
	return fmt.Sprintf("; %s asked for by %s, the oldest %s ago", count(n, "was", "were"), h.Where, Short(p.At.Sub(h.Since)))
}

// worst returns the oldest lease of the line of code with the most leases, and how many that line has. Of several such
// lines, it takes the one with the oldest lease.
func worst(holders []db.Holder) (oldest db.Holder, most int) {
	n := map[string]int{}
	for _, h := range holders {
		n[h.Where]++
	}
	for _, h := range holders {
		if n[h.Where] > most {
			oldest, most = h, n[h.Where]
		}
	}
	return oldest, most
}

func backends(holders []db.Holder) (pids []int32) {
	for _, h := range holders {
		if h.PID != 0 {
			pids = append(pids, int32(h.PID))
		}
	}
	return pids
}
