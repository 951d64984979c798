package db

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
)

// PgBouncer is the value of Settings.Pooler for a pooler in transaction mode.
const PgBouncer = "pgbouncer"

// cancelTimeout is how long a cancelled query may take to end on the server before its connection is given up.
const cancelTimeout = time.Second

// ConnConfig is cfg as the driver wants it, for connections that name themselves application. It means what
// libpq means: no host is the machine's own socket, no password looks into PGPASSFILE or ~/.pgpass, sslmode
// "prefer" falls back. What cfg has a field for comes from cfg alone, though the driver reads the environment
// too: package config has done that, with the right precedence. For the rest the environment counts as with any
// client of PostgreSQL: PGSSLROOTCERT, PGSSLCERT, PGSSLKEY, and, but for a pooler, PGOPTIONS and PGTZ.
//
// A query whose context ends is cancelled on the server, rather than left running on a closed connection.
func ConnConfig(cfg Settings, application string) (*pgx.ConnConfig, error) {
	password, err := password(cfg)
	if err != nil {
		return nil, err
	}
	cc, err := pgx.ParseConfig(keywords([][2]string{
		{"host", cfg.Host},
		{"port", port(cfg.Port)},
		{"dbname", cfg.Name},
		{"user", cfg.User},
		{"password", ""}, // set below: an error of the parser may quote the string
		{"sslmode", cmp.Or(cfg.SSLMode, "prefer")},
		{"connect_timeout", "0"}, // set below: here it has whole seconds alone
		{"target_session_attrs", "any"},
	}))
	if err != nil {
		return nil, fmt.Errorf("connecting to database %q: %w", cfg.Name, err)
	}
	cc.Password = cmp.Or(password, cc.Password)
	cc.ConnectTimeout = cfg.ConnectTimeout
	k := cfg.Keepalive
	cc.DialFunc = (&net.Dialer{
		Timeout:         cfg.ConnectTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: k.Idle, Interval: k.Interval, Count: k.Count},
		Control:         unanswered(k.Idle + time.Duration(k.Count)*k.Interval), // as long as keepalive takes
	}).DialContext
	setRuntimeParams(cc, cfg, application)
	cc.BuildContextWatcherHandler = func(pc *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: pc, DeadlineDelay: cancelTimeout}
	}
	if cfg.Pooler == PgBouncer { // the next query may run on another server connection, without our statements
		cc.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	}
	return cc, nil
}

// setRuntimeParams adds what a session begins with. A pooler would refuse the login for anything but the name:
// with one, statement_timeout belongs into ALTER ROLE.
func setRuntimeParams(cc *pgx.ConnConfig, cfg Settings, application string) {
	if cfg.Pooler == PgBouncer {
		clear(cc.RuntimeParams)
	} else if cfg.StatementTimeout > 0 {
		cc.RuntimeParams["statement_timeout"] = strconv.FormatInt(max(1, cfg.StatementTimeout.Milliseconds()), 10)
	}
	cc.RuntimeParams["application_name"] = application
	cc.RuntimeParams["client_encoding"] = "UTF8" // what Go's strings are; the default is the database's own
}

func password(cfg Settings) (string, error) {
	if cfg.Password != "" || cfg.PasswordFile == "" {
		return cfg.Password.Reveal(), nil
	}
	text, err := os.ReadFile(cfg.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("the password of database %q: %w", cfg.Name, err)
	}
	return strings.TrimRight(string(text), "\r\n"), nil
}

func port(n int) string {
	if n == 0 {
		return "" // the default
	}
	return strconv.Itoa(n)
}

var quoteValue = strings.NewReplacer(`\`, `\\`, `'`, `\'`)

// keywords writes keys and values as libpq reads them. An empty value is written too: it keeps the
// environment's out.
func keywords(pairs [][2]string) string {
	var b strings.Builder
	for _, p := range pairs {
		fmt.Fprintf(&b, "%s='%s' ", p[0], quoteValue.Replace(p[1]))
	}
	return b.String()
}
