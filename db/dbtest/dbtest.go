// Package dbtest gives each test a PostgreSQL database: one private server for the test binary, and for each test a
// database cloned from a migrated template. A test that stops, kills or fills its server starts a server of its own
// with NewServer.
//
// The server's programs are the first in PATH, or else the newest that are installed. On a machine without PostgreSQL
// the tests fail with the name of the package to install; no test is skipped. Nothing is left behind: the next test
// binary removes what a killed one has left.
//
// The contract that each strategy must keep is not here but among the tests of db, its one caller (contract_test.go).
//
// It is for tests only: only _test files may import it.
package dbtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/localpg"
	"ddtb/db/localpg/system"
)

// timeout bounds each operation of the harness on a server.
const timeout = time.Minute

// bounded runs one operation of the harness on a server.
func bounded(operation func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return operation(ctx)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// shared is what the tests of this binary share.
var shared struct {
	sync.Mutex
	running bool // Run has been called
	server  *Server
	stopped *Server // the servers of NewServer are copies of it: initdb and the migrations take five times as long
	err     error   // of either
}

// Run runs the tests and ends the process. The server starts with the first test that requests a database. A TestMain
// calls it:
//
//	func TestMain(m *testing.M) { dbtest.Run(m) }
func Run(m *testing.M) {
	shared.running = true
	code := m.Run()
	if err := removeShared(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func removeShared() (err error) {
	shared.Lock()
	defer shared.Unlock()
	for _, s := range []*Server{shared.server, shared.stopped} {
		if s != nil {
			err = errors.Join(err, s.remove())
		}
	}
	return err
}

// sharedServer starts the server once. If the start fails, every test reports the error.
func sharedServer(t testing.TB) *Server {
	t.Helper()
	defer lockShared(t)()
	if shared.server == nil && shared.err == nil {
		shared.server, shared.err = initServer(Options{})
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.server
}

// pristine returns the directory of the stopped server, which it makes once.
func pristine(t testing.TB) (dir string, err error) {
	t.Helper()
	defer lockShared(t)()
	if shared.stopped == nil && shared.err == nil {
		if shared.stopped, shared.err = initServer(Options{}); shared.err == nil {
			shared.err = bounded(shared.stopped.pg.Stop)
		}
	}
	if shared.err != nil {
		return "", shared.err
	}
	return shared.stopped.options.Dir, nil
}

// lockShared locks shared, for a test binary whose TestMain calls Run.
func lockShared(t testing.TB) (unlock func()) {
	t.Helper()
	shared.Lock()
	if !shared.running {
		shared.Unlock()
		t.Fatal("this package has no TestMain that calls dbtest.Run")
	}
	if shared.server == nil && shared.stopped == nil && shared.err == nil {
		removeStale(t)
	}
	return shared.Unlock
}

// removeStale removes the servers of test binaries that were killed. A server that its test has stopped for a while is
// not locked, so the process of the test binary decides.
func removeStale(t testing.TB) {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(TempDir(), dirPrefix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		if madeByTheLiving(dir) {
			continue
		}
		err := bounded(func(ctx context.Context) error { return localpg.Remove(ctx, dir) })
		if err != nil && !errors.Is(err, localpg.ErrRunning) && !errors.Is(err, os.ErrNotExist) {
			t.Logf("left over from a killed test: %v", err)
		}
	}
}

// madeByTheLiving reports whether the process in the directory's name exists.
func madeByTheLiving(dir string) bool {
	pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), dirPrefix), "-")
	n, err := strconv.Atoi(pid)
	return err == nil && system.Exists(n)
}

// Config returns the configuration of a new, migrated, empty database, which is removed after the test. Its user owns
// it and is no superuser. Strategy and the rest are the defaults; the test may change them before db.Open.
func Config(t testing.TB) config.Database {
	t.Helper()
	return sharedServer(t).Config(t)
}

// Open calls db.Open on Config(t). The DB is closed after the test.
func Open(t testing.TB) *db.DB {
	t.Helper()
	return sharedServer(t).Open(t)
}

// Control returns a superuser's connection to cfg's database that does not use package db. Tests use it to read
// pg_stat_activity and to terminate sessions. It reaches the server of a test even if cfg leads through a proxy.
func Control(t testing.TB, cfg config.Database) *pgx.Conn {
	t.Helper()
	return serverOf(t, cfg).Control(t, cfg.Name)
}

// Backends counts the sessions of an application in the database of the control connection.
func Backends(t testing.TB, control *pgx.Conn, application string) (n int) {
	t.Helper()
	return sessions(t, control, "count(*)", application)
}

// KillBackends terminates the sessions of an application in the database of the control connection, and returns how
// many. The server frees their slots a moment later.
func KillBackends(t testing.TB, control *pgx.Conn, application string) (n int) {
	t.Helper()
	return sessions(t, control, "count(pg_terminate_backend(pid))", application)
}

func sessions(t testing.TB, control *pgx.Conn, what, application string) (n int) {
	t.Helper()
	must(t, control.QueryRow(context.Background(), "SELECT "+what+` FROM pg_stat_activity
		WHERE datname = current_database() AND application_name = $1`, application).Scan(&n))
	return n
}

// patience is how long a test waits before it fails. It is long: it costs time only where a test fails, and a machine
// that builds and tests other packages meanwhile is slow.
const patience = time.Minute

// Eventually waits until ok returns true, and fails the test after a minute. It is for conditions on the server,
// which notices a closed socket, and frees a slot, a moment later.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	pause := 2 * time.Millisecond
	for began := time.Now(); !ok(); time.Sleep(pause) {
		if time.Since(began) > patience {
			t.Fatalf("still not so after %v: %s", patience, what)
		}
		pause = min(pause*5/4, 50*time.Millisecond) // what takes longer leaves the processors to other tests
	}
}

// NoLeaks fails the test if it leaves a goroutine behind. Call it first: it checks after the test and all later
// t.Cleanup functions have ended. It ignores the given functions, of libraries that leave goroutines behind.
func NoLeaks(t testing.TB, others ...string) {
	t.Helper()
	ignore := []goleak.Option{
		goleak.IgnoreCurrent(), goleak.IgnoreAnyFunction("ddtb/db/localpg.(*process).keep"),
		// After a slow write the driver reads ahead on a connection, until its next answer.
		goleak.IgnoreAnyFunction("github.com/jackc/pgx/v5/pgconn/internal/bgreader.(*BGReader).bgRead"),
	}
	for _, f := range others {
		ignore = append(ignore, goleak.IgnoreTopFunction(f))
	}
	t.Cleanup(func() { goleak.VerifyNone(t, ignore...) })
}
