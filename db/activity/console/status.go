package console

import (
	"cmp"
	"fmt"
	"slices"

	"ddtb/db/activity"
)

// mostRows is the most rows of a table.
const mostRows = 15

// Status writes which sessions have the slots. level is the verdict on them.
func (p Printer) Status(s activity.Status, level activity.Level) {
	p.header(s.Snapshot)
	p.slots(s.Snapshot, level)
	if t := s.Tickets; t.Held+t.Processes > 0 {
		p.Wrapped("Budget ", fmt.Sprintf("%d tickets held by the pools of automatic size; %d processes need %d", t.Held, t.Processes, t.Needed))
	}
	p.line("")
	p.states(s)
	p.groups("By application", s.Applications, func(g activity.Group) string { return cmp.Or(Clean(g.Name), "(no name)") })
	if len(s.Databases) > 1 {
		p.groups("By database", s.Databases, func(g activity.Group) string { return cmp.Or(Clean(g.Database), "(none yet)") })
	}
	p.groups("By user and client", s.Clients, func(g activity.Group) string {
		return cmp.Or(Clean(g.User), "(none yet)") + " from " + cmp.Or(Clean(g.Address), "(not visible)")
	})
	p.worst(s)
	p.withoutSession(s)
	p.pools(s)
	p.unseen(s)
}

// withoutSession writes objects that hold locks or WAL and have no session.
func (p Printer) withoutSession(s activity.Status) {
	for _, x := range s.Prepared {
		p.line("%-27s %-8s '%s' of %s in %s", "Prepared transaction", age(x.Age), Clean(x.GID), Clean(x.Owner), Clean(x.Database))
	}
	for _, x := range s.WALSlots {
		if !x.Active {
			p.line("%-27s %s, inactive, keeps %d MB of WAL", "Replication slot", Clean(x.Name), x.Retained>>20)
		}
	}
	hidden := 0
	for _, x := range s.Replication {
		if x.State == "" {
			hidden++
			continue
		}
		p.line("%-27s %-8s %s, %s, %s", "Standby, behind by", age(x.Lag), Clean(x.Name), Clean(x.State), Clean(x.Sync))
	}
	if hidden > 0 {
		p.line("%-27s %-8d connected; this role may not see them (pg_read_all_stats)", "Standbys", hidden)
	}
	for _, x := range s.Replicas {
		serves := fmt.Sprintf("serves reads (%d so far)", x.Reads)
		if !x.Serves {
			serves = "serves no reads: " + Clean(x.Why)
		}
		p.Wrapped("Replica  ", fmt.Sprintf("%s, behind by %s: %s (of ddtb process %d)", Clean(x.Host), age(x.Lag), serves, x.Process))
	}
}

func (p Printer) header(s activity.Snapshot) {
	standby := ""
	if s.Server.Standby {
		standby = ", a standby"
	}
	p.Wrapped("", fmt.Sprintf("PostgreSQL %s at %s%s, database %s, seen as %s, up for %s", Clean(s.Server.Version), Clean(s.Server.Address),
		standby, Clean(s.Database), Clean(s.Role.Name), activity.Short(s.At.Sub(s.Server.Started))))
	p.line("")
}

func (p Printer) slots(s activity.Snapshot, level activity.Level) {
	l := s.Slots
	p.line("Slots  %s  %s", p.bar(l, level, p.barWidth()), p.brief(l, level))
	reserved := fmt.Sprintf("superuser_reserved_connections %d", s.Server.ForSuper)
	if s.Server.VersionNum >= 160000 {
		reserved += fmt.Sprintf(", reserved_connections %d", s.Server.ForReserved)
	}
	p.Wrapped("       ", fmt.Sprintf("max_connections %d, of which reserved %d (%s)", l.Max, l.Reserved, reserved))
	p.Wrapped("       ", "this view uses "+Clean(s.AccessPath()))
	for _, x := range s.Limits {
		p.line("       %s %s has a limit of its own: %d of %d", x.Of, Clean(x.Name), x.Used, x.Max)
	}
}

func (p Printer) brief(s activity.Slots, level activity.Level) string {
	return fmt.Sprintf("%s, %d free", p.styled(styleOf(level), s.Brief()), s.Free())
}

func (p Printer) barWidth() int {
	if p.Width > 0 && p.Width < 100 {
		return max(10, p.Width-60)
	}
	return 40
}

func (p Printer) states(s activity.Status) {
	rows := [][]string{}
	for _, c := range s.States {
		rows = append(rows, []string{Clean(c.Name), fmt.Sprint(c.Count)})
	}
	p.table(named("By state", "sessions"), rows)
	p.line("")
}

func (p Printer) groups(title string, groups []activity.Group, name func(activity.Group) string) {
	rows, left := [][]string{}, 0
	for _, g := range groups[:min(mostRows, len(groups))] {
		rows = append(rows, []string{
			name(g), fmt.Sprint(g.Sessions), some(g.Active), some(g.Idle), some(g.IdleInTransaction), some(g.Waiting), age(g.Oldest),
		})
	}
	for _, g := range groups[len(rows):] {
		left += g.Sessions
	}
	p.table(named(title, "sessions", "active", "idle", "in transaction", "waiting", "oldest"), rows)
	if left > 0 {
		p.line("… and %d sessions in %d more", left, len(groups)-mostRows)
	}
	p.line("")
}

// some leaves zeros out, so that the other counts stand out.
func some(n int) string {
	if n == 0 {
		return "·"
	}
	return fmt.Sprint(n)
}

func age(a activity.Age) string {
	if a == 0 {
		return "·"
	}
	return activity.Short(a.Duration())
}

func (p Printer) worst(s activity.Status) {
	none := "none"
	if s.Unseen > 0 {
		none = "none that this role may see"
	}
	one := func(title string, x *activity.Session, a func(activity.Session) activity.Age) {
		if x == nil {
			p.line("%-27s %s", title, none)
			return
		}
		p.line("%-27s %-8s pid %d, %s, %s: %s", title, age(a(*x)), x.PID, Clean(x.Who()), Clean(x.State), Clean(x.Query))
	}
	one("Oldest transaction", s.OldestTransaction, func(x activity.Session) activity.Age { return x.InTransaction })
	one("Oldest idle in transaction", s.OldestIdleInTx, func(x activity.Session) activity.Age { return x.InState })
	one("Longest query", s.LongestQuery, func(x activity.Session) activity.Age { return x.InQuery })
	if len(s.WaitingOnLocks) == 0 {
		p.line("%-27s none", "Waiting on locks")
		return
	}
	behind := ""
	if roots := s.Roots(); len(roots) > 0 {
		behind = ", behind " + Clean(roots[0].Describe())
	}
	p.Wrapped(fmt.Sprintf("%-27s %-8d ", "Waiting on locks", len(s.WaitingOnLocks)), "pid "+list(s.WaitingOnLocks, 5)+behind)
}

func list(pids []int32, most int) string {
	return activity.Names(pids, most, func(pid int32) string { return fmt.Sprint(pid) })
}

func (p Printer) pools(s activity.Status) {
	if s.PoolsError != "" {
		p.line("")
		p.Wrapped("Not shown  ", Clean(s.PoolsError))
	}
	if len(s.Pools) == 0 {
		return
	}
	rows := [][]string{}
	for _, x := range s.Pools {
		rows = append(rows, []string{
			Clean(x.Database + " as " + x.User), Clean(x.Mode), some(x.ClientActive), some(x.ClientWaiting), some(x.ServerActive),
			some(x.ServerIdle + x.ServerUsed), age(x.MaxWait),
		})
	}
	p.line("")
	p.table(slices.Insert(named("PgBouncer's pools", "clients", "waiting", "servers", "idle", "longest wait"), 1, column{title: "mode"}), rows)
}

func (p Printer) unseen(s activity.Status) {
	if s.Unseen > 0 {
		p.paragraph(fmt.Sprintf("%d sessions belong to other roles, and %s may not see what they do. To let it:", s.Unseen, Clean(s.Role.Name)))
		p.command("  ", Clean(s.GrantReadAll()))
	}
}
