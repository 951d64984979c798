package activity

import (
	"fmt"
	"slices"
	"strings"

	"ddtb/db"
)

// budget returns the connection budget of the pools of automatic size: as the ddtb servers report it, or else as
// configured; 0: not known.
func (p *problem) budget() int {
	if len(p.now.Processes) == 0 {
		return p.t.Budget
	}
	budget := 0
	for _, x := range p.now.Processes {
		budget = max(budget, x.Now.Budget)
	}
	return budget
}

// tickets finds a connection budget that fits neither its server nor its processes, and tickets that are held for
// nothing while processes wait for them.
func (p *problem) tickets() *Finding {
	t, budget, usable := p.now.Tickets, p.budget(), p.now.Slots.Usable()
	f := &Finding{Level: Warning, Code: "budget", culprit: "the setting fleet.budget", scenario: "replicas-times-pool"}
	if t.IsZero() || budget == 0 {
		return nil
	}
	switch unused := p.unusedTickets(); {
	case p.t.Budget > usable:
		f.What = fmt.Sprintf("fleet.budget is %d, and the server has %d usable slots", p.t.Budget, usable)
		f.steps = p.stepsForBudget(fmt.Sprintf("set fleet.budget to %d at most, and save it",
			max(1, usable-t.Processes-db.BudgetReserve(usable))))
	case t.Processes > budget:
		f.What = fmt.Sprintf("%d processes share a budget of %s, so they take turns",
			t.Processes, count(budget, "connection", "connections"))
		f.steps = p.stepsForBudget(fmt.Sprintf("set fleet.budget to %d at least, and save it, or run fewer processes", t.Processes))
	case len(unused) > 0 && t.Held >= budget && (p.waitsForTickets() || t.Needed > budget):
		f.What = fmt.Sprintf("all %d tickets of the budget are held, while more connections are needed; %s been idle for over %s",
			budget, count(len(unused), "session with a ticket has", "sessions with tickets have"), Short(p.t.Idle))
		f.PIDs, f.culprit, f.scenario = pids(unused), p.family.name(unused[0]), ""
		f.steps = p.stepsForUnusedTickets(unused)
	default:
		return nil
	}
	return f
}

func (p *problem) stepsForBudget(do string) []Step {
	return []Step{
		{do + "; every process must have the same budget", command("budget"), nobody},
		{"see how many tickets are held and needed", command("status"), nobody},
	}
}

// stepsForUnusedTickets ends sessions with tickets that their process does not return.
func (p *problem) stepsForUnusedTickets(unused []Session) []Step {
	mine := slices.DeleteFunc(slices.Clone(unused), func(s Session) bool { return p.family.name(s) != p.family.name(unused[0]) })
	q := p.of(Holding{Reason: Rests, Application: p.family.name(unused[0]), Sessions: len(mine), sessions: mine})
	find := Step{
		Do:      "see why their process does not return them (stopped, or its monitoring connection is cut off): it is at " + addressesOf(mine),
		Command: command("status"),
		Hurts:   nobody,
	}
	if q.selector() == "" {
		return append(q.stepsToEndIdle(mine[0]), find)
	}
	rested, resting := q.restsFor(atRest)
	return append(q.stepsToEnd(resting, Step{
		Do:      fmt.Sprintf("close the %d that have been idle for %s: each frees its ticket at once (it shows them first, and asks)", len(resting), rested),
		Command: command("close-idle --older-than=" + rested + q.selector()),
		Hurts:   "the process of these sessions: its pool connects again as soon as it gets tickets",
	}), find)
}

// waitsForTickets reports whether requests of a ddtb server wait, and no ticket is free.
func (p *problem) waitsForTickets() bool {
	return slices.ContainsFunc(p.now.Processes, func(x Process) bool { return x.Now.Waiting > 0 && x.Now.TicketsFree == 0 })
}

// unusedTickets returns the sessions that hold a ticket and have been idle for long, the longest first. A process that
// is alive returns such a ticket while others need it.
func (p *problem) unusedTickets() []Session {
	return p.now.longestFirst(inState, func(s Session) bool {
		return slices.Contains(p.now.Tickets.PIDs, s.PID) && !strings.HasSuffix(s.Application, monitorSuffix) &&
			s.State == Idle && s.InState.Duration() >= p.t.Idle
	})
}
