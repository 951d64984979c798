package db

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgproto3"
)

// PgBouncer is the value of Settings.Pooler for a pooler in transaction mode.
const PgBouncer = "pgbouncer"

// cancelTimeout is how long a cancelled query may take to end on the server before its connection is abandoned.
const cancelTimeout = time.Second

// ConnConfig returns the driver's configuration for cfg, for connections that name themselves application. It has
// libpq's semantics: without a host it uses the machine's own socket, without a password it reads PGPASSFILE or
// ~/.pgpass, sslmode "prefer" falls back, several hosts are tried in turn. Settings in cfg override the environment,
// although the driver reads it too: package config has already applied it, with the right precedence. If cfg leaves
// sslrootcert, sslcert, sslkey, channel_binding or options empty, libpq's variable or default file applies; with
// sslmode "disable" no root certificate is read. PGTZ also applies, except behind a pooler.
//
// Each connection reads PasswordFile again, and prepares the password as the server's authentication method requires.
//
// A query whose context ends is cancelled on the server, rather than left running on a closed connection.
func ConnConfig(cfg Settings, application string) (*pgx.ConnConfig, error) {
	secret, err := password(cfg)
	if err != nil {
		return nil, err
	}
	if strings.ContainsRune(secret.Reveal()+application, 0) { // the driver checks what it parses below
		return nil, fmt.Errorf("connecting to database %q: its password or application name contains a NUL character, which PostgreSQL can't take", cfg.Name)
	}
	var noTLS [][2]string
	if cfg.SSLMode == "disable" { // else a root certificate, also the environment's, may turn TLS on
		cfg.SSLRootCert, noTLS = "", [][2]string{{"sslrootcert", ""}}
	}
	if err := CheckFiles(cfg.SSLRootCert, cfg.SSLCert, cfg.SSLKey); err != nil {
		return nil, fmt.Errorf("connecting to database %q: %w", cfg.Name, err)
	}
	host, port := cfg.Hosts.keywords(cfg.Host, cfg.Port)
	cc, err := pgx.ParseConfig(keywords([][2]string{
		{"host", host},
		{"port", port},
		{"dbname", cfg.Name},
		{"user", cfg.User},
		{"password", ""}, // set below: an error of the parser may quote the string
		{"sslmode", cmp.Or(cfg.SSLMode, "prefer")},
		{"connect_timeout", "0"}, // set below: here it allows whole seconds only
		{"target_session_attrs", cmp.Or(cfg.TargetSessionAttrs, "any")},
	}) + keywords(noTLS) + optional([][2]string{
		{"sslrootcert", cfg.SSLRootCert},
		{"sslcert", cfg.SSLCert},
		{"sslkey", cfg.SSLKey},
		{"channel_binding", cfg.ChannelBinding},
		{"options", cfg.Options},
	}))
	if err != nil {
		return nil, fmt.Errorf("connecting to database %q: %w", cfg.Name, err)
	}
	sockets := checkSocket(cc.Host, cc.Port)
	for _, f := range cc.Fallbacks {
		sockets = errors.Join(sockets, checkSocket(f.Host, f.Port))
	}
	if sockets != nil {
		return nil, sockets
	}
	cc.Password = cmp.Or(secret.Reveal(), cc.Password)
	cc.ConnectTimeout = cfg.ConnectTimeout
	k := cfg.Keepalive
	cc.DialFunc = (&net.Dialer{
		Timeout:         cfg.ConnectTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: k.Idle, Interval: k.Interval, Count: k.Count},
		Control:         unanswered(k.Idle + time.Duration(k.Count)*k.Interval), // as long as keepalive takes
	}).DialContext
	setRuntimeParams(cc, cfg)
	Complete(cc, application)
	completed := cc.AfterNetConnect
	cc.AfterNetConnect = func(ctx context.Context, attempt *pgconn.Config, conn net.Conn) (net.Conn, error) {
		secret, err := password(cfg) // as its file holds it at this moment
		if err != nil {
			return conn, err
		}
		attempt.Password = cmp.Or(secret.Reveal(), attempt.Password)
		return completed(ctx, attempt, conn)
	}
	if cfg.Pooler == PgBouncer { // the next query may run on another server connection, without our prepared statements
		cc.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	}
	return cc, nil
}

// checkSocket refuses a directory whose socket the system can't address. It would only say "invalid argument".
func checkSocket(host string, port uint16) error {
	_, path := pgconn.NetworkAddress(host, port)
	if most := len(syscall.RawSockaddrUnix{}.Path) - 1; strings.HasPrefix(host, "/") && len(path) > most {
		return fmt.Errorf("host: the socket's path has %d bytes, and the system takes %d at most: use a shorter directory, or a symbolic link to it (%s)", len(path), most, path)
	}
	return nil
}

// Complete adds to cc, as the driver parsed it, what ConnConfig does for every server: the session has the name
// application and an encoding and date style that the driver reads, the password is prepared as the authentication
// method requires, an answer that is not PostgreSQL's is an error at once, and a query whose context ends is cancelled.
func Complete(cc *pgx.ConnConfig, application string) {
	cc.RuntimeParams["application_name"] = application
	cc.RuntimeParams["client_encoding"] = "UTF8" // the encoding of Go's strings; the default is the database's own
	cc.RuntimeParams["datestyle"] = "ISO"        // the driver reads no other; PgBouncer follows both
	cc.AfterNetConnect = func(_ context.Context, attempt *pgconn.Config, conn net.Conn) (net.Conn, error) {
		attempt.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
			return pgproto3.NewFrontend(&loginReader{Reader: r, attempt: attempt}, w)
		}
		return conn, nil
	}
	cc.BuildContextWatcherHandler = func(pc *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: pc, DeadlineDelay: cancelTimeout}
	}
}

// setRuntimeParams sets a session's initial settings. A pooler refuses a login with any setting but the name; behind
// one, statement_timeout belongs in ALTER ROLE.
func setRuntimeParams(cc *pgx.ConnConfig, cfg Settings) {
	for name := range cc.RuntimeParams { // a service file may name others, which package config refuses
		if name != "options" && name != "timezone" || cfg.Pooler == PgBouncer {
			delete(cc.RuntimeParams, name)
		}
	}
	if cfg.Pooler != PgBouncer && cfg.StatementTimeout > 0 {
		cc.RuntimeParams["statement_timeout"] = strconv.FormatInt(max(1, cfg.StatementTimeout.Milliseconds()), 10)
	}
}

// password returns the password in force: the content of PasswordFile, if that is set.
func password(cfg Settings) (Secret, error) {
	if cfg.PasswordFile == "" {
		return Secret(TrimLineBreak(cfg.Password.Reveal())), nil
	}
	secret, _, err := ReadSecret(cfg.PasswordFile)
	if err != nil {
		return "", &secretError{fmt.Errorf("the password of database %q: %w", cfg.Name, err)}
	}
	return secret, nil
}

// secretError means that the password's file can't be read.
type secretError struct{ error }

func (e *secretError) Unwrap() error { return e.error }

var quoteValue = strings.NewReplacer(`\`, `\\`, `'`, `\'`)

// keywords writes keys and values as libpq reads them. An empty value is written too: it overrides the environment.
func keywords(pairs [][2]string) string {
	var b strings.Builder
	for _, p := range pairs {
		fmt.Fprintf(&b, "%s='%s' ", p[0], quoteValue.Replace(p[1]))
	}
	return b.String()
}

// optional is keywords without the empty values.
func optional(pairs [][2]string) string {
	return keywords(slices.DeleteFunc(pairs, func(p [2]string) bool { return p[1] == "" }))
}
