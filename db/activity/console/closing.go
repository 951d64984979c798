package console

import (
	"cmp"
	"fmt"
	"strings"

	"ddtb/db/activity"
)

// Plan writes the sessions that would be ended.
func (p Printer) Plan(c activity.Closing) {
	if len(c.Sessions) == 0 {
		p.line("No session fits.")
	} else {
		p.sessions(c)
		if n := len(c.Sessions); n > 1 {
			p.line("%d sessions in all; --json lists each.", n)
		}
	}
	p.leftOut(c)
}

// leftOut reports matching sessions that were not chosen.
func (p Printer) leftOut(c activity.Closing) {
	if c.Superuser > 0 {
		p.line("%d more would, and belong to a superuser: --superusers includes them.", c.Superuser)
	}
	if c.Listeners > 0 {
		p.Wrapped("", fmt.Sprintf("%d more would, and wait for notifications (LISTEN): closed, they would miss them. --pid=N ends one.", c.Listeners))
	}
	if c.Unseen > 0 {
		p.Wrapped("", fmt.Sprintf("%d may, of other roles: their state can't be seen by this role (pg_read_all_stats lets it), "+
			"so they are left alone.", c.Unseen))
	}
}

// Cancelled writes the outcome for a query. terminate is the command that ends its session.
func (p Printer) Cancelled(e activity.Ending, terminate string) {
	p.line("%s", e.Outcome)
	switch e.Outcome {
	case activity.StillRuns:
		why := "It has not obeyed."
		switch e.Wait {
		case "Client/ClientWrite":
			why = "The session waits for its client to read on, and heeds no cancel meanwhile."
		case "Client/ClientRead":
			why = "The session waits for its client to send on, and heeds no cancel meanwhile."
		}
		p.Wrapped("", why+" To end the session, which its client sees as a lost connection:")
		p.command("  ", Clean(terminate))
	case activity.Refused:
		p.mayNot()
	case activity.Changed:
		p.Wrapped("", "The query that was shown has ended, or the session belongs to a superuser: --superusers includes it.")
	}
}

func (p Printer) mayNot() {
	p.Wrapped("", "A role may end its own sessions; those of others with pg_signal_backend, "+
		"and those of a superuser as a superuser.")
}

// Closing writes the outcomes for the sessions.
func (p Printer) Closing(c activity.Closing) {
	p.sessions(c)
	p.line("")
	p.line("%d of %d ended.", c.Count(activity.Closed), len(c.Sessions))
	if c.Count(activity.Refused) > 0 {
		p.mayNot()
	}
	if c.After != nil {
		p.line("Slots used: %d before, %d now, of %d usable.", c.Before.Used, c.After.Used, c.After.Usable())
	}
	p.leftOut(c)
}

// victims are the columns of the sessions that end. The query comes last, and is the only one that may be cut.
var victims = []column{
	{title: "pid", right: true},
	{title: "outcome"},
	{title: "application"},
	{title: "user"},
	{title: "client"},
	{title: "state"},
	{title: "for", right: true},
	{title: "last query"},
}

// sessions writes a row for each group of sessions that differ only in process and port. Where the rows are too wide,
// each takes several lines: what identifies a session is never cut.
func (p Printer) sessions(c activity.Closing) {
	rows := victimRows(c.Sessions)
	if p.over(victims, p.widths(victims, rows)) <= 0 {
		p.table(victims, rows)
		return
	}
	const indent = "             "
	for _, r := range rows {
		pid, outcome, application, user, client, state, age, query := r[0], r[1], r[2], r[3], r[4], r[5], r[6], r[7]
		p.Wrapped(fmt.Sprintf("%-*s", len(indent), pid), fmt.Sprintf("%s, %s for %s", outcome, state, age))
		p.Wrapped(indent, fmt.Sprintf("%s from %s, application %s", user, cmp.Or(client, "(not visible)"), cmp.Or(application, "without a name")))
		p.line("%s%s", indent, query)
	}
}

func victimRows(sessions []activity.Ending) (rows [][]string) {
	type group struct {
		row     []string
		n       int
		longest activity.Age
	}
	var groups []*group
	byRow := map[string]*group{}
	for _, e := range sessions {
		row := victimRow(e)
		key := strings.Join(append(row[1:6:6], row[7]), "\x00")
		g := byRow[key]
		if g == nil {
			g = &group{row: row}
			byRow[key] = g
			groups = append(groups, g)
		}
		g.n++
		g.longest = max(g.longest, e.InState)
	}
	for _, g := range groups {
		if g.n > 1 {
			g.row[0], g.row[6] = fmt.Sprintf("%d sessions", g.n), age(g.longest)
		}
		rows = append(rows, g.row)
	}
	return rows
}

func victimRow(e activity.Ending) []string {
	outcome := string(e.Outcome)
	if e.Error != "" {
		outcome += ": " + Clean(e.Error)
	}
	return []string{
		fmt.Sprint(e.PID), outcome, Clean(e.Application), Clean(e.User) + "@" + Clean(e.Database), Clean(e.Address),
		Clean(e.State), age(e.InState), Clean(e.Query),
	}
}

// Sample writes one line of a monitor.
func (p Printer) Sample(s activity.Sample) {
	at := s.At.Local().Format("15:04:05")
	if s.Slots == nil {
		p.line("%s  %s  %s", at, p.styled(styleOf(s.Level), s.Level.String()), Clean(s.Findings[0].What))
		return
	}
	p.line("%s  %3d/%d %3.0f %%  %s%s  new %.1f/s  %s", at, s.Slots.UsedUsable(), s.Slots.Usable(), min(100, s.Slots.Utilisation()),
		inStates(s), notVisible(s), s.NewPerSecond, p.styled(styleOf(s.Level), verdict(s)))
}

func inStates(s activity.Sample) string {
	return fmt.Sprintf("active %d  idle %d  in transaction %d  waiting %d", s.Active, s.Idle, s.IdleInTransaction, s.Waiting)
}

func notVisible(s activity.Sample) string {
	if s.Unseen == 0 {
		return ""
	}
	return fmt.Sprintf("  not visible %d", s.Unseen)
}

func verdict(s activity.Sample) string {
	if len(s.Findings) == 0 {
		return s.Level.String()
	}
	text := s.Level.String() + ": " + Clean(s.Findings[0].What)
	for i, f := range s.Findings[1:] {
		text += []string{"; also ", ", "}[min(i, 1)] + f.Code
	}
	return text
}
