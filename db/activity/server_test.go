package activity

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/localpg"
)

// The servers of these tests are small, so that they are soon full: 20 slots. One is of the version that the machine has,
// the other of the newest, which knows reserved_connections.
var servers []*server

type server struct {
	*localpg.Server
	options  localpg.Options // for another start, at the same address
	name     string
	reserved bool // knows reserved_connections
}

const maxConnections = 20

// testDir is a directory for the whole run.
var testDir string

const hbaFile = "hba.conf"

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "4"); err != nil { // they wait more than they compute
		panic(err)
	}
	code, err := runOnServers(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func runOnServers(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "ddtb-activity-")
	if err != nil {
		return 1, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	testDir = dir
	if err := os.Chmod(dir, 0o755); err != nil { // for root, PostgreSQL runs as another user
		return 1, err
	}
	// The tests have clients at several addresses, which are all this machine's.
	rules := "local all all scram-sha-256\nhost all,replication all 127.0.0.0/8 scram-sha-256\n"
	if err := os.WriteFile(filepath.Join(dir, hbaFile), []byte(rules), 0o644); err != nil {
		return 1, err
	}
	ctx := context.Background()
	for _, newest := range []bool{false, true} {
		s, err := startServer(ctx, fmt.Sprintf("newest-%v", newest), newest)
		if err != nil {
			return 1, err
		}
		defer func() { _ = s.Crash(ctx) }()
		servers = append(servers, s)
	}
	return m.Run(), nil
}

// startServer starts one with its data in that directory.
func startServer(ctx context.Context, dir string, newest bool) (*server, error) {
	o := localpg.Options{
		Dir: filepath.Join(testDir, dir), ForceFetch: newest, Volatile: true, MaxConnections: maxConnections, Settings: map[string]string{
			"hba_file": filepath.Join(testDir, hbaFile), "max_prepared_transactions": "5", "max_wal_size": "32MB", "min_wal_size": "32MB",
			"wal_level": "logical", "max_wal_senders": "5", // for standbys and replication slots
			"autovacuum": "on",
		},
	}
	if newest {
		o.Settings["reserved_connections"] = "2"
	}
	pg, err := localpg.Start(ctx, o)
	if err != nil {
		return nil, err
	}
	o.Port = pg.Port()
	s := &server{Server: pg, options: o, name: "PostgreSQL " + pg.Version(), reserved: newest}
	return s, s.prepare(ctx)
}

// The roles of the tests. app owns the database wall.
const (
	app     = "app"
	other   = "other"
	reader  = "reader"  // sees all
	closer  = "closer"  // sees all and may end it
	invited = "invited" // may use reserved slots, where the server knows them
)

const testPassword = "not a secret"

func (s *server) prepare(ctx context.Context) error {
	conn, err := s.Connect(ctx, "postgres")
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	statements := []string{
		"CREATE ROLE app LOGIN PASSWORD 'not a secret'", "CREATE ROLE other LOGIN PASSWORD 'not a secret'",
		"CREATE ROLE reader LOGIN PASSWORD 'not a secret'", "CREATE ROLE closer LOGIN PASSWORD 'not a secret'",
		"CREATE ROLE invited LOGIN PASSWORD 'not a secret'",
		"GRANT pg_read_all_stats TO reader", "GRANT pg_read_all_stats, pg_signal_backend TO closer",
		"CREATE DATABASE wall OWNER app", "CREATE DATABASE elsewhere OWNER other",
	}
	if s.reserved {
		statements = append(statements, "GRANT pg_use_reserved_connections TO invited")
	}
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

// onEach runs the test on each server, which must be as empty afterwards as it was before.
func onEach(t *testing.T, f func(*testing.T, *server)) {
	for _, s := range servers {
		t.Run(s.name, func(t *testing.T) {
			before := goleak.IgnoreCurrent()
			t.Cleanup(func() {
				s.mustBecomeEmpty(t)
				goleak.VerifyNone(t, before)
			})
			f(t, s)
		})
	}
}

func (s *server) mustBecomeEmpty(t *testing.T) {
	t.Helper()
	ctx := context.Background()
	var conn *pgx.Conn
	eventually(t, "the superuser gets in", func() bool {
		var err error
		conn, err = s.Connect(ctx, "postgres")
		return err == nil
	})
	defer func() { _ = conn.Close(ctx) }()
	eventually(t, "no session is left", func() bool {
		var n int
		err := conn.QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity
			WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()`).Scan(&n)
		return err == nil && n == 0
	})
}

// usable is how many slots an ordinary role can have.
func (s *server) usable() int {
	if s.reserved {
		return maxConnections - 3 - 2
	}
	return maxConnections - 3
}

func (s *server) config(role, database string) config.Database {
	cfg := s.Config(database)
	if role != localpg.Superuser {
		cfg.User, cfg.Password, cfg.PasswordFile = role, testPassword, ""
	}
	cfg.ApplicationName = "shop"
	cfg.Strategy, cfg.Pool.MaxSize = db.Pool, 10
	return cfg
}

func (s *server) observer(t *testing.T, role string) *Observer {
	t.Helper()
	o, err := NewObserver(s.config(role, "wall"))
	must(t, err)
	t.Cleanup(o.Close)
	return o
}

// session opens one that the test closes, if it is still there.
func (s *server) session(t *testing.T, role, database, application string) *pgx.Conn {
	t.Helper()
	conn, err := s.connect(t.Context(), role, database, application)
	must(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	})
	return conn
}

func (s *server) connect(ctx context.Context, role, database, application string) (*pgx.Conn, error) {
	cc, err := db.ConnConfig(s.config(role, database), application)
	if err != nil {
		return nil, err
	}
	return pgx.ConnectConfig(ctx, cc)
}

// fill takes every slot that the role gets, and tells how many those were.
func (s *server) fill(t *testing.T, role, application string) (n int) {
	t.Helper()
	for {
		conn, err := s.connect(t.Context(), role, "wall", application)
		if err != nil {
			if !strings.Contains(err.Error(), "53300") {
				t.Fatal(err)
			}
			return n
		}
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
		n++
	}
}

// runs starts a statement that does not end by itself; the test ends with it ended.
func runs(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = conn.Exec(ctx, sql)
	}()
	t.Cleanup(func() { cancel(); <-ended })
}

func exec(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func snapshot(t *testing.T, a Poller) Snapshot {
	t.Helper()
	s, err := a.Snapshot(t.Context())
	must(t, err)
	return s
}

// pollUntil looks until the snapshot is as the test needs it.
func pollUntil(t *testing.T, a Poller, what string, ok func(Snapshot) bool) (s Snapshot) {
	t.Helper()
	eventually(t, what, func() bool {
		s = snapshot(t, a)
		return ok(s)
	})
	return s
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	pause := 20 * time.Millisecond // most conditions ask the server
	for began := time.Now(); !ok(); <-time.After(pause) {
		if time.Since(began) > time.Minute {
			t.Fatalf("still not so after a minute: %s", what)
		}
		pause = min(pause*5/4, 200*time.Millisecond) // what takes longer leaves the processors to other tests
	}
}

// find is the session of that application; the test fails unless there is one.
func find(t *testing.T, s Snapshot, application string) Session {
	t.Helper()
	found := s.clients(func(x Session) bool { return x.Application == application })
	if len(found) != 1 {
		t.Fatalf("%d sessions call themselves %s", len(found), application)
	}
	return found[0]
}

func pidOf(conn *pgx.Conn) int32 { return int32(conn.PgConn().PID()) }

func fmtPID(conn *pgx.Conn) string { return fmt.Sprint(pidOf(conn)) }

// DatabaseForExamples is the first server, for the examples.
func DatabaseForExamples() config.Database { return servers[0].config(app, "wall") }
