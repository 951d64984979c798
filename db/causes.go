package db

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
)

// The limits that PostgreSQL reports with one SQLSTATE, 53300: see ConnError.Limit.
const (
	RoleLimit     = "role"     // CONNECTION LIMIT of the role
	DatabaseLimit = "database" // CONNECTION LIMIT of the database
	ServerLimit   = "server"   // max_connections, less the reserved ones
)

// Functions of PostgreSQL that report errors. Their names are the same in every language, and from 12 to 18.
const (
	checksRole     = "InitializeSessionUserId"
	checksDatabase = "CheckMyDatabase"
)

// SQLSTATEs of servers' timeouts that pgerrcode does not have.
const transactionTimeout = "25P04"

// Limit returns which limit an error with the cause SlotsExhausted met: RoleLimit, DatabaseLimit or ServerLimit. For any
// other cause it is "".
func (e *ConnError) Limit() string {
	if e.Cause != SlotsExhausted {
		return ""
	}
	if pe, ok := errors.AsType[*pgconn.PgError](e.Err); ok {
		switch pe.Routine {
		case checksRole:
			return RoleLimit
		case checksDatabase:
			return DatabaseLimit
		}
	}
	return ServerLimit
}

// causeOfConnect returns why connecting failed. What neither the server nor the driver explains is a network error.
func causeOfConnect(err error) Cause {
	if own := CauseOf(err); own != "" {
		return own
	}
	if pe, ok := errors.AsType[*pgconn.PgError](err); ok {
		return causeOfRefusal(pe)
	}
	_, secret := errors.AsType[*secretError](err)
	switch {
	case secret:
		return LoginRejected
	case isCertificate(err):
		return CertificateRejected
	case isTLS(err):
		return TLSRefused
	case errors.Is(err, pgconn.ErrReadOnlyConnection), errors.Is(err, pgconn.ErrReadWriteConnection),
		errors.Is(err, pgconn.ErrPrimaryConnection), errors.Is(err, pgconn.ErrStandbyConnection):
		return NoSuitableServer
	}
	return ServerUnavailable
}

// causeOfRefusal returns why the server refused a login. It answered, so that only what says that it is going down or
// coming up is ServerUnavailable.
func causeOfRefusal(pe *pgconn.PgError) Cause {
	switch code := pe.Code; {
	case saidByPooler(pe):
		return poolerCause(pe)
	case code == pgerrcode.TooManyConnections:
		return SlotsExhausted
	case code == pgerrcode.InsufficientPrivilege && pe.Routine != checksDatabase: // to set a parameter
		return SettingRefused
	case pgerrcode.IsInvalidAuthorizationSpecification(code), code == pgerrcode.InvalidCatalogName,
		code == pgerrcode.InsufficientPrivilege, code == pgerrcode.ObjectNotInPrerequisiteState: // datallowconn
		return LoginRejected
	case pgerrcode.IsDataException(code), pgerrcode.IsSyntaxErrororAccessRuleViolation(code),
		code == pgerrcode.CantChangeRuntimeParam:
		return SettingRefused
	}
	return causeOfEnd(pe.Code)
}

// causeOfLoss returns why a connection that worked was lost.
func causeOfLoss(err error) Cause {
	pe, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case !ok:
		return ServerUnavailable
	case saidByPooler(pe):
		return poolerCause(pe)
	}
	return causeOfEnd(pe.Code)
}

// causeOfEnd tells a timeout of the server from its end.
func causeOfEnd(code string) Cause {
	switch code {
	case transactionTimeout, pgerrcode.IdleInTransactionSessionTimeout, pgerrcode.QueryCanceled:
		return ServerTimeout
	}
	return ServerUnavailable
}

// saidByPooler reports whether a pooler wrote the error: PostgreSQL names the function, PgBouncer does not.
func saidByPooler(pe *pgconn.PgError) bool { return pe.Routine == "" && pe.File == "" }

// poolerTexts are the beginnings of PgBouncer's own messages, from 1.12 to 1.24. It sends nearly all of them with the
// SQLSTATE 08P01, a protocol violation, so only the text says what is wrong; and it never translates them.
var poolerTexts = []struct {
	text  string
	cause Cause
}{
	{"no more connections allowed", PoolerFull}, // max_client_conn
	{"client connections exceeded", PoolerFull}, // max_user_client_connections, max_db_client_connections
	{"query_wait_timeout", PoolerFull},
	{"unsupported startup parameter", SettingRefused},
	{"invalid server parameter", SettingRefused},
	{"SSL required", TLSRefused},
	{"bouncer config error", LoginRejected}, // no such database, or auth_file and auth_query lack the user
	{"no such database", LoginRejected},
	{"no such user", LoginRejected},
	{"auth failed", LoginRejected},
	{"not allowed", LoginRejected},
	{"login rejected", LoginRejected},
	{"unix socket login rejected", LoginRejected},
	{"password authentication failed", LoginRejected},
	{"SASL authentication failed", LoginRejected},
	{"SCRAM authentication failed", LoginRejected},
	{"PAM authentication failed", LoginRejected},
	{"certificate authentication failed", LoginRejected},
	{`"trust" authentication failed`, LoginRejected},
	{"query timeout", ServerTimeout},
	{"idle transaction timeout", ServerTimeout},
	{"transaction timeout", ServerTimeout},
}

// poolerCause returns the cause of an error that a pooler wrote. What is left says that the pooler can't reach the
// server, such as "server login has been failing, try again later (server_login_retry)".
func poolerCause(pe *pgconn.PgError) Cause {
	for _, p := range poolerTexts {
		if strings.HasPrefix(pe.Message, p.text) {
			return p.cause
		}
	}
	switch {
	case pe.Code == pgerrcode.TooManyConnections:
		return PoolerFull
	case pgerrcode.IsInvalidAuthorizationSpecification(pe.Code), pe.Code == pgerrcode.InvalidCatalogName,
		pe.Code == pgerrcode.InsufficientPrivilege:
		return LoginRejected
	}
	return ServerUnavailable
}

// isCertificate reports whether a certificate is why TLS failed: the server's, or, by the alert that it sent, ours. The
// alert's type is not exported; its text is Go's own, and is never translated.
func isCertificate(err error) bool {
	_, verification := errors.AsType[*tls.CertificateVerificationError](err)
	_, authority := errors.AsType[x509.UnknownAuthorityError](err)
	_, host := errors.AsType[x509.HostnameError](err)
	_, invalid := errors.AsType[x509.CertificateInvalidError](err)
	alert, ok := remoteAlert(err)
	return verification || authority || host || invalid || ok && strings.Contains(alert, "certificate")
}

// isTLS reports whether the two sides can't agree on TLS. The driver has no type for a server without TLS; its text is
// never translated.
func isTLS(err error) bool {
	_, header := errors.AsType[tls.RecordHeaderError](err)
	_, alert := remoteAlert(err)
	return header || alert || strings.Contains(err.Error(), "server refused TLS connection") ||
		strings.Contains(err.Error(), "channel binding") // required, and not offered
}

// remoteAlert returns the TLS alert that the server sent.
func remoteAlert(err error) (text string, ok bool) {
	e, ok := errors.AsType[*net.OpError](err)
	if !ok || e.Op != "remote error" && e.Op != "local error" {
		return "", false
	}
	return e.Err.Error(), true
}

const setPooler = `if the host is a PgBouncer, set pooler = "pgbouncer" in the configuration`

// Hint returns what an operator should change, where err is typical of a PgBouncer that the settings don't mention; else
// "".
func Hint(err error) string {
	pe, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case !ok:
		return ""
	case pe.Code == pgerrcode.DuplicatePreparedStatement, pe.Code == pgerrcode.InvalidSQLStatementName,
		saidByPooler(pe) && poolerCause(pe) == SettingRefused:
		return setPooler
	}
	return ""
}
