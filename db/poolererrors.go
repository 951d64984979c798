package db

import (
	"errors"
	"strings"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
)

// ByPooler reports whether a pooler, not the server, wrote the error in err's chain: PostgreSQL sends the name of the C
// function, PgBouncer does not.
func ByPooler(err error) bool {
	pe, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pe.Routine == "" && pe.File == ""
}

// ofUndeclaredPooler reports whether err is typical of a pooler in transaction mode that the settings don't name: a
// prepared statement is missing or belongs to another client, or a setting of the login is refused.
func ofUndeclaredPooler(err error) bool {
	pe, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || pe.Code == pgerrcode.DuplicatePreparedStatement || pe.Code == pgerrcode.InvalidSQLStatementName {
		return ok
	}
	cause, _ := ofPooler(pe)
	return ByPooler(pe) && (cause == SettingRefused || pe.Code == pgerrcode.ProtocolViolation && strings.HasPrefix(pe.Message, "prepared statement"))
}

const setPooler = `if the host is a PgBouncer, set pooler = "pgbouncer" in the configuration`

const behindPooler = `A connection pooler stands between this application and its database, and the configuration does not say so. ` +
	`Its administrator has to set pooler = "pgbouncer".`

// poolerTexts are the beginnings of PgBouncer's own messages, from 1.12 to 1.24, with the advice for its administrator.
// It sends nearly all of them with the SQLSTATE 08P01, a protocol violation, so only the text gives the reason.
// PgBouncer never translates them.
var poolerTexts = []struct {
	text  string
	cause Cause
	hint  string
}{
	{"no more connections allowed", PoolerFull, "PgBouncer has max_client_conn clients already: raise it, or let the applications open fewer connections"},
	{"client connections exceeded", PoolerFull, "PgBouncer's max_user_client_connections or max_db_client_connections is reached"},
	{"query_wait_timeout", PoolerFull, "every server connection of PgBouncer's pool was busy for query_wait_timeout: SHOW POOLS on its console " +
		"shows who waits; shorten the transactions, or raise default_pool_size"},
	{"unsupported startup parameter", SettingRefused, setPooler},
	{"invalid server parameter", ServerUnavailable, "the server ended PgBouncer's connection while PgBouncer prepared it for this client; " +
		"if every query fails so, the server refuses a setting of the login, such as PGTZ: PgBouncer's log names it"},
	{"SSL required", TLSRefused, "PgBouncer's client_tls_sslmode asks for TLS: set sslmode"},
	{"bouncer config error", LoginRejected, noPoolerEntry},
	{"no such database", LoginRejected, noPoolerEntry},
	{"no such user", LoginRejected, noPoolerEntry},
	{"auth failed", LoginRejected, poolerPassword},
	{"not allowed", LoginRejected, "PgBouncer does not let this user in here: see admin_users, stats_users and its auth_hba_file"},
	{"login rejected", LoginRejected, poolerPassword},
	{"unix socket login rejected", LoginRejected, poolerPassword},
	{"password authentication failed", LoginRejected, poolerPassword},
	{"SASL authentication failed", LoginRejected, poolerPassword},
	{"SCRAM authentication failed", LoginRejected, poolerPassword},
	{"PAM authentication failed", LoginRejected, poolerPassword},
	{"certificate authentication failed", LoginRejected, "PgBouncer's auth_type is cert: set sslcert and sslkey"},
	{`"trust" authentication failed`, LoginRejected, poolerPassword},
	{"query timeout", ServerTimeout, "PgBouncer's query_timeout ended it"},
	{"idle transaction timeout", ServerTimeout, "PgBouncer's idle_transaction_timeout ended it"},
	{"transaction timeout", ServerTimeout, "PgBouncer's transaction_timeout ended it"},
	{"server login has been failing", ServerUnavailable, "PgBouncer can't log in to the server: its own log says why; it tries again only " +
		"every server_login_retry, 15 s by default: set it to 1"},
	{"pgbouncer cannot connect to server", ServerUnavailable, "PgBouncer can't reach the server: its own log says why"},
}

const (
	noPoolerEntry = "PgBouncer's [databases] lacks this database, or its auth_file or auth_query this user: add it, and reload PgBouncer"

	poolerPassword = "PgBouncer refuses this user's password: compare it with its auth_file (or auth_query), and reload PgBouncer"
)

// ofPooler returns the cause of an error that a pooler wrote, and the advice for its administrator if there is one. An
// unknown message means that the pooler can't reach the server, such as "server login has been failing, try again later".
func ofPooler(pe *pgconn.PgError) (cause Cause, hint string) {
	for _, p := range poolerTexts {
		if strings.HasPrefix(pe.Message, p.text) {
			return p.cause, p.hint
		}
	}
	switch {
	case pe.Code == pgerrcode.TooManyConnections:
		return PoolerFull, ""
	case pgerrcode.IsInvalidAuthorizationSpecification(pe.Code), pe.Code == pgerrcode.InvalidCatalogName,
		pe.Code == pgerrcode.InsufficientPrivilege:
		return LoginRejected, ""
	}
	return ServerUnavailable, ""
}
