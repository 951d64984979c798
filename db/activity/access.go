package activity

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"ddtb/db"
)

// AccessPath says by which right the snapshot's connection has its slot, which matters when no ordinary slot is left.
func (s Snapshot) AccessPath() string {
	others := s.Slots.Used - 1
	const kept = "an ordinary slot, taken before they ran out"
	switch {
	case s.Through != "":
		return "the monitoring connection of the running ddtb server, through " + s.Through
	case s.Slots.Free() > 0:
		return "an ordinary slot"
	case others < s.Slots.Usable():
		return kept
	case s.Role.Superuser:
		return "a reserved slot: " + s.Role.Name + " is a superuser (superuser_reserved_connections)"
	case s.Role.UsesReserved && s.Server.ForReserved > 0:
		return "a reserved slot: " + s.Role.Name + " has " + reservedRole + " (reserved_connections)"
	}
	return kept
}

// Refusal is why a full server refused a connection.
type Refusal struct {
	Message string `json:"message"` // the server's message
	Means   string `json:"means"`
	Ways    []Step `json:"doors"` // ways to connect now, and to have one the next time
}

// Failure is the output for programs if the server could not be polled.
type Failure struct {
	Error   string   `json:"error"`
	Health  Health   `json:"health"`            // critical if no slot is left, else unknown
	Refusal *Refusal `json:"refusal,omitempty"` // if no slot is left
}

// NoAccess explains an error with db.SlotsExhausted: which limit it hit, and which ways into cc's server there are. passFile
// is that of the server's Observer. The server's messages are translated; the name of the C function is not.
func NoAccess(err error, cc *pgx.ConnConfig, passFile string) Refusal {
	at := refusedAt(cc)
	at.Server.PassFile = passFile
	if ce, ok := errors.AsType[*db.ConnError](err); ok && ce.Server != "" {
		at.Server.Address = ce.Server
	}
	r := Refusal{Message: err.Error(), Means: "the server has no connection slot left for this role", Ways: at.ordinaryTaken()}
	pe, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return r
	}
	r.Message = pe.Severity + ": " + pe.Message
	switch pe.Routine {
	case "InitProcess":
		r.Means = "every slot is taken, the reserved ones too"
		r.Ways = at.allTaken()
	case "ProcessStartupPacket", "BackendInitialize": // the second from PostgreSQL 17 on
		r.Means = "the server has as many client processes as it may, whether they have slots or not: there is a storm of attempts to connect, " +
			"or clients that connected don't begin their login. It has none left for a superuser either"
		r.Ways = at.noProcess()
	case "InitPostgres":
		r.Means, r.Ways = at.reserved(pe.Message)
	case "CheckMyDatabase":
		r.Means = "this database has reached a limit of its own; the server may have slots left"
		r.Ways = at.stepsForOwnLimit("database", at.Database)
	case "InitializeSessionUserId":
		r.Means = "this role has reached a limit of its own; the server may have slots left"
		r.Ways = at.stepsForOwnLimit("role", at.Role.Name)
	}
	return r
}

// refusedAt describes the server that refused: its address, and which role requested which database.
func refusedAt(cc *pgx.ConnConfig) (s Snapshot) {
	s.Server.Superuser = superuser
	if cc != nil {
		s.Server.Address, s.Database, s.Role.Name = address(cc), cc.Database, cc.User
	}
	return s
}

// superuser is the name of the superuser in PostgreSQL's packages.
const superuser = "postgres"

// asSuperuser runs a statement as the server's superuser, for whom the last slots are reserved: with the passwords of a
// private server, and else through the socket of a packaged one.
//
// It needs psql alone: the account may not run this program, or find it. At a provider it is the administrator.
func (s Snapshot) asSuperuser(do, sql string) Step {
	if s.hosted() {
		return Step{
			Do:      "as the administrator that the provider gave you ($ADMIN stands for its name), " + do,
			Command: "psql" + s.at() + ` -U "$ADMIN" -d ` + ShellQuote(cmp.Or(s.Database, "postgres")) + " -c " + ShellQuote(sql),
		}
	}
	host, port := s.host()
	machine := "on the database's machine"
	if !strings.HasPrefix(host, "/") {
		machine += strings.TrimRight(", "+host, ", ")
		if s.Server.PassFile == "" {
			host = "/var/run/postgresql"
		}
	}
	if s.Server.Address = host; port != "" {
		s.Server.Address = net.JoinHostPort(host, port)
	}
	s.Database, s.Role.Name = "postgres", "" // whoever runs it, and not this run's role
	return Step{Do: machine + ", " + do, Command: s.psql(superuser, sql)}
}

// whoHasSlots lists the sessions in groups, the largest first, with the logins that pg_stat_activity does not show.
const whoHasSlots = "SELECT count(*), application_name, usename, client_addr, coalesce(state, 'starting') AS state, min(state_change) AS since " +
	"FROM pg_stat_activity FULL JOIN (SELECT DISTINCT pid FROM pg_locks WHERE locktype = 'virtualxid') l USING (pid) " +
	"WHERE backend_type = 'client backend' OR backend_start IS NULL GROUP BY 2, 3, 4, 5 ORDER BY 1 DESC"

var throughServer = Step{
	Do: "on the machine of a running ddtb server, as its user, run this command again: it uses the connection that the server keeps",
}

// ordinaryTaken lists the ways while only superusers have slots left.
func (s Snapshot) ordinaryTaken() []Step {
	if s.hosted() {
		return []Step{
			s.asSuperuser("see who has the slots: some providers reserve a few for it", whoHasSlots), throughServer, stopOne, lastResort,
		}
	}
	return []Step{
		s.asSuperuser("see who has the slots, as a superuser, for whom some are reserved", whoHasSlots),
		throughServer,
		{Do: "once in, see which size of pool fits, so that it does not happen again", Command: command("budget")},
	}
}

// providers end the host names of servers to whose machine nobody but the provider has access.
var providers = []string{
	".rds.amazonaws.com", ".rds.amazonaws.com.cn", ".postgres.database.azure.com", ".neon.tech", ".supabase.co", ".supabase.com",
	".aivencloud.com", ".ondigitalocean.com",
}

func (s Snapshot) hosted() bool {
	host, _ := s.host()
	return slices.ContainsFunc(providers, func(end string) bool { return strings.HasSuffix(strings.TrimSuffix(host, "."), end) })
}

var stopOne = Step{Do: "stop one process of an application: the server frees its slots at once", Hurts: "those whom that process serves"}

// allTaken lists the ways while no role can log in, superusers included.
func (s Snapshot) allTaken() []Step {
	if s.hosted() {
		return []Step{throughServer, stopOne, s.asSuperuser("take the freed slot, and see who has the others", whoHasSlots), lastResort}
	}
	return []Step{
		throughServer,
		stopOne,
		{
			Do:      "if none can be stopped, end the oldest idle session from a shell of the database's machine (Linux, with no other PostgreSQL), never with kill -9",
			Command: "sudo kill $(pgrep -o -f '^postgres: .* idle *$')",
			Hurts:   "the client of that session, which sees a lost connection",
		},
		s.asSuperuser("take the freed slot, which is reserved for a superuser, and see who has the others", whoHasSlots),
		lastResort,
	}
}

var lastResort = Step{Do: "as the last resort, restart the server", Hurts: "all clients: each session ends, and its transaction is rolled back"}

// noProcess lists the ways while the server starts no process for any client.
func (s Snapshot) noProcess() []Step {
	return []Step{
		s.sockets("see which machines have most of the connections, and stop the program there or keep it out (a firewall),"),
		throughServer,
		{
			Do:    "or wait: a client that does not begin its login is disconnected after authentication_timeout, a minute by default",
			Hurts: nobody,
		},
		lastResort,
	}
}

// reservedRole may use the slots of reserved_connections, from PostgreSQL 16 on.
const reservedRole = "pg_use_reserved_connections"

// reserved explains the refusal of an ordinary login. The translations of its message keep what is a name in SQL.
func (s Snapshot) reserved(message string) (means string, ways []Step) {
	role := cmp.Or(s.Role.Name, "role_name")
	left := "every ordinary slot is taken; those left are reserved for superusers"
	if s.Role.Name != "" {
		left += ", and " + role + " is none"
	}
	grant := "GRANT " + reservedRole + " TO " + quoted(role)
	switch {
	case strings.Contains(message, reservedRole):
		return "every ordinary slot is taken; of those left, some are reserved for roles with " + reservedRole + ", the rest for superusers", []Step{
			s.asSuperuser("let "+role+" have a reserved slot, and run this command again", grant),
			throughServer,
			s.asSuperuser("see who has the slots, as a superuser", whoHasSlots),
		}
	case strings.Contains(message, "SUPERUSER"): // from PostgreSQL 16 on, too
		return left, append(s.ordinaryTaken(),
			s.asSuperuser("reserve slots for operators, from the server's next restart on", "ALTER SYSTEM SET reserved_connections = 3"),
			s.asSuperuser("let "+role+" have them", grant))
	}
	return left, s.ordinaryTaken()
}

// Complete is Diagnosis.Complete for the ways in.
func (r Refusal) Complete(complete func(command string) string) Refusal {
	r.Ways = completed(r.Ways, complete)
	return r
}

func (s Snapshot) stepsForOwnLimit(of, name string) []Step {
	raise := fmt.Sprintf("ALTER %s %s CONNECTION LIMIT -1", strings.ToUpper(of), quoted(cmp.Or(name, "name")))
	return []Step{
		s.asSuperuser("see who has them, as a superuser, who has no such limit", whoHasSlots),
		s.asSuperuser(fmt.Sprintf("raise the limit of %s %s, which takes effect at once", of, name), raise),
	}
}

// Advice returns the first way to connect, as a sentence.
func (r Refusal) Advice() string {
	return fmt.Sprintf("%s; to get in, %s", r.Means, r.Ways[0])
}
