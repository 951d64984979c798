package console

import (
	"fmt"
	"strings"

	"ddtb/db/activity"
)

// Health writes the verdict, the reasons and what to do. The first line is for a monitoring system.
func (p Printer) Health(h activity.Health) {
	verdict := p.styled(styleOf(h.Level), strings.ToUpper(h.Level.String()))
	slots := h.Slots.String()
	switch {
	case h.Slots.Max == 0 && len(h.Findings) > 0: // they could not be counted
		p.Wrapped(verdict+"  ", Clean(h.Findings[0].What))
	case len(h.Findings) > 0 && h.Findings[0].Code != "utilisation": // they are not the problem
		p.Wrapped(verdict+"  ", Clean(h.Findings[0].What)+"; "+slots)
	default:
		p.Wrapped(verdict+"  ", slots)
	}
	for _, f := range h.Findings {
		p.line("")
		p.finding(f)
		if steps := f.Steps(); len(steps) > 0 && steps[0].Command != "" {
			p.Wrapped("          → ", Clean(steps[0].Do))
			p.command("            ", Clean(steps[0].Command))
		} else {
			p.Wrapped("          → ", Clean(f.Do))
		}
	}
	p.unjudged(h)
}

func (p Printer) finding(f activity.Finding) {
	p.Wrapped(p.styled(styleOf(f.Level), fmt.Sprintf("%-9s ", f.Level)), Clean(f.What))
}

func (p Printer) unjudged(h activity.Health) {
	if h.Processes > 0 {
		who := "The running ddtb server on this machine was asked about its own leases, and is"
		if h.Processes > 1 {
			who = fmt.Sprintf("%d running ddtb servers on this machine were asked about their own leases, and are", h.Processes)
		}
		p.paragraph(who + " judged too.")
	}
	if h.Unseen > 0 {
		sessions := fmt.Sprintf("%d sessions of other roles", h.Unseen)
		if h.Unseen == 1 {
			sessions = "1 session of another role"
		}
		p.paragraph(sessions + " could not be judged: this role may not see the state " +
			"(pg_read_all_stats lets it). Before PostgreSQL 17, workers of parallel queries are counted as sessions too.")
	}
}

// Refusal writes why a full server refused a connection, and the ways to connect.
func (p Printer) Refusal(r activity.Refusal) {
	p.Wrapped(p.styled(red, "No slot  "), r.Means)
	p.Wrapped("         ", "the server says: "+Clean(r.Message))
	p.line("")
	p.line("Ways in:")
	p.steps(r.Ways)
}

func (p Printer) steps(steps []activity.Step) {
	for i, s := range steps {
		p.Wrapped(fmt.Sprintf("  %d. ", i+1), Clean(s.Do))
		if s.Command != "" {
			p.command("       ", Clean(s.Command))
		}
		if s.Hurts != "" {
			p.Wrapped("       ", "Hurts: "+Clean(s.Hurts))
		}
	}
}

// Diagnosis writes the problem, the culprit, the likely scenario, and what to do.
func (p Printer) Diagnosis(d activity.Diagnosis) {
	if d.Health.Level == activity.OK {
		p.Health(d.Health)
		p.line("")
		p.line("Nothing is wrong with the connections, as far as the server shows.")
		p.maybeExhausted(d.MaybeOut)
		return
	}
	p.line("What is wrong")
	for _, f := range d.Health.Findings { // what to do comes below, for all findings
		p.finding(f)
	}
	p.unjudged(d.Health)
	if len(d.Holds) > 0 {
		p.line("")
		p.line("Who has the slots")
		p.holdings(d.Holds)
	}
	if d.Culprit != "" {
		p.line("")
		p.Wrapped("The cause is   ", p.styled(bold, Clean(d.Culprit)))
	}
	p.scenario("It looks like  ", d.Scenario)
	p.scenario("just as likely ", d.Also)
	if d.Also != nil {
		p.Wrapped("To tell        ", d.ToTell)
	}
	if len(d.Steps) > 0 {
		p.line("")
		p.line("What to do, in this order")
		p.steps(d.Steps)
	}
	if d.Lab != "" {
		p.paragraph("To see it happen, and what fixes it, on a server of its own:")
		p.command("  ", d.Lab)
	}
}

func (p Printer) scenario(first string, s *activity.Scenario) {
	if s != nil {
		p.Wrapped(first, fmt.Sprintf("%s (scenario %d): %s", p.styled(bold, s.Name), s.Number, s.Cause))
	}
}

// maybeExhausted names the pools that may be exhausted inside their application, which no server shows.
func (p Printer) maybeExhausted(pools []activity.Holding) {
	p.paragraph("A pool that is exhausted inside its application can't be seen from here: connections that are held " +
		"look like connections at rest. If an application waits for its pool, ask the application.")
	if len(pools) > 0 {
		p.line("It may be one of these, whose sessions all rest after the same query:")
		p.holdings(pools)
	}
}

// holdings writes the first five.
func (p Printer) holdings(all []activity.Holding) {
	first := all[:min(5, len(all))]
	for _, h := range first {
		p.Wrapped("  ", Clean(h.Evidence()))
	}
	p.more("  ", len(all)-len(first))
}

// more says how many lines are left out, if any.
func (p Printer) more(indent string, n int) {
	if n > 0 {
		p.line("%s… and %d more", indent, n)
	}
}

func (p Printer) services(services []activity.Service) {
	if len(services) == 0 {
		return
	}
	rows := [][]string{}
	for _, x := range services[:min(mostRows, len(services))] {
		rows = append(rows, []string{Clean(x.Name), fmt.Sprint(x.Clients), fmt.Sprint(x.Sessions)})
	}
	p.line("")
	p.table(named("Services on the server now", "addresses", "sessions"), rows)
	p.more("", len(services)-len(rows))
}

// Budget writes the arithmetic.
func (p Printer) Budget(b activity.Budget) {
	if b.Fits {
		p.Wrapped(p.styled(green, "Fits")+"  ", b.Sum())
	} else {
		p.Wrapped(p.styled(red, "Does not fit")+"  ", b.Sum())
		p.Wrapped("  → ", b.Advice())
	}
	p.services(b.Services)
	const extras = "Extras are other applications, migrations and an operator."
	switch {
	case b.Strategy == activity.Observed:
		p.paragraph("These are the sessions that are there now. A pool that grows later needs more.")
	case b.BehindPooler():
		p.paragraph("PgBouncer's limits bound what the server sees. The monitoring connections bypass it where direct_host says how.")
	case b.Auto:
		each := []string{"one", "two"}[b.Beside-1]
		p.paragraph(autoText(b) + " The monitoring connections, " + each + " for each process, come on top. " + extras)
	default:
		beside := "The 1 is the connection by which each replica watches the server. The 2"
		if b.Beside > 1 {
			beside = "The first 2 are the connections by which each replica watches the server, and compares the standby with it. The other 2"
		}
		p.paragraph(beside + " is a rolling deploy, in which old and new replicas run side by side. " + extras)
		p.Wrapped("", autoText(b))
		p.largestPool(b)
	}
}

func (p Printer) largestPool(b activity.Budget) {
	if b.FitsPool > 0 {
		p.line("The largest pool that fits has %d connections a replica.", b.FitsPool)
		return
	}
	p.Wrapped("", "No pool fits, not even one of a single connection.")
}

// autoText says which connections pools of automatic size have, or would have.
func autoText(b activity.Budget) string {
	if b.Auto {
		return fmt.Sprintf("All processes share a budget of %d, however many run: %s.", b.AutoBudget, b.Each())
	}
	return fmt.Sprintf("With pool.max_size = \"auto\" all processes would share a budget of %d, also while deploying: %s.", b.AutoBudget, b.Each())
}
