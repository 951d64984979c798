package activity

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"ddtb/db"
)

const (
	loginTime   = Age(time.Second) // a login that takes longer is not finishing
	mostLogins  = 5                // as many may be under way at once on a busy server
	seesLogins  = 180000           // from this version on pg_stat_activity shows logins under way
	lowestIDEnd = 170000           // below this version a new session gets the lowest free backend id
)

// loginsSQL compares the number of the session that asks with the sessions that can be seen. A new session gets
// the lowest number that is free, so numbers below it belong to sessions that can be seen, or to logins.
const loginsSQL = `
SELECT split_part(l.virtualtransaction, '/', 1)::int - (
    SELECT count(*) FROM pg_stat_activity
    WHERE backend_type IS NULL OR backend_type NOT IN
      ('checkpointer', 'background writer', 'walwriter', 'archiver', 'startup', 'walreceiver'))::int
FROM pg_locks l WHERE l.pid = pg_backend_pid() AND l.locktype = 'virtualxid'`

// CountLogins fills in s.HiddenLogins: the slots of clients that began a login and don't finish it. Before
// PostgreSQL 18, and to an ordinary role, pg_stat_activity does not show them. It tries one more login, which is
// closed at once: when the server refuses it although s has free slots, hidden logins have these slots. Up to
// PostgreSQL 16 it also sees how many they are while the server is not full.
func CountLogins(ctx context.Context, cc *pgx.ConnConfig, s *Snapshot) {
	if s.Server.VersionNum >= seesLogins && s.Role.ReadsAll || s.Slots.Free() == 0 {
		return
	}
	cc = cc.Copy()
	cc.DefaultQueryExecMode = execMode
	conn, err := db.Connect(ctx, cc)
	if err != nil {
		s.Refused(err)
		return
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	n := 0
	if s.Server.VersionNum < lowestIDEnd && conn.QueryRow(ctx, loginsSQL).Scan(&n) == nil && n >= mostLogins {
		s.hideLogins(n)
	}
}

// Refused notes that the server refused a login at about the time of the snapshot. When that was for want of a
// slot, the slots that s shows as free are taken by logins that s does not show.
func (s *Snapshot) Refused(err error) {
	pe, answered := errors.AsType[*pgconn.PgError](err)
	if answered && pe.Code == pgerrcode.TooManyConnections && !ownLimit(pe) {
		s.hideLogins(s.Slots.Free())
	}
}

func (s *Snapshot) hideLogins(n int) {
	s.HiddenLogins = n
	s.count()
}

// ownLimit reports whether a database or a role refused, and not the server. Messages are translated; the name of the
// function that raised them is not.
func ownLimit(pe *pgconn.PgError) bool {
	return pe.Routine == "CheckMyDatabase" || pe.Routine == "InitializeSessionUserId"
}

// logins are the sessions that have not finished their login in a second, as far as they can be seen.
func (s Snapshot) logins() []Session {
	return s.clients(func(x Session) bool { return x.LogsIn() && x.Age > loginTime })
}
