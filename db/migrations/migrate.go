// Package migrations is the schema, as goose SQL files that are named NNNNN_what.sql and applied in that order.
package migrations

import (
	"cmp"
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"ddtb/db"
)

//go:embed *.sql
var files embed.FS

// migrationTable records the applied steps. Its name is specific to this program, since other programs in the database
// may use goose too.
const migrationTable = "ddtb_migrations"

// Another process that migrates the database holds an advisory lock, which is per database. An old transaction may hold
// a table that a step changes. The timeout for both is the same.
const (
	migrationLock = 0x64647462 // "ddtb"
	migrationWait = time.Minute
)

// Step is one step of the schema.
type Step struct {
	Version   int64
	Name      string    // of its file
	AppliedAt time.Time // zero while pending
	Pending   bool
}

// Up migrates the database to this program's schema, and returns the steps that it applied, in order. Several processes
// may call it at once: one works, and the others wait up to a minute. Each step is a transaction, so after an error the
// returned steps are in force and the failed one had no effect. Up takes one slot and bypasses a pooler, which can't
// carry its lock.
//
// Tables that a Django application made first are used as they are. If their owner has not granted enough privileges on
// them, or if a table is missing that an earlier run made, the error is a *Problem.
func Up(ctx context.Context, cfg db.Settings) ([]Step, error) {
	var applied []Step
	err := migrating(ctx, cfg, func(p *goose.Provider) error {
		results, err := p.Up(ctx)
		if partial, ok := errors.AsType[*goose.PartialError](err); ok {
			results = partial.Applied
		}
		for _, r := range results {
			applied = append(applied, migrationOf(r))
		}
		return err
	})
	if err == nil {
		err = connected(ctx, cfg, func(conn *pgx.Conn) error { return mayWork(ctx, conn) })
	}
	return applied, explain(ctx, cfg, err)
}

// ErrNone is the error of Down if there is no step to revert.
var ErrNone = errors.New("the database is at no migration: there is nothing to take back")

// Down reverts the last step, with the data in its tables, and returns which one it was. A version other than 0 is the one
// to revert: if it is not the last any more when Down begins, Down reverts nothing. The tables of polls and users are also
// Django's: in a database that a Django application has used (django_migrations) Down reverts nothing.
func Down(ctx context.Context, cfg db.Settings, version int64) (Step, error) {
	if err := refuseDjangos(ctx, cfg); err != nil {
		return Step{}, err
	}
	var undone Step
	err := migrating(ctx, cfg, func(p *goose.Provider) error {
		take := p.Down
		if version != 0 { // goose looks again under its lock, but only whether this one is still applied
			take = func(ctx context.Context) (*goose.MigrationResult, error) {
				if last, err := p.GetDBVersion(ctx); err != nil || last != version {
					return nil, cmp.Or(err, goose.ErrNotApplied)
				}
				return p.ApplyVersion(ctx, version, false)
			}
		}
		r, err := take(ctx)
		switch {
		case errors.Is(err, goose.ErrNotApplied):
			return fmt.Errorf("migration %d was taken back meanwhile, or another one was applied: nothing was changed", version)
		case errors.Is(err, goose.ErrNoNextVersion):
			return ErrNone
		case err != nil:
			return err
		}
		undone = migrationOf(r)
		return nil
	})
	return undone, err
}

func refuseDjangos(ctx context.Context, cfg db.Settings) error {
	return connected(ctx, cfg, func(conn *pgx.Conn) error {
		var shared bool
		err := conn.QueryRow(ctx, "SELECT to_regclass('django_migrations') IS NOT NULL").Scan(&shared)
		if err == nil && shared {
			err = fmt.Errorf("a Django application shares the database %q (it has a table django_migrations): "+
				"taking a migration back would drop its tables and rows; drop by hand what is ddtb's alone", cfg.Name)
		}
		return err
	})
}

func migrationOf(r *goose.MigrationResult) Step {
	return Step{Version: r.Source.Version, Name: path.Base(r.Source.Path), AppliedAt: time.Now()}
}

// Status lists the steps that this program knows and those that were applied to the database, by version. It changes
// nothing.
func Status(ctx context.Context, cfg db.Settings) (steps []Step, err error) {
	err = connected(ctx, cfg, func(conn *pgx.Conn) error {
		steps, err = migrationStatus(ctx, conn)
		return err
	})
	return steps, explain(ctx, cfg, err)
}

// connected runs fn on a connection that bypasses the pooler.
func connected(ctx context.Context, cfg db.Settings, fn func(*pgx.Conn) error) error {
	cc, err := migrationConn(cfg)
	if err != nil {
		return err
	}
	conn, err := db.Connect(ctx, cc)
	if err != nil {
		return err
	}
	defer db.Disconnect(conn)
	return fn(conn)
}

// Problem is why the database does not fit this program, with what to do about it. Its text is for the public: it names
// no host.
type Problem struct {
	text       string
	Statements []string // of SQL, which the text asks to type if the role lacks access
	Err        error    // the server's, or nil
}

func (p *Problem) Error() string { return p.text }
func (p *Problem) Unwrap() error { return p.Err }

// Check returns nil if the database is at the migration that this program needs, the login's role may read its tables,
// and none of them is missing. Otherwise it returns a *Problem, or why it could not find out.
func Check(ctx context.Context, q db.Querier) error {
	if err := checkAccess(ctx, q, reading); err != nil {
		return err
	}
	steps, err := migrationStatus(ctx, q)
	if err != nil {
		return err
	}
	has, needs := versions(steps)
	text := ""
	switch {
	case has == 0:
		text = "the database has none of ddtb's tables yet: run `ddtb migrate`"
	case has > needs:
		return newer(has, needs)
	case has < needs:
		text = fmt.Sprintf("the database is at migration %d, this ddtb needs %d: run `ddtb migrate`", has, needs)
	case slices.ContainsFunc(steps, func(m Step) bool { return m.Pending }):
		text = fmt.Sprintf("the database is at migration %d, but one before it was left out: run `ddtb migrate status`", has)
	default:
		return checkMissing(ctx, q)
	}
	return &Problem{text: text}
}

func newer(has, needs int64) error {
	return &Problem{text: fmt.Sprintf("the database is at migration %d, newer than this ddtb, which knows %d: update ddtb, "+
		"or run `ddtb migrate down` with the newer one first", has, needs)}
}

// versions returns the last applied step, or 0, and the last one that this program knows.
func versions(steps []Step) (has, needs int64) {
	for _, m := range steps {
		if !m.Pending {
			has = max(has, m.Version)
		}
		if m.Name != "" {
			needs = max(needs, m.Version)
		}
	}
	return has, needs
}

func migrationStatus(ctx context.Context, q db.Querier) ([]Step, error) {
	steps, err := knownMigrations()
	if err != nil {
		return nil, err
	}
	var there bool
	if err := q.QueryRow(ctx, "SELECT to_regclass('"+migrationTable+"') IS NOT NULL").Scan(&there); err != nil || !there {
		return steps, err
	}
	rows, err := q.Query(ctx, "SELECT version_id, tstamp AT TIME ZONE 'UTC' FROM "+migrationTable+
		" WHERE is_applied AND version_id > 0 ORDER BY version_id")
	if err != nil {
		return nil, err
	}
	applied, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (m Step, err error) {
		return m, row.Scan(&m.Version, &m.AppliedAt)
	})
	if err != nil {
		return nil, err
	}
	return merge(steps, applied), nil
}

// merge marks the applied steps, and adds those that this program does not know.
func merge(steps, applied []Step) []Step {
	for _, a := range applied {
		i := slices.IndexFunc(steps, func(m Step) bool { return m.Version == a.Version })
		if i < 0 {
			steps = append(steps, a)
			continue
		}
		steps[i].AppliedAt, steps[i].Pending = a.AppliedAt, false
	}
	slices.SortFunc(steps, func(a, b Step) int { return int(a.Version - b.Version) })
	return steps
}

// knownMigrations returns the embedded files, all of them pending.
func knownMigrations() ([]Step, error) {
	entries, err := files.ReadDir(".")
	if err != nil {
		return nil, err
	}
	steps := make([]Step, len(entries))
	for i, e := range entries {
		version, err := goose.NumericComponent(e.Name())
		if err != nil {
			return nil, fmt.Errorf("migration %s: %w", e.Name(), err)
		}
		steps[i] = Step{Version: version, Name: e.Name(), Pending: true}
	}
	return steps, nil
}

// migrating runs fn with goose on one direct connection, unless the database is ahead of this program.
func migrating(ctx context.Context, cfg db.Settings, fn func(*goose.Provider) error) (err error) {
	if direct := db.Direct(cfg); direct.Pooler != "" {
		return fmt.Errorf("migrations need a lock that lasts for a session, which %s in transaction mode can't carry: "+
			"set direct_host and direct_port of database %q", cfg.Pooler, cfg.Name)
	}
	if err := connected(ctx, cfg, func(conn *pgx.Conn) error { return mayMigrate(ctx, conn) }); err != nil {
		return err
	}
	cc, err := migrationConn(cfg)
	if err != nil {
		return err
	}
	pool := stdlib.OpenDB(*cc)
	pool.SetMaxOpenConns(1) // goose uses one at a time
	defer func() { err = errors.Join(err, pool.Close()) }()
	provider, err := newProvider(pool)
	if err != nil {
		return err
	}
	err = fn(provider)
	if partial, ok := errors.AsType[*goose.PartialError](err); ok {
		return fmt.Errorf("%s: %w", path.Base(partial.Failed.Source.Path), partial.Err)
	}
	return err
}

// mayMigrate refuses an undeclared pooler, and a database that is ahead of this program.
func mayMigrate(ctx context.Context, conn *pgx.Conn) error {
	if advice, shares, err := db.UndeclaredPooler(ctx, conn); err != nil || shares {
		return cmp.Or(err, errors.New(advice+"; migrations need direct_host and direct_port as well"))
	}
	steps, err := migrationStatus(ctx, conn)
	if err != nil {
		return err
	}
	if has, needs := versions(steps); has > needs {
		return newer(has, needs)
	}
	return nil
}

// migrationConn configures a connection that bypasses the pooler. A step may take any time to run, but may not wait
// forever for a lock.
func migrationConn(cfg db.Settings) (*pgx.ConnConfig, error) {
	cfg = db.Direct(cfg)
	cc, err := db.ConnConfig(cfg, cfg.ApplicationName+"/migrate")
	if err != nil {
		return nil, err
	}
	if cfg.Pooler == "" { // otherwise the login may be refused
		cc.RuntimeParams["timezone"] = "UTC" // goose's tstamp has no zone
		cc.RuntimeParams["statement_timeout"] = "0"
		cc.RuntimeParams["lock_timeout"] = strconv.FormatInt(migrationWait.Milliseconds(), 10)
	}
	return cc, nil
}

func newProvider(pool *sql.DB) (*goose.Provider, error) {
	locker, err := lock.NewPostgresSessionLocker(
		lock.WithLockID(migrationLock), lock.WithLockTimeout(1, uint64(migrationWait/time.Second)))
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(goose.DialectPostgres, pool, files, goose.WithTableName(migrationTable),
		goose.WithSessionLocker(explainedLocker{locker}), goose.WithDisableGlobalRegistry(true))
}

// explainedLocker is goose's lock. If it times out, its error names the holder.
type explainedLocker struct{ lock.SessionLocker }

// SessionLock is part of lock.SessionLocker.
func (l explainedLocker) SessionLock(ctx context.Context, conn *sql.Conn) error {
	err := l.SessionLocker.SessionLock(ctx, conn)
	if err == nil {
		return nil
	}
	asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	var pid int
	var application string
	unknown := conn.QueryRowContext(asking, `SELECT pid, application_name FROM pg_locks JOIN pg_stat_activity USING (pid)
		WHERE locktype = 'advisory' AND granted AND objid = $1
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`, migrationLock).Scan(&pid, &application)
	if unknown != nil {
		return err
	}
	return fmt.Errorf("another process is migrating this database: its backend %d (%q) still holds the lock; "+
		"try again, or end it with pg_terminate_backend: %w", pid, application, err)
}
