package db

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// When a session is reset before another holder gets its connection.
const (
	// ResetAuto goes by the server's command tag. After SELECT, INSERT, UPDATE, DELETE and MERGE the session counts as
	// unchanged; after any other tag it is reset. It does not detect what a function changes silently: set_config,
	// pg_advisory_lock. Lease.Conn always costs a reset.
	ResetAuto = "auto"
	// ResetAlways resets after every holder: two round trips, or three with a ticket of a budget.
	ResetAlways = "always"
)

// resetTimeout bounds the round trips of a reset, so that a dead network blocks no request.
const resetTimeout = 2 * time.Second

// Reusable prepares the connection for another holder: it rolls back an open transaction and resets a changed session.
// It reports false for a connection that must be closed.
func (l *Lease) Reusable() bool {
	pc := l.conn.PgConn()
	if pc.IsClosed() || pc.IsBusy() || l.stale {
		return false
	}
	if pc.TxStatus() != 'I' {
		l.source.leases.leftOpen(l)
	} else if !l.dirty && l.source.settings.Reset != ResetAlways {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), resetTimeout)
	defer cancel()
	return reset(ctx, l.conn) == nil
}

// discardAll does what DISCARD ALL does, but keeps the advisory locks: one of them may be the session's ticket of the
// budget. Before 15.18 and 17, RESET ALL loses the settings of ALTER ROLE … SET role; RESET ROLE restores them.
const discardAll = "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; DISCARD PLANS; DISCARD TEMP; " +
	"DISCARD SEQUENCES; RESET ROLE"

func reset(ctx context.Context, conn *pgx.Conn) error {
	if conn.PgConn().TxStatus() != 'I' {
		if _, err := conn.Exec(ctx, "ROLLBACK"); err != nil {
			return err
		}
	}
	if err := conn.DeallocateAll(ctx); err != nil { // it clears the client's list of prepared statements too
		return err
	}
	ticket, has := conn.PgConn().CustomData()[ticketKey].(int)
	sql := discardAll
	if !has {
		sql = "SELECT pg_catalog.pg_advisory_unlock_all(); " + sql
	}
	if _, err := conn.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		return err
	}
	conn.PgConn().CustomData()[wasReset] = true
	if has {
		return onlyTicket(ctx, conn, ticket)
	}
	return nil
}

// errLocks is why a session can't be reset.
var errLocks = errors.New("the session has advisory locks beside its ticket, or no ticket")

// onlyTicket returns an error unless the session's ticket is its only advisory lock.
func onlyTicket(ctx context.Context, conn *pgx.Conn, n int) error {
	var mine, all int
	err := conn.QueryRow(ctx, `SELECT count(*) FILTER (WHERE classid::bigint = $1 AND objid::bigint = $2 AND objsubid = 2), count(*)
		FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()`, pgx.QueryExecModeExec, int64(TicketClass), int64(n)).Scan(&mine, &all)
	if err == nil && (mine != 1 || all != 1) {
		err = errLocks
	}
	return err
}

// Keys of a connection's custom data.
const (
	opened   = "db.opened"   // time.Time
	wasReset = "db.wasReset" // bool
)

// leavesSession reports whether the session is as it was before the statement, by its command tag. A SELECT without
// columns is SELECT INTO or CREATE TABLE AS, which may make a temporary table.
func leavesSession(tag pgconn.CommandTag, columns int) bool {
	word, _, _ := strings.Cut(tag.String(), " ")
	switch word {
	case "SELECT":
		return columns > 0
	case "INSERT", "UPDATE", "DELETE", "MERGE":
		return true
	}
	return false
}

// createsTable reports whether a statement whose tag is SELECT, and whose columns are unknown, may be CREATE TABLE AS,
// SELECT INTO or EXECUTE. A needless reset does no harm.
func createsTable(sql string) bool {
	sql = strings.ToUpper(sql)
	return strings.Contains(sql, "INTO") || strings.Contains(sql, "CREATE") || strings.Contains(sql, "EXECUTE")
}

// several reports whether sql may hold more than one statement: only the last one's tag is known then.
func several(sql string, args []any) bool {
	return len(args) == 0 && strings.IndexByte(strings.TrimRight(sql, "; \t\r\n"), ';') >= 0
}

// outdated reports whether the statement failed because of state from when the session was opened: the server has
// become a standby or read-only, or a table, a type or a prepared statement has changed. A new connection may succeed.
// The server rolled the statement back, so it had no effect. A connection that was opened for this lease can't be
// outdated, except by a table that changed after the statement was prepared on it: that is worth another run.
func (l *Lease) outdated(err error) bool {
	pe, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return false
	}
	data, futile := l.conn.PgConn().CustomData(), &l.source.futile
	switch pe.Code {
	case pgerrcode.ReadOnlySQLTransaction, pgerrcode.InvalidSQLStatementName, pgerrcode.DuplicatePreparedStatement,
		"57P05": // idle_session_timeout: the session ended before this statement began
	case pgerrcode.FeatureNotSupported:
		if pe.Routine != "RevalidateCachedQuery" { // "cached plan must not change result type", in any language
			return false
		}
	case pgerrcode.InternalError:
		if !strings.HasPrefix(pe.Message, "cache lookup failed for type ") { // an internal error is never translated
			return false
		}
	case pgerrcode.InsufficientPrivilege:
		futile = &l.source.denied
		if data[wasReset] == nil { // no reset took the privilege
			futile.Store(ticks() + int64(futileFor))
			return false
		}
	default:
		return false
	}
	l.opened, _ = data[opened].(time.Time)
	fresh := !l.opened.Before(l.since)
	if pe.Code == pgerrcode.FeatureNotSupported {
		return !fresh || !l.final
	}
	if fresh {
		futile.Store(ticks() + int64(futileFor))
		return false
	}
	return ticks() > futile.Load()
}

// futileFor is how long no session is replaced after a new one failed in the same way: a new session would not help.
const futileFor = 5 * time.Second
