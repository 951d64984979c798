package activity

import (
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
)

// Door says by which right the snapshot's connection exists, which matters when no ordinary slot is left.
func (s Snapshot) Door() string {
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
		return "a reserved slot: " + s.Role.Name + " has pg_use_reserved_connections (reserved_connections)"
	}
	return kept
}

// Refusal is why a server that is full let nobody in.
type Refusal struct {
	Message string `json:"message"` // the server's
	Means   string `json:"means"`
	Doors   []Step `json:"doors"` // ways to get in now, and to have one the next time
}

// Failure is what programs are told when the server could not be looked at.
type Failure struct {
	Error   string   `json:"error"`
	Health  Health   `json:"health"`            // critical when no slot is left, else unknown
	Refusal *Refusal `json:"refusal,omitempty"` // when no slot is left
}

// Step is something to do, with the command for it where there is one.
type Step struct {
	Do      string `json:"do"`
	Command string `json:"command,omitempty"`
}

// NoDoor explains an error with db.SlotsExhausted: which limit it was, and which doors there are. The server's
// messages are translated; the name of the function that raised them is not.
func NoDoor(err error) Refusal {
	r := Refusal{Message: err.Error(), Means: "the server has no connection slot left for this role", Doors: doors}
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
	case "CheckMyDatabase":
		r.Means = "this database has reached a limit of its own; the server may have slots left"
		r.Doors = limitDoors("the database", "ALTER DATABASE name CONNECTION LIMIT -1")
	case "InitializeSessionUserId":
		r.Means = "this role has reached a limit of its own; the server may have slots left"
		r.Doors = limitDoors("the role", "ALTER ROLE name CONNECTION LIMIT -1")
	}
	return r
}

// asSuperuser looks through the server's own socket, as its superuser, to whom the last slots belong.
const asSuperuser = "sudo -u postgres ddtb db-connections doctor " +
	"--dsn 'host=/var/run/postgresql user=postgres dbname=postgres'"

var doors = []Step{
	{"on the database's machine, look as a superuser, for whom slots are reserved", asSuperuser},
	{"on the machine of a running ddtb server, as its user, run this command again: " +
		"it borrows the connection that the server keeps", ""},
	{
		"for the next time, from PostgreSQL 16 on, reserve slots for who looks (this needs a restart), and",
		"psql -c 'ALTER SYSTEM SET reserved_connections = 3'",
	},
	{"let the role have them", "psql -c 'GRANT pg_use_reserved_connections TO role_name'"},
}

func limitDoors(what, sql string) []Step {
	return []Step{
		{"look as a superuser, who has no such limit", asSuperuser},
		{"raise the limit of " + what + ", which takes effect at once", "psql -c '" + sql + "'"},
	}
}

// Advice is the first door, in a sentence.
func (r Refusal) Advice() string {
	return fmt.Sprintf("%s; to get in, %s: %s", r.Means, r.Doors[0].Do, r.Doors[0].Command)
}
