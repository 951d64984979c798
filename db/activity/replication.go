package activity

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// refusesWrites finds a server from which the configured application can only read.
func (p *problem) refusesWrites() *Finding {
	f := &Finding{Level: Warning, Code: "read-only"}
	switch {
	case p.now.Server.Standby && len(p.now.own()) > 0 && !p.t.Replica:
		f.What = fmt.Sprintf("%s is used, and this server is a standby: it refuses every write", p.now.Application)
		f.culprit = "the address that " + p.now.Application + " is configured with"
		f.steps = []Step{{Do: "let it connect to the primary" + p.primary() + ", or promote this server if the primary is lost", Hurts: nobody}}
	case p.now.Server.ReadOnly && !p.now.Server.Standby && !p.onlyMonitorReads():
		f.What = fmt.Sprintf("database %s refuses writes: default_transaction_read_only is on", p.now.Database)
		if p.ofRole() {
			f.What += " for role " + p.now.Role.Name
		}
		f.culprit = "the setting default_transaction_read_only"
		f.steps = []Step{{
			Do: "allow writes again, unless they were switched off on purpose; it takes effect in new sessions",
			Command: p.now.psqlAsSuperuser("SET default_transaction_read_only = off") + // the next statement is a write
				" -c " + ShellQuote("ALTER "+p.readOnlyOwner()+" SET default_transaction_read_only = off"),
			Hurts: nobody,
		}}
	default:
		return nil
	}
	return f
}

// ofRole reports whether the monitoring role's own settings let it only read.
func (p *problem) ofRole() bool { return strings.HasPrefix(p.now.Server.ReadOnlyBy, "role") }

// onlyMonitorReads reports whether the monitoring role is the one that may only read, and programs have other roles. An
// operator's session as a superuser says nothing about them.
func (p *problem) onlyMonitorReads() bool {
	programs := p.now.own()
	if len(programs) == 0 {
		programs = slices.DeleteFunc(p.now.programs(), func(s Session) bool { return s.Superuser })
	}
	same := func(s Session) bool { return s.User == p.now.Role.Name }
	return p.ofRole() && len(programs) > 0 && !slices.ContainsFunc(programs, same)
}

// readOnlyOwner names in SQL what has the setting that counts. Of the server, the database can be excepted.
func (p *problem) readOnlyOwner() string {
	role, database := "ROLE "+quoted(p.now.Role.Name), "DATABASE "+quoted(p.now.Database)
	switch p.now.Server.ReadOnlyBy {
	case "role in database":
		return role + " IN " + database
	case "role":
		return role
	}
	return database
}

func (p *problem) primary() string {
	if p.now.Server.Primary == "" {
		return ""
	}
	return " (" + p.now.Server.Primary + ")"
}

func (p *problem) prepared() *Finding {
	old := slices.DeleteFunc(slices.Clone(p.now.Prepared), func(x Prepared) bool { return x.Age.Duration() < p.t.Orphan })
	if len(old) == 0 {
		return nil
	}
	return &Finding{
		Level: Warning, Code: "prepared-transaction",
		What: fmt.Sprintf("%s for over %s, the oldest for %s ('%s' of %s in %s): they keep locks, and keep VACUUM from cleaning up",
			count(len(old), "prepared transaction is open", "prepared transactions are open"), Short(p.t.Orphan),
			Short(old[0].Age.Duration()), old[0].GID, old[0].Owner, old[0].Database),
		culprit: "the transaction manager of " + old[0].Owner, steps: p.stepsForPrepared(old[0]),
	}
}

// walSlots finds unread replication slots that the server itself marks as too long.
func (p *problem) walSlots() *Finding {
	dead := slices.DeleteFunc(slices.Clone(p.now.WALSlots), func(s WALSlot) bool {
		return s.Active || s.Status == "reserved" || s.Status == ""
	})
	if len(dead) == 0 {
		return nil
	}
	slices.SortStableFunc(dead, func(a, b WALSlot) int { return cmp.Compare(b.Retained, a.Retained) })
	sql := "SELECT pg_drop_replication_slot('" + strings.ReplaceAll(dead[0].Name, "'", "''") + "')"
	drop := Step{"drop the slot if its reader never comes back", p.now.psqlAsSuperuser(sql), "its reader, which must be built anew"}
	f := &Finding{Level: Warning, Code: "replication-slot", culprit: "the reader of replication slot " + dead[0].Name}
	if dead[0].Status == "lost" {
		f.What = fmt.Sprintf("replication slot %s is lost: the server keeps no WAL for it any more, and its reader can't go on", dead[0].Name)
		drop.Do, drop.Hurts = "drop the slot, and build its reader anew", nobody
		f.steps = []Step{drop}
		return f
	}
	f.What = fmt.Sprintf("no client reads from replication slot %s, for which the server keeps %s of WAL (%s): in the end the disk is full",
		dead[0].Name, size(dead[0].Retained), dead[0].Status)
	f.steps = []Step{p.endNothing("start the standby or subscriber that reads from it"), drop}
	return f
}

func (p *problem) replicationLag() *Finding {
	f := &Finding{Level: Warning, Code: "replication-lag", culprit: "replication"}
	for _, r := range p.now.Replication {
		if r.Lag.Duration() >= p.t.Lag {
			f.What = fmt.Sprintf("standby %s is %s behind", r.Name, Short(r.Lag.Duration()))
		}
	}
	if lag := p.now.Server.ReplayLag.Duration(); lag >= p.t.Lag {
		f.What = fmt.Sprintf("this standby is %s behind its primary%s", Short(lag), p.primary())
	}
	if f.What == "" {
		return nil
	}
	f.steps = []Step{p.endNothing("look at the standby: its disk, its network, and queries there that hold replay up (max_standby_streaming_delay)")}
	return f
}

// size formats a number of bytes for people.
func size(n int64) string {
	if n < 1<<30 {
		return fmt.Sprintf("%d MB", n>>20)
	}
	return fmt.Sprintf("%.1f GB", float64(n)/(1<<30))
}
