package activity

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"ddtb/db"
)

// Access says by which right the snapshot's connection has its slot, which matters when no ordinary slot is left.
func (s Snapshot) Access() string {
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

// NoAccess explains an error with db.SlotsExhausted: which limit it hit, and which ways into cc's server there are. It is
// nil if the limit is not known. The server's messages are translated; the name of the C function is not.
func NoAccess(err error, cc *pgx.ConnConfig) Refusal {
	at := refusedAt(cc)
	if ce, ok := errors.AsType[*db.ConnError](err); ok && ce.Server != "" {
		at.Server.Address = ce.Server
	}
	r := Refusal{Message: err.Error(), Means: "the server has no connection slot left for this role", Ways: at.doors()}
	pe, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return r
	}
	r.Message = pe.Severity + ": " + pe.Message
	switch pe.Routine {
	case "InitProcess":
		r.Means = "every slot is taken, the reserved ones too"
	case "InitPostgres":
		r.Means = "every ordinary slot is taken; what is left is reserved for other roles than this one"
		if strings.Contains(pe.Message, reservedRole) { // they are reserved already; the role's name is never translated
			r.Ways = append(at.doors()[:2], at.useReserved("let the role use the slots that are reserved already"))
		}
	case "CheckMyDatabase":
		r.Means = "this database has reached a limit of its own; the server may have slots left"
		r.Ways = at.limitDoors("database", at.Database)
	case "InitializeSessionUserId":
		r.Means = "this role has reached a limit of its own; the server may have slots left"
		r.Ways = at.limitDoors("role", at.Role.Name)
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

// asSuperuser polls through the server's own socket, as its superuser, for whom the last slots are reserved.
func (s Snapshot) asSuperuser(do string) Step {
	host, port := s.host()
	if !strings.HasPrefix(host, "/") {
		host = "/var/run/postgresql"
	}
	if port != "" {
		port = " port=" + port
	}
	dsn := fmt.Sprintf("host=%s%s user=%s dbname=postgres", host, port, superuser)
	return Step{Do: "on the database's machine, " + do, Command: "sudo -u postgres ddtb db-connections doctor --dsn " + ShellQuote(dsn)}
}

func (s Snapshot) doors() []Step {
	return []Step{
		s.asSuperuser("look as a superuser, for whom slots are reserved"),
		{Do: "on the machine of a running ddtb server, as its user, run this command again: it uses the connection that the server keeps"},
		{
			Do:      "for the next time, from PostgreSQL 16 on, reserve slots for operators (this needs a restart), and",
			Command: s.psql(superuser, "ALTER SYSTEM SET reserved_connections = 3"),
		},
		s.useReserved("let the role have them"),
	}
}

const reservedRole = "pg_use_reserved_connections"

func (s Snapshot) useReserved(do string) Step {
	return Step{Do: do, Command: s.psql(superuser, "GRANT "+reservedRole+" TO "+quoted(cmp.Or(s.Role.Name, "role_name")))}
}

func (s Snapshot) limitDoors(of, name string) []Step {
	return []Step{
		s.asSuperuser("look as a superuser, who has no such limit"),
		{
			Do:      fmt.Sprintf("raise the limit of %s %s, which takes effect at once", of, name),
			Command: s.psql(superuser, fmt.Sprintf("ALTER %s %s CONNECTION LIMIT -1", strings.ToUpper(of), quoted(cmp.Or(name, "name")))),
		},
	}
}

// Advice returns the first way to connect, as a sentence.
func (r Refusal) Advice() string {
	return fmt.Sprintf("%s; to get in, %s", r.Means, r.Ways[0])
}
