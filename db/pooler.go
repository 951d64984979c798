package db

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// UndeclaredPooler returns which setting an operator should add if a pooler answers on conn, although the settings name
// none; "" if there is no pooler. shares reports whether it lets clients share server connections, as in transaction
// mode, so that no session state persists. Otherwise that is not known: a pooler in session mode needs no setting. It
// costs one round trip, and one more connection if there is a pooler. The sign of a pooler is a backend that is not the
// one of the login.
func UndeclaredPooler(ctx context.Context, conn *pgx.Conn) (advice string, shares bool, err error) {
	behind, err := backend(ctx, conn)
	if err != nil || behind == conn.PgConn().PID() {
		return "", false, err
	}
	if second, err := Connect(ctx, conn.Config()); err == nil {
		defer Disconnect(second)
		if shared, err := backend(ctx, second); err == nil && shared == behind { // conn's own backend, which it has not kept
			return `a connection pooler answers at this address, and lets clients share its server connections, but the configuration ` +
				`names none: set pooler = "pgbouncer", or prepared statements and settings of a session will fail (42P05, 26000)`, true, nil
		}
	}
	return `a connection pooler answers at this address, but the configuration names none: set pooler = "pgbouncer", unless its pool_mode is session`, false, nil
}

// throughPooler reports whether a pooler answers on conn.
func throughPooler(ctx context.Context, conn *pgx.Conn) (bool, error) {
	pid, err := backend(ctx, conn)
	return err == nil && pid != conn.PgConn().PID(), err
}

// backend returns the process that serves conn's statements.
func backend(ctx context.Context, conn *pgx.Conn) (pid uint32, err error) {
	err = conn.QueryRow(ctx, "SELECT pg_backend_pid()", pgx.QueryExecModeSimpleProtocol).Scan(&pid)
	return pid, err
}
