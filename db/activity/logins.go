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
	loginTime   = Age(time.Second) // a login that takes longer counts as unfinished
	mostLogins  = 5                // so many may run at once on a busy server
	seesLogins  = 180000           // from this version on pg_stat_activity shows running logins
	lowestIDEnd = 170000           // below this version a new session gets the lowest free backend id
)

// loginsSQL compares the monitoring session's number with the visible sessions. A new session gets the lowest free
// number, so lower numbers belong to visible sessions or to logins.
const loginsSQL = `
SELECT split_part(l.virtualtransaction, '/', 1)::int - (
    SELECT count(*) FROM pg_stat_activity
    WHERE backend_type IS NULL OR backend_type NOT IN
      ('checkpointer', 'background writer', 'walwriter', 'archiver', 'startup', 'walreceiver'))::int
FROM pg_locks l WHERE l.pid = pg_backend_pid() AND l.locktype = 'virtualxid'`

// CountLogins fills in s.HiddenLogins: the slots of clients that began a login and don't finish it. Before PostgreSQL
// 18, and for an ordinary role, pg_stat_activity does not show them. CountLogins tries one more login, which it closes
// at once. If the server refuses it although s has free slots, hidden logins have these slots. Up to PostgreSQL 16 it
// also counts them while the server is not full.
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

// Refused records that the server refused a login at about the time of the snapshot. If no slot was left, then logins
// that s does not show have the slots that s shows as free.
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

// ownLimit reports whether the limit of a database or a role caused the refusal, not the server's. Messages are
// translated; the name of the C function is not.
func ownLimit(pe *pgconn.PgError) bool {
	return pe.Routine == "CheckMyDatabase" || pe.Routine == "InitializeSessionUserId"
}

// logins returns the visible sessions that have not finished their login within a second.
func (s Snapshot) logins() []Session {
	return s.clients(func(x Session) bool { return x.LogsIn() && x.Age > loginTime })
}
