package db

import (
	"context"
	"io"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
)

// changesSession tells whether the statement may leave something in the session for the next borrower: a
// setting, a temporary table, a prepared statement, an advisory lock, a LISTEN. Then the session is reset
// when the lease comes back, at a cost of two round trips; for all others that would be a third of the time
// of a request to /polls/. It looks at the first word and for the few functions that change a session from
// within a SELECT. What it can't see is a stored function that does the same: use Lease.Conn there.
func changesSession(sql string) bool {
	s := strings.TrimLeft(sql, " \t\r\n(")
	word := s
	if i := strings.IndexFunc(s, func(r rune) bool { return r < 'A' || r > 'z' }); i >= 0 {
		word = s[:i]
	}
	switch {
	case !keepsSession[strings.ToLower(word)]:
		return true
	case strings.IndexByte(strings.TrimRight(s, "; \t\r\n"), ';') >= 0:
		return true // perhaps several statements, perhaps a literal: the reset is right for both
	}
	return containsFold(s, "set_config") || containsFold(s, "advisory_") || containsFold(s, "into temp")
}

var keepsSession = map[string]bool{
	"select": true, "insert": true, "update": true, "delete": true, "merge": true, "with": true, "values": true,
	"table": true, "explain": true, "begin": true, "start": true, "commit": true, "rollback": true, "savepoint": true, "release": true,
}

// containsFold is strings.Contains without regard to the case of ASCII letters, and without an allocation.
func containsFold(s, lower string) bool {
	for i := 0; i+len(lower) <= len(s); i++ {
		if s[i]|0x20 == lower[0] && strings.EqualFold(s[i:i+len(lower)], lower) {
			return true
		}
	}
	return false
}

// hangUpTimeout bounds the wait for the server's side of a closed connection.
const hangUpTimeout = time.Second

// hangUp closes the connection and waits until the server's process is gone, that is, until its slot is free:
// the socket's end comes from the kernel after the backend gave up its place. pgx, as libpq, does not wait for
// that, and whoever connects the moment after has one backend more than they think.
func hangUp(conn *pgx.Conn) {
	pc := conn.PgConn()
	if pc.IsClosed() {
		select {
		case <-pc.CleanupDone():
		case <-time.After(hangUpTimeout):
			_ = pc.Conn().Close() // the driver itself would wait for 15 s
		}
		return
	}
	sayGoodbye(conn)
	_ = pc.Conn().Close()
	_ = conn.Close(context.Background()) // the socket is closed: this marks the driver's side
}

// cutOff ends a connection that somebody may be using: it touches its socket alone. The query under way is cancelled,
// else it would go on without its client; the end of our side, as EOF, ends the server's process, and the end of its
// side tells that this is gone. Both together take no longer than hangUpTimeout.
func cutOff(conn *pgx.Conn) {
	socket := conn.PgConn().Conn()
	ctx, cancel := context.WithTimeout(context.Background(), hangUpTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = socket.Close() })() // no deadline: the driver may take it away
	_ = conn.PgConn().CancelRequest(ctx)
	if half, ok := socket.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, socket)
	}
	_ = socket.Close()
}

// sayGoodbye is hangUp up to the end of the server's side; pgxpool's hook BeforeClose is the other caller.
func sayGoodbye(conn *pgx.Conn) {
	pc := conn.PgConn()
	if pc.IsClosed() {
		return
	}
	if pc.IsBusy() { // a result nobody read to its end: the server would go on with it
		ctx, cancel := context.WithTimeout(context.Background(), hangUpTimeout)
		_ = pc.CancelRequest(ctx)
		cancel()
	}
	_ = pc.Conn().SetDeadline(time.Now().Add(hangUpTimeout))
	bye, err := (&pgproto3.Terminate{}).Encode(nil)
	if err != nil {
		return
	}
	_, _ = pc.Conn().Write(bye) // fails after cutOff, whose wait for the backend must not be cut short
	_, _ = io.Copy(io.Discard, pc.Conn())
}
