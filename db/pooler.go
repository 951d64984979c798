package db

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// PoolerMode is the detected mode of a pooler between a connection and the server.
type PoolerMode int

// The modes. A pooler in session mode needs no setting: a client keeps its server connection.
const (
	NoPooler          PoolerMode = iota
	UnknownPooler                // there is one; whether clients share server connections is not known
	TransactionPooler            // clients share server connections: no session state persists
)

// PoolerOf reports whether a pooler answers on conn, and in which mode. It costs one round trip, and one more
// connection if there is a pooler. The sign of a pooler is a backend that is not the one of the login.
func PoolerOf(ctx context.Context, conn *pgx.Conn) (PoolerMode, error) {
	behind, err := backend(ctx, conn)
	if err != nil || behind == conn.PgConn().PID() {
		return NoPooler, err
	}
	second, err := Connect(ctx, conn.Config())
	if err != nil {
		return UnknownPooler, nil //nolint:nilerr // the mode alone stays open
	}
	defer Disconnect(second)
	if shared, err := backend(ctx, second); err == nil && shared == behind { // conn's own backend, which it has not kept
		return TransactionPooler, nil
	}
	return UnknownPooler, nil
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

// Advice returns which settings an operator should add, if the settings name no pooler; "" if there is none.
func (m PoolerMode) Advice() string {
	switch m {
	case TransactionPooler:
		return `a connection pooler answers at this address, and lets clients share its server connections, but the configuration ` +
			`names none: set pooler = "pgbouncer", or prepared statements and settings of a session will fail (42P05, 26000)`
	case UnknownPooler:
		return `a connection pooler answers at this address, but the configuration names none: set pooler = "pgbouncer", unless its pool_mode is session`
	}
	return ""
}
