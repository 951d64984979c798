package db

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
)

// Cause is why there was no connection. It is derived from the SQLSTATE and the error's type, not from a message's
// text, which is translated on many servers. The exceptions are below.
type Cause string

// The causes.
const (
	PoolTimeout         Cause = "pool timeout"         // this process's leases were all in use for too long
	QueueFull           Cause = "queue full"           // too many requests wait for a lease already, or the queue is too slow
	SlotsExhausted      Cause = "slots exhausted"      // the server has no slot left: 53300; see ConnError.Limit
	PoolerFull          Cause = "pooler full"          // PgBouncer accepts no more clients, or had no server connection in time
	ServerUnavailable   Cause = "server unavailable"   // refused, shut down, starting, or lost on the way
	NoSuitableServer    Cause = "no suitable server"   // servers answer, but none matches target_session_attrs
	ServerTimeout       Cause = "server timeout"       // a timeout that is set on the server ended the session
	LoginRejected       Cause = "login rejected"       // the server refuses this role, or this role for this database
	SettingRefused      Cause = "setting refused"      // the server, or a pooler, refuses a setting that the login sends
	TLSRefused          Cause = "TLS refused"          // the two sides can't agree on encryption
	CertificateRejected Cause = "certificate rejected" // one side does not trust the other's certificate
	CircuitOpen         Cause = "circuit open"         // not tried: the last attempts failed
)

// CauseSpec is a cause with what people read about it. Pages, metrics and reports range over Causes.
type CauseSpec struct {
	Cause
	Lasts    bool                    // until somebody changes a setting
	AtOnce   bool                    // thousands of requests a second may fail of it
	Sentence func(*ConnError) string // for a visitor: it names no server, database or role
	Advice   string                  // for a visitor: whether waiting helps; "": it does
}

// Causes lists all causes. A new one is a constant, an entry here, and where it comes from: an SQLSTATE or an error.
var Causes = []CauseSpec{
	{Cause: PoolTimeout, Advice: fewer, Sentence: func(e *ConnError) string {
		return fmt.Sprintf("All database connections of this application (%d) were busy for %.2f seconds.", e.Size, e.Waited.Seconds())
	}},
	{Cause: QueueFull, AtOnce: true, Advice: fewer, Sentence: func(e *ConnError) string {
		return fmt.Sprintf("All database connections of this application (%d) are busy, and so many requests wait for one that this one would have waited too long.", e.Size)
	}},
	{
		Cause: SlotsExhausted, AtOnce: true, Sentence: func(e *ConnError) string { return limitSentences[e.Limit()] },
		Advice: "Connections that stay open keep their slots, so waiting may not help: an administrator has to close some.",
	},
	{Cause: PoolerFull, Sentence: always("The connection pooler in front of the database is full: it had no connection for this in time.")},
	{Cause: ServerUnavailable, Advice: recovers, Sentence: unavailableSentence},
	{Cause: NoSuitableServer, Advice: recovers, Sentence: always("A database server answers, but none that this request can use: a failover may be under way.")},
	{Cause: ServerTimeout, Sentence: either(
		"The database ended this session, because a time limit set there was exceeded. Any change was rolled back.",
		"The connection pooler in front of the database ended this session, because a time limit set there was exceeded. Any change was rolled back.",
	)},
	{Cause: LoginRejected, Lasts: true, Advice: lasts, Sentence: rejectedSentence},
	{Cause: SettingRefused, Lasts: true, Advice: lasts, Sentence: func(e *ConnError) string {
		if OfUndeclaredPooler(e) {
			return behindPooler
		}
		return "The database refuses a setting that this application sends when it connects: an administrator has to check its configuration."
	}},
	{Cause: TLSRefused, Lasts: true, Advice: lasts, Sentence: always("The database and this application can't agree on encryption: an administrator has to check their configuration.")},
	{Cause: CertificateRejected, Lasts: true, Advice: lasts, Sentence: always("A certificate between this application and the database is not trusted: replace it, or configure its authority.")},
	{Cause: CircuitOpen, AtOnce: true, Advice: recovers, Sentence: always("The last attempts to reach the database failed, so this one was not made.")},
}

// Advice for visitors.
const (
	fewer    = "This passes when fewer requests come at once. Please try again in a moment."
	recovers = "This passes when the server answers again; the application notices by itself. Please try again in a moment."
	lasts    = "This does not pass by itself: an administrator has to change a setting."
)

// limitSentences name the limit that was reached, for visitors.
var limitSentences = map[string]string{
	ServerLimit:   "The database server has no connection slot left: all are taken.",
	RoleLimit:     "The database allows this application's role no more connections: the role's limit is reached.",
	DatabaseLimit: "The database accepts no more connections: the limit of this database is reached.",
}

const behindPooler = `A connection pooler stands between this application and its database, and the configuration does not say so. ` +
	`Its administrator has to set pooler = "pgbouncer".`

func always(sentence string) func(*ConnError) string {
	return func(*ConnError) string { return sentence }
}

// either returns the sentence for an error of the server or of a pooler.
func either(server, pooler string) func(*ConnError) string {
	return func(e *ConnError) string {
		if ByPooler(e) {
			return pooler
		}
		return server
	}
}

func unavailableSentence(e *ConnError) string {
	_, name := errors.AsType[*net.DNSError](e)
	_, noProcess := errors.AsType[*noProcessError](e)
	switch {
	case name:
		return "The name of the database server can't be resolved: it is misspelt in the configuration, or the name service has a fault."
	case noProcess:
		return "The database server can't start a process for another connection: it lacks memory, or has reached a limit on processes."
	case errors.Is(e, errNotPostgres):
		return "What answers at the address of the database is not PostgreSQL: an administrator has to check the host and the port."
	case ByPooler(e):
		return "The connection pooler answers, but can't reach the database server behind it."
	}
	return "The database server does not answer, or is restarting."
}

func rejectedSentence(e *ConnError) string {
	switch code := e.SQLState(); {
	case ByPooler(e):
		return "The connection pooler in front of the database does not let this application in: an administrator has to check the pooler's databases and users."
	case code == pgerrcode.InvalidCatalogName:
		return "The database that this application is configured for does not exist: an administrator has to create it, or to correct its name."
	case code == pgerrcode.ObjectNotInPrerequisiteState: // ALLOW_CONNECTIONS false
		return "The database accepts no connections at the moment: an administrator has closed it, and has to open it."
	}
	return "The database does not let this application in: an administrator has to check its login."
}

// Spec returns the description of the cause. An unknown one is described as ServerUnavailable.
func (c Cause) Spec() CauseSpec {
	for _, s := range Causes {
		if s.Cause == c {
			return s
		}
	}
	return ServerUnavailable.Spec()
}

// Passes reports whether the same request may succeed later without a change of settings.
func (c Cause) Passes() bool { return !c.Spec().Lasts }

// QueryFailure is an error of the server that is neither a bug nor the lack of a connection, as people read it.
type QueryFailure struct {
	SQLStates []string
	Cause     string // in metrics and reports; "": it is not counted by a cause
	Status    int    // of HTTP
	Title     string // "": that of the status
	Sentence  string // for a visitor
	Passes    bool   // the same request may succeed later without a change
}

// refusedByDatabase is the cause of a refusal by what administrators put into the database: triggers, texts, limits.
const refusedByDatabase = "refused by the database"

// QueryFailures lists them. Each that has a cause has an alert.
var QueryFailures = []QueryFailure{
	{
		SQLStates: []string{pgerrcode.QueryCanceled}, Cause: "statement timeout", Status: 503, Passes: true, Title: "The database took too long",
		Sentence: "The database cancelled this request: it took longer than allowed, or an administrator cancelled it. Any change was rolled back.",
	}, {
		SQLStates: []string{pgerrcode.LockNotAvailable}, Cause: "lock timeout", Status: 503, Passes: true, Title: "The database took too long",
		Sentence: "Another transaction has locked what this request needs, for longer than it may wait. Any change was rolled back.",
	}, {
		SQLStates: []string{pgerrcode.ReadOnlySQLTransaction}, Cause: "read-only database", Status: 503, Passes: true, Title: "The database is read-only",
		Sentence: "The database accepts no changes at the moment, so nothing was stored. Read-only pages still work.",
	}, {
		SQLStates: []string{pgerrcode.DiskFull}, Cause: "disk full", Status: 503, Title: "The database's disk is full",
		Sentence: "The database's disk is full, so nothing can be stored until an administrator frees space. Read-only pages still work.",
	}, {
		SQLStates: []string{pgerrcode.OutOfMemory}, Cause: "out of memory", Status: 503, Passes: true, Title: "The database is short of memory",
		Sentence: "The database server has too little memory for this at the moment. Any change was rolled back.",
	}, {
		SQLStates: []string{pgerrcode.InsufficientPrivilege}, Cause: "permission denied", Status: 503, Title: "The database does not allow this",
		Sentence: "This application's role may not do this in the database, so nothing was changed. An administrator has to grant it.",
	}, {
		SQLStates: []string{pgerrcode.UndefinedTable, pgerrcode.UndefinedColumn, pgerrcode.InvalidSchemaName, pgerrcode.WrongObjectType},
		Cause:     "missing table", Status: 503,
		Title: "The database is incomplete", Sentence: "A table or a column that this needs is missing from the database, so nothing was changed. " +
			"Its administrator has to run `ddtb migrate`, which makes it, or says which one is missing and what to do.",
	}, {
		// Our statements fit the tables that the migrations make. FeatureNotSupported is of a rule: see QueryFailureOf.
		SQLStates: []string{pgerrcode.DatatypeMismatch, pgerrcode.UndefinedFunction, pgerrcode.FeatureNotSupported}, Cause: "missing table", Status: 503,
		Title: "The database was changed", Sentence: "A table that this needs is not as `ddtb migrate` made it: a column has another type, or a rule replaces what is written. " +
			"Nothing was changed. An administrator finds the column or the table in the log.",
	}, {
		SQLStates: []string{pgerrcode.DuplicatePreparedStatement, pgerrcode.InvalidSQLStatementName}, Status: 503,
		Title: "A connection pooler is in the way", Sentence: behindPooler,
	}, {
		// It has already been retried where that is possible.
		SQLStates: []string{pgerrcode.DeadlockDetected, pgerrcode.SerializationFailure}, Status: 409, Passes: true,
		Sentence: "Other users changed the same data at the same moment, so this change was rolled back: nothing of it is stored.",
	}, {
		SQLStates: []string{pgerrcode.NumericValueOutOfRange}, Status: 409,
		Sentence: "A number would become larger than the database can store, so nothing was changed.",
	}, {
		SQLStates: []string{pgerrcode.StringDataRightTruncationDataException}, Status: 400,
		Sentence: "A text is longer than the database can store. Shorten it and send it again.",
	}, {
		SQLStates: []string{pgerrcode.UntranslatableCharacter}, Status: 400,
		Sentence: "A text has a character that the database can't store. Remove it and send it again.",
	}, {
		// A text that was sent is valid UTF-8 here, but for NUL: see QueryFailureOf.
		SQLStates: []string{pgerrcode.CharacterNotInRepertoire}, Cause: refusedByDatabase, Status: 503, Title: "A stored text can't be read",
		Sentence: "A text in the database is not in the database's encoding, so it can't be shown. An administrator has to correct it there.",
	}, {
		SQLStates: []string{pgerrcode.RaiseException}, Cause: refusedByDatabase, Status: 503, Title: "The database refused this",
		Sentence: "A trigger or a function in the database refused this, so nothing was changed. An administrator finds its reason in the log.",
	}, {
		SQLStates: []string{pgerrcode.ConfigurationLimitExceeded}, Cause: refusedByDatabase, Status: 503, Title: "A limit of the database was reached",
		Sentence: "This needs more than the database's configuration allows, so nothing was changed. An administrator finds the limit in the log.",
	}, {
		SQLStates: []string{pgerrcode.DatetimeFieldOverflow}, Status: 400,
		Sentence: "A date or time is outside of what the database can store. Change it and send it again.",
	},
}

// QueryFailureOf returns the failure that err, the error of a query, is; ok is false for any other error.
func QueryFailureOf(err error) (f QueryFailure, ok bool) {
	pe, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return QueryFailure{}, false
	}
	code := pe.Code
	switch {
	case code == pgerrcode.CharacterNotInRepertoire && strings.HasSuffix(pe.Message, ": 0x00"):
		code = pgerrcode.UntranslatableCharacter // NUL, which a client sent: the database stores none
	case code == pgerrcode.FeatureNotSupported && pe.Routine != appliesRules:
		return QueryFailure{}, false
	}
	i := slices.IndexFunc(QueryFailures, func(f QueryFailure) bool { return slices.Contains(f.SQLStates, code) })
	if i < 0 {
		return QueryFailure{}, false
	}
	return QueryFailures[i], true
}

// The limits that PostgreSQL reports with one SQLSTATE, 53300: see ConnError.Limit.
const (
	RoleLimit     = "role"     // CONNECTION LIMIT of the role
	DatabaseLimit = "database" // CONNECTION LIMIT of the database
	ServerLimit   = "server"   // max_connections, less the reserved ones
)

// Functions of PostgreSQL that report errors. Their names are the same in every language, and in versions 12 to 18.
const (
	checksRole     = "InitializeSessionUserId"
	checksDatabase = "CheckMyDatabase"
	appliesRules   = "RewriteQuery"
)

// SQLSTATEs of server timeouts that pgerrcode lacks.
const transactionTimeout = "25P04"

// Limit returns which limit an error with the cause SlotsExhausted hit: RoleLimit, DatabaseLimit or ServerLimit. For
// any other cause it is "".
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

// causeOfConnect returns why connecting failed. An error that neither the server nor the driver explains is a network
// error.
func causeOfConnect(err error) Cause {
	if own := CauseOf(err); own != "" {
		return own
	}
	if pe, ok := refusalOf(err); ok {
		return causeOfRefusal(pe)
	}
	err = withoutOptionalTLS(err)
	_, secret := errors.AsType[*secretError](err)
	switch {
	case secret, errors.Is(err, errNoPassword):
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

// attempts returns the errors of a connect: one for each address, and for each with and without TLS.
func attempts(err error) []error {
	ce, ok := errors.AsType[*pgconn.ConnectError](err)
	if !ok {
		return []error{err}
	}
	if joined, ok := ce.Unwrap().(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{ce.Unwrap()}
}

// refusalOf returns the server's answer that says why connecting failed. With sslmode prefer and allow, pg_hba.conf may
// exclude one of the two attempts, with or without TLS: then the other one's answer counts.
func refusalOf(err error) (first *pgconn.PgError, ok bool) {
	for _, attempt := range attempts(err) {
		pe, ok := errors.AsType[*pgconn.PgError](attempt)
		if ok && pe.Code != pgerrcode.InvalidAuthorizationSpecification {
			return pe, true
		}
		if ok && first == nil {
			first = pe
		}
	}
	return first, first != nil
}

// withoutOptionalTLS drops refused TLS from the errors of a connect that went on without TLS: what ended that attempt,
// such as a server that restarts, is the reason.
func withoutOptionalTLS(err error) error {
	ce, ok := errors.AsType[*pgconn.ConnectError](err)
	if !ok || !plainAllowed(ce.Config) {
		return err
	}
	rest := slices.DeleteFunc(slices.Clone(attempts(err)), func(e error) bool { return isTLS(e) || isCertificate(e) })
	if len(rest) == 0 {
		return err
	}
	return errors.Join(rest...)
}

// plainAllowed reports whether a host may be reached without TLS over the network.
func plainAllowed(c *pgconn.Config) bool {
	plain := func(host string, t *tls.Config) bool { return t == nil && !strings.HasPrefix(host, "/") }
	return plain(c.Host, c.TLSConfig) || slices.ContainsFunc(c.Fallbacks, func(f *pgconn.FallbackConfig) bool { return plain(f.Host, f.TLSConfig) })
}

// causeOfRefusal returns why the server refused a login. The server answered, so only an error about its shutdown or
// start is ServerUnavailable.
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

// causeOfLoss returns why a working connection was lost.
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

// causeOfEnd distinguishes a timeout of the server from its shutdown.
func causeOfEnd(code string) Cause {
	switch code {
	case transactionTimeout, pgerrcode.IdleInTransactionSessionTimeout, pgerrcode.QueryCanceled:
		return ServerTimeout
	}
	return ServerUnavailable
}

// saidByPooler reports whether a pooler wrote the error: PostgreSQL sends the name of the C function, PgBouncer does
// not.
func saidByPooler(pe *pgconn.PgError) bool { return pe.Routine == "" && pe.File == "" }

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
	{"invalid server parameter", SettingRefused, setPooler},
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
	{"server login has been failing", ServerUnavailable, "PgBouncer can't log in to the server: its own log says why"},
	{"pgbouncer cannot connect to server", ServerUnavailable, "PgBouncer can't reach the server: its own log says why"},
}

const (
	noPoolerEntry = "PgBouncer's [databases] lacks this database, or its auth_file or auth_query this user: add it, and reload PgBouncer"

	poolerPassword = "PgBouncer refuses this user's password: compare it with its auth_file (or auth_query), and reload PgBouncer"
)

// ofPooler returns the entry of poolerTexts for an error that a pooler wrote; ok is false for any other error.
func ofPooler(pe *pgconn.PgError) (cause Cause, hint string, ok bool) {
	if !saidByPooler(pe) {
		return "", "", false
	}
	for _, p := range poolerTexts {
		if strings.HasPrefix(pe.Message, p.text) {
			return p.cause, p.hint, true
		}
	}
	return "", "", false
}

// poolerCause returns the cause of an error that a pooler wrote. The remaining errors mean that the pooler can't reach
// the server, such as "server login has been failing, try again later (server_login_retry)".
func poolerCause(pe *pgconn.PgError) Cause {
	if cause, _, ok := ofPooler(pe); ok {
		return cause
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

// isCertificate reports whether TLS failed because of a certificate: the server's, or, by the alert that the server
// sent, ours. The alert's type is not exported; its text is Go's own, and is never translated.
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

const grantIt = "the table belongs to another role: `ddtb migrate` says which statement grants it"

const makeIt = "a table was dropped, renamed or changed: `ddtb migrate` makes it, or says what is missing and what to do"

const hasNoSuchCharacter = "the database's encoding lacks this character: make the database anew with TEMPLATE template0 ENCODING 'UTF8'"

const useUTF8 = "a stored text is not in the database's encoding, which SQL_ASCII does not check: correct the text, " +
	"and make the database anew with TEMPLATE template0 ENCODING 'UTF8'"

// setAgain is advice for a refused password. The server does not say which of the two it is.
const setAgain = "the password is wrong, or it was stored with md5 and pg_hba.conf asks for scram-sha-256: `\\password ROLE` in psql sets it anew"

// usePassword is advice for pg_hba.conf's peer method at the Unix socket, which authenticates the account of the
// process. Translations keep the word "Peer".
const usePassword = `at its socket the server lets in only processes that run as the account of the role's name: set host = "127.0.0.1" to log in ` +
	`by password, or put "local all all scram-sha-256" before pg_hba.conf's first "local" line, and reload the server`

// OfUndeclaredPooler reports whether err is typical of a pooler in transaction mode that the settings don't name: a
// prepared statement is missing or belongs to another client, or a setting of the login is refused.
func OfUndeclaredPooler(err error) bool {
	pe, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pe.Code == pgerrcode.DuplicatePreparedStatement || pe.Code == pgerrcode.InvalidSQLStatementName ||
		saidByPooler(pe) && (poolerCause(pe) == SettingRefused || pe.Code == pgerrcode.ProtocolViolation && strings.HasPrefix(pe.Message, "prepared statement")))
}

// ByPooler reports whether a pooler, not the server, wrote the error in err's chain.
func ByPooler(err error) bool {
	pe, ok := errors.AsType[*pgconn.PgError](err)
	return ok && saidByPooler(pe)
}

// Hint returns advice for an operator, if err is typical of an undeclared PgBouncer, is one of PgBouncer's own
// refusals, or concerns tables that are missing or that another role owns, or peer authentication; else "".
func Hint(err error) string {
	pe, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return ""
	}
	if OfUndeclaredPooler(err) {
		return setPooler
	}
	if _, hint, ok := ofPooler(pe); ok {
		return hint
	}
	switch {
	case pe.Code == pgerrcode.UndefinedTable, pe.Code == pgerrcode.UndefinedColumn, pe.Code == pgerrcode.WrongObjectType:
		return makeIt
	case pe.Code == pgerrcode.CharacterNotInRepertoire:
		return useUTF8
	case pe.Code == pgerrcode.UntranslatableCharacter:
		return hasNoSuchCharacter
	case pe.Code == pgerrcode.InvalidPassword:
		return setAgain
	case pe.Code == pgerrcode.InsufficientPrivilege && strings.HasPrefix(pe.Routine, "aclcheck_error"):
		return grantIt
	case pe.Code == pgerrcode.InvalidAuthorizationSpecification && pe.Routine == "auth_failed" && strings.Contains(pe.Message, "Peer"):
		return usePassword
	}
	return ""
}
