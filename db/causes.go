package db

import (
	"errors"
	"fmt"
	"net"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
)

// Cause is why there was no connection. It is derived from the SQLSTATE and the error's type, not from a message's
// text, which is translated on many servers. The exceptions are in refusals.go and poolererrors.go.
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
	Lasts    bool                    // until an administrator changes a setting
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
	{Cause: ServerTimeout, Sentence: func(e *ConnError) string {
		who := "The database"
		if ByPooler(e) {
			who = "The connection pooler in front of the database"
		}
		return who + " ended this session, because a time limit set there was exceeded. Any change was rolled back."
	}},
	{Cause: LoginRejected, Lasts: true, Advice: lasts, Sentence: rejectedSentence},
	{Cause: SettingRefused, Lasts: true, Advice: lasts, Sentence: func(e *ConnError) string {
		if ofUndeclaredPooler(e) {
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

func always(sentence string) func(*ConnError) string {
	return func(*ConnError) string { return sentence }
}

func unavailableSentence(e *ConnError) string {
	_, name := errors.AsType[*net.DNSError](e)
	_, noProcess := errors.AsType[*noProcessError](e)
	switch {
	case name:
		return "The name of the database server can't be resolved: it is misspelt in the configuration, or the name service has a fault."
	case noProcess:
		return "The database server can't start a process for another connection: it lacks memory, or has reached a limit on processes."
	case pgerrcode.IsInsufficientResources(e.SQLState()):
		return "The database server lacks memory, disk space or another resource for this session."
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
