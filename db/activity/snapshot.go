package activity

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"ddtb/db"
)

// Snapshot is the state of a server at one moment.
type Snapshot struct {
	At           time.Time `json:"at"` // by the server's clock, like all times here
	Server       Server    `json:"server"`
	Role         Role      `json:"role"`
	Database     string    `json:"database"`    // the connected one
	Application  string    `json:"application"` // the application_name of the monitored sessions
	Slots        Slots     `json:"slots"`
	Tickets      Tickets   `json:"tickets,omitzero"` // of the connection budget, where processes use one
	Limits       []Limit   `json:"limits"`           // of databases and roles, apart from the server's own
	Sessions     []Session `json:"sessions"`         // the oldest first
	Came         []Session `json:"-"`                // of PollTwice: sessions seen to begin in between, including those that have ended
	EverConnects int64     `json:"connects_ever"`    // since statistics were reset; 0 before PostgreSQL 14
	Through      string    `json:"through,omitzero"` // the socket of the ddtb server whose connection was used

	HiddenLogins int           `json:"hidden_logins,omitzero"` // unfinished logins among the sessions that pg_stat_activity does not show
	Prepared     []Prepared    `json:"prepared_transactions"`  // the oldest first, at most 100
	WALSlots     []WALSlot     `json:"replication_slots"`      // at most 100
	Replication  []Replication `json:"replication"`            // standbys that stream from this server, at most 100

	Pools       []Pool    `json:"pgbouncer_pools,omitempty"`
	PoolsError  string    `json:"pgbouncer_error,omitempty"`
	PoolClients *Limit    `json:"pgbouncer_clients,omitempty"`
	bouncer     *bouncer  // its limits, after AskPgBouncer
	Processes   []Process `json:"-"` // ddtb servers that reported their own leases; see Process
	refused     bool      // see Refused
	Console     string    `json:"-"` // the command that opens PgBouncer's console; "": psql with the configured address
}

// Prepared is a transaction of PREPARE TRANSACTION. It keeps its locks without a session until its transaction manager
// ends it.
type Prepared struct {
	GID      string `json:"gid"`
	Database string `json:"database"`
	Owner    string `json:"owner"`
	Age      Age    `json:"age_seconds"`
	Waiting  int    `json:"waiting_behind"` // sessions that wait for something it has locked
}

// WALSlot is a replication slot.
type WALSlot struct {
	Name     string `json:"name"`
	Active   bool   `json:"active"`
	Retained int64  `json:"retained_bytes"` // of WAL that the server keeps for it; 0 if it is lost
	Status   string `json:"wal_status"`     // reserved, extended, unreserved, lost; before PostgreSQL 13 judged by max_wal_size
}

// Replication is a standby or a subscriber.
type Replication struct {
	Name  string `json:"name"`  // its application_name
	State string `json:"state"` // streaming, catchup …; "" if the role may not see it
	Sync  string `json:"sync"`  // async, sync, quorum, potential
	Lag   Age    `json:"replay_lag_seconds"`
}

// Server describes the monitored server.
type Server struct {
	Address     string    `json:"address"` // as connected: host:port, or directory of the socket:port
	Version     string    `json:"version"` // "15.13"
	VersionNum  int       `json:"version_num"`
	Started     time.Time `json:"started"`
	Standby     bool      `json:"standby"`
	ForSuper    int       `json:"superuser_reserved_connections"`
	ForReserved int       `json:"reserved_connections"`        // 0 before PostgreSQL 16, which introduced them
	Keepalive   Age       `json:"tcp_keepalives_idle_seconds"` // silence after which it probes a client; 0: connected through a Unix socket
	Superuser   string    `json:"superuser"`                   // the name of the superuser that initdb made; if managed, of the one who may create roles
	ReadOnly    bool      `json:"read_only"`                   // default_transaction_read_only is on for this database and role
	ReadOnlyBy  string    `json:"read_only_by,omitzero"`       // "role in database", "role" or "database" has the setting; "": the server, or all roles
	SyncStandby string    `json:"synchronous_standby_names"`
	LoginTime   Age       `json:"authentication_timeout_seconds"`
	PassFile    string    `json:"passfile,omitzero"`           // see Observer.PassFile
	Managed     bool      `json:"managed,omitzero"`            // a provider runs it, and nobody else can log in as its superuser
	Pending     bool      `json:"restart_pending,omitzero"`    // max_connections was changed in a file: the next restart reads it, unless the command line sets it
	Primary     string    `json:"primary,omitzero"`            // of a standby: host:port, if the role may see it
	ReplayLag   Age       `json:"replay_lag_seconds,omitzero"` // of a standby: age of the last transaction that it replayed
}

// Tickets counts the tickets of the connection budget that pools with max_size = "auto" share in the connected
// database: see db.Auto.
type Tickets struct {
	Held      int `json:"held"`      // one for each connection of such a pool
	Processes int `json:"processes"` // that have or need a ticket
	Needed    int `json:"needed"`    // connections that they could use at this moment

	PIDs []int32 `json:"pids"` // the sessions that hold tickets
}

// IsZero reports whether no process uses the budget.
func (t Tickets) IsZero() bool { return t.Held+t.Processes == 0 }

const ticketsSQL = `
SELECT count(DISTINCT objid) FILTER (WHERE classid::bigint = $1), count(DISTINCT pid) FILTER (WHERE classid::bigint = $2),
       coalesce(sum(objid::bigint) FILTER (WHERE classid::bigint = $2), 0)::bigint,
       coalesce(array_agg(DISTINCT pid) FILTER (WHERE classid::bigint = $1), '{}')
FROM pg_locks
WHERE locktype = 'advisory' AND objsubid = 2 AND granted AND classid::bigint IN ($1, $2)
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`

// Role is the monitoring role and its privileges.
type Role struct {
	Name         string `json:"name"`
	Superuser    bool   `json:"superuser"`
	ReadsAll     bool   `json:"pg_read_all_stats"`           // sees what other roles' sessions do
	Signals      bool   `json:"pg_signal_backend"`           // may end other roles' sessions, but no superuser's
	UsesReserved bool   `json:"pg_use_reserved_connections"` // can connect when ordinary slots are used up
}

// Limit is the number of connections that a database or a role may have, apart from the server's own limit.
type Limit struct {
	Of   string `json:"of"` // "database", "role" or "pgbouncer"
	Name string `json:"name"`
	Max  int    `json:"max"`
	Used int    `json:"used"`
}

// The kinds of Session that matter here.
const (
	ClientBackend    = "client backend" // has a slot; no other kind does
	WALSender        = "walsender"      // of replication: counts against max_wal_senders
	AutovacuumWorker = "autovacuum worker"
	Startup          = "startup" // of a standby: it replays the primary's changes, with their locks
)

// The states of a Session.
const (
	Active              = "active"
	Idle                = "idle"
	IdleInTransaction   = "idle in transaction"
	IdleInTransactionEr = "idle in transaction (aborted)"
	starting            = "starting"
	disabled            = "disabled" // by track_activities
)

// Session is one backend. Fields that the role may not see are empty, and Hidden is set.
type Session struct {
	PID           int32     `json:"pid"`
	Kind          string    `json:"kind"`
	Hidden        bool      `json:"hidden,omitzero"`    // another role's; ours sees no state, address or query
	Self          bool      `json:"self,omitzero"`      // the monitoring session
	Superuser     bool      `json:"superuser,omitzero"` // belongs to a superuser
	Application   string    `json:"application"`
	User          string    `json:"user"`
	Database      string    `json:"database"`
	Address       string    `json:"address"`       // of the client; "local" through a Unix socket
	Port          int       `json:"port,omitzero"` // of the client
	MayEnd        bool      `json:"may_end"`       // the monitoring role may cancel and terminate it
	State         string    `json:"state"`
	Wait          string    `json:"wait,omitzero"` // type and event: "Lock/relation"
	Started       time.Time `json:"started,omitzero"`
	Age           Age       `json:"age_seconds"`
	InState       Age       `json:"state_seconds"`
	InTransaction Age       `json:"transaction_seconds,omitzero"`
	InQuery       Age       `json:"query_seconds,omitzero"` // of an active session
	Waits         bool      `json:"waits_for_lock,omitzero"`
	Waited        Age       `json:"lock_wait_seconds,omitzero"`
	BlockedBy     []int32   `json:"blocked_by,omitempty"` // 0 is a prepared transaction; only of the first 50 waiting sessions
	Query         string    `json:"query,omitzero"`       // the last query, at most its first 4,000 characters, without passwords
}

// Client reports whether the session has one of the server's slots.
func (s Session) Client() bool { return s.Kind == ClientBackend }

// LogsIn reports whether the session has a slot and has not finished its login. If pg_stat_activity does not show it, only
// its PID is known.
func (s Session) LogsIn() bool { return s.Client() && s.State == starting }

// Listens reports whether the session waits for notifications: it is idle, and its last statement was LISTEN.
func (s Session) Listens() bool { return s.State == Idle && startsWith(s.Query, "LISTEN") }

// Since returns when the session came into its state, by the server's clock, or up to a few milliseconds later.
func (s Session) Since() time.Time {
	const rounded = 10 * time.Millisecond // the two ages were read one after the other, and JSON has milliseconds
	return s.Started.Add((s.Age - s.InState).Duration() + rounded)
}

// ClientAddress returns its client's address and port, to find the program on its machine.
func (s Session) ClientAddress() string {
	if s.Port <= 0 {
		return s.Address
	}
	return net.JoinHostPort(s.Address, strconv.Itoa(s.Port))
}

// InTransactionIdle reports whether the session is idle in a transaction.
func (s Session) InTransactionIdle() bool {
	return s.State == IdleInTransaction || s.State == IdleInTransactionEr
}

// drivers are names that drivers give to every program: the role says which program it is.
var drivers = []string{"PostgreSQL JDBC Driver", "r2dbc-postgresql", "vertx-pg-client", "postgres.js"}

// Who returns the application's name, or another name if it has none of its own.
func (s Session) Who() string {
	switch {
	case slices.Contains(drivers, s.Application) && s.User != "":
		return s.Application + " as " + s.User
	case s.Application != "":
		return s.Application
	case s.User != "" && s.Client():
		return "user " + s.User
	case s.LogsIn():
		return "an unknown client"
	case s.Kind == Startup:
		return "the replay of the primary's changes"
	}
	return s.Kind
}

// Age is a duration; in JSON a number of seconds.
type Age time.Duration

// Duration returns the age as a time.Duration.
func (a Age) Duration() time.Duration { return time.Duration(a) }

// Scan reads a number of seconds from the server.
func (a *Age) Scan(v any) error {
	s, is := v.(float64)
	if *a = seconds(s); !is {
		return fmt.Errorf("%v is not a number of seconds", v)
	}
	return nil
}

// MarshalJSON writes seconds, to the millisecond.
func (a Age) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(time.Duration(a).Round(time.Millisecond))/float64(time.Second), 'f', -1, 64), nil
}

// UnmarshalJSON reads the output of MarshalJSON.
func (a *Age) UnmarshalJSON(b []byte) error {
	s, err := strconv.ParseFloat(string(b), 64)
	*a = seconds(s)
	return err
}

func seconds(s float64) Age { return Age(s * float64(time.Second)) }

// readOnlySQL is default_transaction_read_only as new sessions of the role r get it: a kept connection still has the old
// value. readOnlyBySQL is what sets it: see Server.ReadOnlyBy.
const (
	readOnlySQL = `coalesce((SELECT split_part(c, '=', 2)::bool` + readOnlyFrom + `),
                (SELECT CASE WHEN source IN ('database', 'user', 'database user') THEN 'off' ELSE setting END::bool
                 FROM pg_settings WHERE name = 'default_transaction_read_only'))`
	readOnlyBySQL = `coalesce((SELECT concat_ws(' in ', CASE WHEN d.setrole <> 0 THEN 'role' END, CASE WHEN d.setdatabase <> 0 THEN 'database' END)` +
		readOnlyFrom + `), '')`
	readOnlyFrom = ` FROM pg_db_role_setting d, unnest(d.setconfig) c
                 WHERE c LIKE 'default_transaction_read_only=%' AND d.setrole IN (0, r.oid)
                   AND d.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
                 ORDER BY d.setrole <> 0 AND d.setdatabase <> 0 DESC, d.setrole <> 0 DESC, d.setdatabase <> 0 DESC LIMIT 1`
)

// ReadOnly reports whether new sessions of conn's role take no changes: the server is a standby, or
// default_transaction_read_only is on for the server, the database or the role.
func ReadOnly(ctx context.Context, conn *pgx.Conn) (on bool, err error) {
	err = conn.QueryRow(ctx, "SELECT pg_is_in_recovery() OR "+readOnlySQL+" FROM pg_roles r WHERE r.rolname = current_user").Scan(&on)
	return on, err
}

// serverSQL reads settings with current_setting's missing_ok, and roles by name, since both depend on the version. Through
// to_jsonb, statistics that a version lacks are NULL.
const serverSQL = `
SELECT clock_timestamp(), current_setting('server_version'), current_setting('server_version_num')::int,
       pg_postmaster_start_time(), pg_is_in_recovery(), current_database()::text,
       current_setting('max_connections')::int, current_setting('superuser_reserved_connections')::int,
       coalesce(current_setting('reserved_connections', true)::int, 0),
       current_setting('tcp_keepalives_idle')::float8,
       coalesce(CASE WHEN made.managed THEN (SELECT rolname::text FROM pg_roles m
                                             WHERE m.rolcanlogin AND m.rolcreaterole AND NOT m.rolsuper AND m.rolname !~ '^(rds|cloudsql|alloydb|azure)'
                                             ORDER BY m.oid <> r.oid, m.rolname <> 'postgres', m.oid LIMIT 1) END, made.rolname, 'postgres'), coalesce(made.managed, false),
       (SELECT pending_restart FROM pg_settings WHERE name = 'max_connections'),
       ` + readOnlySQL + `, ` + readOnlyBySQL + `, current_setting('synchronous_standby_names'),
       (SELECT setting::float8 FROM pg_settings WHERE name = 'authentication_timeout'),
       r.rolname::text, r.rolsuper, has.reads, has.signals, has.reserved,
       (SELECT coalesce(sum((to_jsonb(d) ->> 'sessions')::bigint), 0)::bigint FROM pg_stat_database d)
FROM pg_roles r
     LEFT JOIN (SELECT rolname::text, rolname IN ('rdsadmin', 'cloudsqladmin', 'alloydbadmin', 'azuresu', 'azure_superuser', 'cloud_admin',
                                                  'supabase_admin') AS managed FROM pg_roles WHERE oid = 10) made ON true,
     (SELECT coalesce(bool_or(rolname = 'pg_read_all_stats'), false) AS reads,
             coalesce(bool_or(rolname = 'pg_signal_backend'), false) AS signals,
             coalesce(bool_or(rolname = 'pg_use_reserved_connections'), false) AS reserved
      FROM pg_roles WHERE rolname LIKE 'pg\_%' AND pg_has_role(current_user, oid, 'USAGE')) has
WHERE r.rolname = current_user`

// backendsSQL names the kind of each process, also where pg_stat_activity hides it from an ordinary role.
//
// A process that has not finished its login already has a slot and a transaction, so pg_locks lists it. Before PostgreSQL
// 18 it is not in pg_stat_activity, and from then on an ordinary role sees nothing of it there.
//
// From PostgreSQL 17 on, processes with a slot have the numbers below max_connections. So a worker of a parallel query is
// known by the number of its transaction. Before, such a worker of a hidden session counts as a session.
const backendsSQL = `
WITH locks AS MATERIALIZED (SELECT * FROM pg_locks WHERE NOT granted OR locktype = 'virtualxid'),
v AS (SELECT current_setting('server_version_num')::int AS version, current_setting('max_connections')::int AS slots),
transactions AS (
  SELECT pid, bool_and(version < 170000 OR split_part(virtualtransaction, '/', 1)::int < slots) AS has_slot
  FROM locks, v WHERE locktype = 'virtualxid' AND granted GROUP BY pid),
known AS (
  SELECT a.*, coalesce(a.pid, t.pid) AS process, coalesce(t.has_slot, true) AS has_slot,
         coalesce(t.has_slot AND (a.pid IS NULL
           OR version >= 180000 AND a.backend_type IS NULL AND a.datid IS NULL AND a.usesysid IS NULL), false) AS hidden_login
  FROM pg_stat_activity a FULL JOIN transactions t ON t.pid = a.pid CROSS JOIN v),
backends AS (
  SELECT k.*, coalesce(k.backend_type, CASE WHEN s.pid IS NOT NULL THEN 'walsender'
           WHEN hidden_login OR has_slot AND k.datid IS NOT NULL AND k.usesysid IS NOT NULL THEN 'client backend'
           ELSE 'background' END) AS kind
  FROM known k LEFT JOIN pg_stat_replication s ON s.pid = k.pid)`

// sessionsSQL leaves out processes that belong to no client and block none: writers, launchers, workers without a database. Ages are
// computed on the server, so that its clock need not agree with ours. pg_blocking_pids locks the lock tables, so it is
// only called for the sessions that have waited longest.
const sessionsSQL = backendsSQL + `,
waiting AS (
  SELECT pid, min(since) AS since, row_number() OVER (ORDER BY min(since), pid) AS place
  FROM (SELECT pid, (to_jsonb(l) ->> 'waitstart')::timestamptz AS since FROM locks l WHERE NOT granted) w
  GROUP BY pid)
SELECT a.process, a.kind, a.backend_type IS NULL AND NOT hidden_login, a.process = pg_backend_pid(),
       coalesce(r.rolsuper, false), may.end_it,
       coalesce(a.application_name, ''), coalesce(a.usename::text, ''), coalesce(a.datname::text, ''),
       CASE WHEN a.backend_type IS NULL THEN '' ELSE coalesce(host(a.client_addr), CASE WHEN a.state <> 'starting' THEN 'local' END, '') END,
       coalesce(a.client_port, 0),
       coalesce(a.state, CASE WHEN hidden_login THEN 'starting' END, ''), coalesce(a.wait_event_type || '/' || a.wait_event, ''),
       coalesce(a.backend_start, '0001-01-01 00:00+00'), -- Go's zero time
       coalesce(extract(epoch FROM clock_timestamp() - a.backend_start), 0)::float8,
       coalesce(extract(epoch FROM clock_timestamp() - a.state_change), 0)::float8,
       coalesce(extract(epoch FROM clock_timestamp() - a.xact_start), 0)::float8,
       CASE WHEN a.state = 'active' THEN coalesce(extract(epoch FROM clock_timestamp() - a.query_start), 0)
         ELSE 0 END::float8,
       w.pid IS NOT NULL,
       CASE WHEN w.pid IS NULL THEN 0
         ELSE coalesce(extract(epoch FROM clock_timestamp() - coalesce(w.since, a.query_start)), 0) END::float8,
       CASE WHEN w.place <= 50 THEN pg_blocking_pids(a.pid) END,
       CASE WHEN a.backend_type IS NULL THEN '' ELSE coalesce(left(a.query, 4000), '') END
FROM backends a
  LEFT JOIN pg_roles r ON r.oid = a.usesysid
  LEFT JOIN waiting w ON w.pid = a.pid
  CROSS JOIN LATERAL (SELECT coalesce(pg_has_role(current_user, a.usesysid, 'USAGE'), false)
    OR NOT coalesce(r.rolsuper, false) AND pg_has_role(current_user, 'pg_signal_backend', 'USAGE')
    OR (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS end_it) may
WHERE a.kind IN ('client backend', 'startup') OR a.datid IS NOT NULL OR a.usesysid IS NOT NULL
ORDER BY a.backend_start NULLS LAST, a.process`

const limitsSQL = `
SELECT 'database', datname::text, datconnlimit, 0 FROM pg_database WHERE datconnlimit >= 0
UNION ALL
SELECT 'role', rolname::text, rolconnlimit, 0 FROM pg_roles WHERE rolconnlimit >= 0 AND NOT rolsuper
ORDER BY 1, 2`

// replicationSQL finds objects that have no session and still hold locks or WAL, or keep commits waiting.
const replicationSQL = `
WITH locks AS MATERIALIZED (SELECT * FROM pg_locks WHERE pid IS NULL OR NOT granted) -- of prepared transactions, and awaited
SELECT coalesce((SELECT json_agg(p) FROM (
         SELECT gid, database, owner, extract(epoch FROM clock_timestamp() - prepared) AS age_seconds,
                (SELECT count(DISTINCT w.pid)
                 FROM locks own
                   JOIN locks h ON h.pid IS NULL AND h.virtualtransaction = own.virtualtransaction
                   JOIN locks w ON NOT w.granted
                     AND ROW(w.locktype, w.database, w.relation, w.page, w.tuple, w.transactionid, w.classid, w.objid, w.objsubid)
                       IS NOT DISTINCT FROM ROW(h.locktype, h.database, h.relation, h.page, h.tuple, h.transactionid, h.classid, h.objid, h.objsubid)
                 WHERE own.pid IS NULL AND own.locktype = 'transactionid' AND own.transactionid = x.transaction) AS waiting_behind
         FROM pg_prepared_xacts x ORDER BY prepared LIMIT 100) p), '[]'),
       coalesce((SELECT json_agg(s) FROM (
         SELECT slot_name AS name, active,
                coalesce(status, CASE WHEN bytes > pg_size_bytes(current_setting('max_wal_size')) THEN 'extended' ELSE 'reserved' END) AS wal_status,
                coalesce(CASE WHEN status IS DISTINCT FROM 'lost' THEN bytes END, 0)::bigint AS retained_bytes
         FROM pg_replication_slots r, LATERAL (SELECT to_jsonb(r) ->> 'wal_status' AS status,
                pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END, restart_lsn) AS bytes) w
         ORDER BY slot_name LIMIT 100) s), '[]'),
       coalesce((SELECT json_agg(x) FROM (
         SELECT coalesce(application_name, '') AS name, coalesce(state, '') AS state, coalesce(sync_state, '') AS sync,
                coalesce(extract(epoch FROM CASE WHEN replay_lsn IS NOT NULL THEN replay_lag END), 0) AS replay_lag_seconds
         FROM pg_stat_replication ORDER BY pid LIMIT 100) x), '[]')`

// standbySQL finds a standby's primary, and how far it is behind. Amazon Aurora's readers replay nothing, and refuse it
// (dalibo/pg_activity#301).
const standbySQL = `
SELECT coalesce((SELECT sender_host || ':' || sender_port FROM pg_stat_wal_receiver), ''),
       CASE WHEN pg_last_wal_receive_lsn() IS DISTINCT FROM pg_last_wal_replay_lsn()
         THEN coalesce(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()), 0) ELSE 0 END::float8`

// pollTimeout bounds one poll. If a server needs longer, more queries would only add to its load.
const pollTimeout = 10 * time.Second

// Snapshot polls the server over the kept connection.
func (o *Observer) Snapshot(ctx context.Context) (Snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	var s Snapshot
	err := o.Read(ctx, func(c *pgx.Conn) (err error) {
		s, err = read(ctx, c)
		s.Application, s.Server.Address, s.Server.PassFile = o.application, db.ServerOf(c), o.PassFile
		return err
	})
	if err != nil {
		return Snapshot{}, fmt.Errorf("read the sessions: %w", err)
	}
	return s, nil
}

func address(cc *pgx.ConnConfig) string {
	return net.JoinHostPort(cc.Host, strconv.Itoa(int(cc.Port)))
}

func read(ctx context.Context, c *pgx.Conn) (s Snapshot, err error) {
	err = c.QueryRow(ctx, serverSQL).Scan(&s.At, &s.Server.Version, &s.Server.VersionNum,
		&s.Server.Started, &s.Server.Standby, &s.Database, &s.Slots.Max, &s.Server.ForSuper, &s.Server.ForReserved, &s.Server.Keepalive,
		&s.Server.Superuser, &s.Server.Managed, &s.Server.Pending, &s.Server.ReadOnly, &s.Server.ReadOnlyBy, &s.Server.SyncStandby, &s.Server.LoginTime,
		&s.Role.Name, &s.Role.Superuser, &s.Role.ReadsAll, &s.Role.Signals, &s.Role.UsesReserved, &s.EverConnects)
	if err != nil {
		return s, err
	}
	s.Server.Version, _, _ = strings.Cut(s.Server.Version, " ") // the rest comes from the packager
	rows, _ := c.Query(ctx, sessionsSQL)                        // the error comes with the rows
	if s.Sessions, err = pgx.CollectRows(rows, scanSession); err != nil {
		return s, err
	}
	rows, _ = c.Query(ctx, limitsSQL)
	if s.Limits, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Limit]); err != nil {
		return s, err
	}
	err = c.QueryRow(ctx, replicationSQL).Scan(&s.Prepared, &s.WALSlots, &s.Replication)
	if err != nil {
		return s, err
	}
	s.count()
	err = c.QueryRow(ctx, ticketsSQL, int64(db.TicketClass), int64(db.DemandClass)).Scan(&s.Tickets.Held, &s.Tickets.Processes, &s.Tickets.Needed, &s.Tickets.PIDs)
	if err != nil || !s.Server.Standby {
		return s, err
	}
	err = c.QueryRow(ctx, standbySQL).Scan(&s.Server.Primary, &s.Server.ReplayLag) // last: an error may end the transaction
	if pe, is := errors.AsType[*pgconn.PgError](err); is && pe.Code == pgerrcode.FeatureNotSupported {
		err = nil
	}
	return s, err
}

func scanSession(row pgx.CollectableRow) (s Session, err error) {
	err = row.Scan(&s.PID, &s.Kind, &s.Hidden, &s.Self, &s.Superuser, &s.MayEnd, &s.Application, &s.User, &s.Database, &s.Address,
		&s.Port, &s.State, &s.Wait, &s.Started, &s.Age, &s.InState, &s.InTransaction, &s.InQuery, &s.Waits, &s.Waited, &s.BlockedBy, &s.Query)
	s.Query = withoutPasswords(s.Query)
	return s, err
}

// count fills in the fields that follow from the sessions.
func (s *Snapshot) count() {
	s.Slots.Reserved = s.Server.ForSuper + s.Server.ForReserved
	byName := map[Limit]int{}
	for _, x := range s.Sessions {
		if x.Client() {
			s.Slots.Used++
			if x.LogsIn() && x.Started.IsZero() {
				s.HiddenLogins++
			}
			byName[Limit{Of: "database", Name: x.Database}]++
			byName[Limit{Of: "role", Name: x.User}]++
		}
	}
	for i, l := range s.Limits {
		s.Limits[i].Used = byName[Limit{Of: l.Of, Name: l.Name}]
	}
}

// password matches the passwords in ALTER ROLE, CREATE USER MAPPING and connection strings, and userPassword those in
// URLs. If the end of the literal was cut off, they match everything that follows.
var (
	password = regexp.MustCompile(`(?is)(password\w*["\s:=]*)(''[^']+''|(?:U&)?'(?:[^']|'')*(?:'|$)|E'(?:[^'\\]|''|\\.?)*(?:'|$)|\$(\w*)\$.*|[^\s'"&;,)]+)`)

	userPassword = regexp.MustCompile(`(://[^\s:@/'"]*:)(?:[^\s']|'')*(@|$)`)
)

func withoutPasswords(query string) string {
	if strings.Contains(strings.ToLower(query), "password") {
		query = password.ReplaceAllString(query, "$1***")
	}
	return userPassword.ReplaceAllString(query, "$1***$2")
}

// errNoAnswer is the error of a query that took longer than pollTimeout. A pooler lets clients in before it has a
// connection for them.
var errNoAnswer = fmt.Errorf("the login worked, and no query was answered within %s", Short(pollTimeout))

// Slots counts the server's slots.
func (o *Observer) Slots(ctx context.Context) (Slots, error) {
	var s Slots
	err := o.Read(ctx, func(c *pgx.Conn) error {
		query, cancel := context.WithTimeout(ctx, pollTimeout)
		defer cancel()
		err := c.QueryRow(query, slotsSQL).Scan(&s.Max, &s.Reserved, &s.Used)
		if err != nil && query.Err() != nil && ctx.Err() == nil {
			return errNoAnswer
		}
		return err
	})
	if err != nil {
		return Slots{}, fmt.Errorf("count the slots: %w", err)
	}
	return s, nil
}

const slotsSQL = backendsSQL + `
SELECT current_setting('max_connections')::int,
       current_setting('superuser_reserved_connections')::int
         + coalesce(current_setting('reserved_connections', true)::int, 0),
       (SELECT count(*) FROM backends WHERE kind = 'client backend')`
