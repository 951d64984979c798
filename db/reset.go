package db

import (
	"context"
	"strings"
	"time"

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

// clean rolls back an open transaction and resets a changed session. It reports false if that failed.
func (l *Lease) clean() bool {
	if l.conn.PgConn().TxStatus() != 'I' {
		l.reportOpen()
	} else if !l.dirty && l.source.settings.Reset != ResetAlways {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), resetTimeout)
	defer cancel()
	return reset(ctx, l.conn) == nil
}

// reportOpen logs a transaction that was begun by a statement of its own and not ended, once for each source line.
func (l *Lease) reportOpen() {
	if stack := l.stack(); l.source.leftOpen.first(stack[0]) {
		l.source.log.Warn("a transaction was left open when its lease was released, and is rolled back: use InTx",
			"line", stack[0], "stack", strings.Join(stack, " < "))
	}
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
	sql := "SELECT pg_catalog.pg_advisory_unlock_all(); " + discardAll
	ticket, has := conn.PgConn().CustomData()[ticketKey].(int)
	if has {
		sql = discardAll
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

// noteExec is noteQuery for Exec, which does not see the columns of a result: a SELECT is judged by its text.
func (l *Lease) noteExec(sql string, tag pgconn.CommandTag, err error) {
	l.noteQuery(several(sql) || tag.Select() && createsTable(sql), tag, 1, err)
}

// noteQuery records whether a query may have changed the session. mixed means that it may be several statements, of which
// the tag is the last one's.
func (l *Lease) noteQuery(mixed bool, tag pgconn.CommandTag, columns int, err error) {
	l.dirty = l.dirty || mixed || err == nil && !leavesSession(tag, columns)
}

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

// several reports whether sql may hold more than one statement: only the last one's tag is known then. With arguments it
// may too, because some of them are options of pgx.
func several(sql string) bool {
	return strings.IndexByte(strings.TrimRight(sql, "; \t\r\n"), ';') >= 0
}
