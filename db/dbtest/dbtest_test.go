package dbtest_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
	"ddtb/db/migrations"
)

func TestMain(m *testing.M) { dbtest.Run(m) }

func connect(t *testing.T, cfg config.Database, application string) *pgx.Conn {
	t.Helper()
	conn, err := tryConnect(t, cfg, application)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func tryConnect(t *testing.T, cfg config.Database, application string) (*pgx.Conn, error) {
	t.Helper()
	cc, err := db.ConnConfig(cfg, application)
	if err != nil {
		t.Fatal(err)
	}
	return db.Connect(t.Context(), cc)
}

func scan[T any](t *testing.T, q db.Querier, sql string, args ...any) (v T) {
	t.Helper()
	if err := q.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func execute(t *testing.T, q db.Querier, sql string) {
	t.Helper()
	if _, err := q.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func TestEachTestGetsAMigratedDatabaseOfItsOwn(t *testing.T) {
	first, second := dbtest.Config(t), dbtest.Config(t)
	conn := connect(t, first, "test")
	execute(t, conn, "INSERT INTO polls_question (question_text, pub_date) VALUES ('q', now())")
	execute(t, conn, "ALTER TABLE polls_question ADD COLUMN note text")
	execute(t, conn, "CREATE TABLE mine ()")
	if n := scan[int](t, connect(t, second, "test"), "SELECT count(*) FROM polls_question"); n != 0 {
		t.Errorf("%d questions of another test", n)
	}
	if scan[bool](t, conn, "SELECT rolsuper OR rolcreatedb OR rolcreaterole FROM pg_roles WHERE rolname = current_user") {
		t.Error("the test's role may more than it should")
	}
	if err := migrations.Check(t.Context(), conn); err != nil {
		t.Error(err)
	}
}

func TestOpenGoesThroughTheStrategy(t *testing.T) {
	d := dbtest.Open(t)
	if app := scan[string](t, d, "SHOW application_name"); app != "ddtb/pool" {
		t.Errorf("application_name is %q", app)
	}
}

func TestManyTestsMayAskForADatabaseAtOnce(t *testing.T) {
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { dbtest.Config(t) })
	}
	wg.Wait()
}

func TestADatabaseGoesWithItsTestThoughSessionsAreLeft(t *testing.T) {
	var gone config.Database
	t.Run("its test", func(t *testing.T) {
		gone = dbtest.Config(t)
		if _, err := tryConnect(t, gone, "left open"); err != nil {
			t.Fatal(err)
		}
	})
	control := dbtest.Control(t, dbtest.Config(t))
	if n := scan[int](t, control, `SELECT (SELECT count(*) FROM pg_database WHERE datname = $1) +
		(SELECT count(*) FROM pg_roles WHERE rolname = $2)`, gone.Name, gone.User); n != 0 {
		t.Errorf("%d of database and role are left", n)
	}
}

func TestControlCountsAndKillsTheSessionsOfItsDatabaseAlone(t *testing.T) {
	cfg, other := dbtest.Config(t), dbtest.Config(t)
	control := dbtest.Control(t, cfg)
	mine, theirs := connect(t, cfg, "app"), connect(t, other, "app")
	connect(t, cfg, "another app")
	if n := dbtest.Backends(t, control, "app"); n != 1 {
		t.Errorf("%d backends", n)
	}
	if n := dbtest.KillBackends(t, control, "app"); n != 1 {
		t.Errorf("%d were killed", n)
	}
	dbtest.Eventually(t, "the killed one is gone", func() bool { return dbtest.Backends(t, control, "app") == 0 })
	if err := mine.Ping(t.Context()); err == nil {
		t.Error("the killed session lives")
	}
	if err := theirs.Ping(t.Context()); err != nil {
		t.Errorf("a session of another database was killed: %v", err)
	}
}

func TestControlFindsTheServerPastAProxy(t *testing.T) {
	cfg := dbtest.Config(t)
	cfg.Port = 1
	if name := scan[string](t, dbtest.Control(t, cfg), "SELECT current_database()"); name != cfg.Name {
		t.Errorf("it is in %q", name)
	}
}

func TestAServerOfOnesOwnHasItsOwnSlots(t *testing.T) {
	s := dbtest.NewServer(t, dbtest.Options{MaxConnections: 6, Settings: map[string]string{"superuser_reserved_connections": "2"}})
	cfg := s.Config(t)
	for range 4 {
		connect(t, cfg, "app")
	}
	if _, err := tryConnect(t, cfg, "app"); db.CauseOf(err) != db.SlotsExhausted {
		t.Errorf("the fifth connection: %v", err)
	}
	if n := dbtest.Backends(t, dbtest.Control(t, cfg), "app"); n != 4 {
		t.Errorf("%d backends", n)
	}
}

func TestARestartedServerIsTheSameToItsClients(t *testing.T) {
	s := dbtest.NewServer(t, dbtest.Options{})
	d := s.Open(t)
	execute(t, d, "CREATE TABLE kept AS SELECT 42 AS n")
	for _, mode := range []string{dbtest.Fast, dbtest.Immediate} {
		s.Restart(t, mode)
		dbtest.Eventually(t, "the data is there after a restart, "+mode, func() bool {
			var n int
			return d.QueryRow(t.Context(), "SELECT n FROM kept").Scan(&n) == nil && n == 42
		})
	}
	s.Stop(t, dbtest.Fast)
	if _, err := tryConnect(t, d.Config(), "app"); db.CauseOf(err) != db.ServerUnavailable {
		t.Errorf("while it is stopped: %v", err)
	}
	s.Start(t)
	connect(t, d.Config(), "app")
}

func TestAPausedServerHangsUntilItIsResumed(t *testing.T) {
	s := dbtest.NewServer(t, dbtest.Options{})
	cfg := s.Config(t)
	conn := connect(t, cfg, "app")
	s.Pause(t)
	answer := make(chan error, 1)
	go func() { answer <- conn.Ping(context.Background()) }()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	cc, err := db.ConnConfig(cfg, "app")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Connect(ctx, cc); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("connecting to a paused server: %v", err)
	}
	select {
	case err := <-answer:
		t.Fatalf("a paused server answered: %v", err)
	default:
	}
	s.Resume(t)
	if err := <-answer; err != nil {
		t.Error(err)
	}
}

func TestNoLeaksReportsAGoroutineThatIsLeft(t *testing.T) {
	stop := make(chan struct{})
	defer close(stop)
	for name, leak := range map[string]bool{"with a leak": true, "without": false} {
		test := &recorder{TB: t}
		t.Run(name, func(t *testing.T) {
			dbtest.Config(t) // a started server is no leak
			test.cleanup = nil
			dbtest.NoLeaks(test)
			if leak {
				go func() { <-stop }()
			}
			test.cleanup()
		})
		if test.failed != leak {
			t.Errorf("%s: it failed: %v", name, test.failed)
		}
	}
}

// recorder records whether a test failed.
type recorder struct {
	testing.TB
	cleanup func()
	failed  bool
}

func (r *recorder) Cleanup(f func()) { r.cleanup = f }
func (r *recorder) Error(...any)     { r.failed = true }

// asChild makes TestChildProcess end as it says.
const asChild = "DDTB_TEST_CHILD"

// TestChildProcess runs in the processes that child starts; otherwise it does nothing.
func TestChildProcess(t *testing.T) {
	how := os.Getenv(asChild)
	if how == "" {
		return
	}
	cfg := dbtest.Config(t)
	directory := scan[string](t, dbtest.Control(t, cfg), "SHOW data_directory")
	_, _ = fmt.Fprintln(os.Stdout, "data in", directory)
	switch how {
	case "panic":
		panic("as asked")
	case "hang":
		select {}
	}
}

// child returns a test binary that ends as how says, and the directory of its server.
func child(t *testing.T, how string) (dir string, cmd *exec.Cmd) {
	t.Helper()
	cmd = exec.Command(os.Args[0], "-test.run=^TestChildProcess$", "-test.timeout=1m") //nolint:noctx // killed below
	cmd.Env = append(os.Environ(), asChild+"="+how)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, _ := bufio.NewReader(out).ReadString('\n')
	data, ok := strings.CutPrefix(strings.TrimSpace(line), "data in ")
	if !ok {
		t.Fatalf("the child says %q", line)
	}
	return filepath.Dir(data), cmd
}

func TestNothingIsLeftOfATestBinary(t *testing.T) {
	for _, how := range []string{"pass", "panic", "hang"} {
		t.Run(how, func(t *testing.T) {
			dir, cmd := child(t, how)
			if how == "hang" {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			_ = cmd.Wait() // fails, but for the first
			if how != "pass" {
				_, next := child(t, "pass")
				if err := next.Wait(); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s is left: %v", dir, err)
			}
			if pids, _ := filepath.Glob("/proc/[0-9]*/cwd"); anyIn(pids, dir) {
				t.Error("a process is left")
			}
		})
	}
}

// anyIn reports whether one of the links leads into dir.
func anyIn(links []string, dir string) bool {
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && strings.HasPrefix(to, dir+"/") {
			return true
		}
	}
	return false
}
