// Package dbtest gives a test a PostgreSQL of its own: one private server for the test binary, and for each
// test a database cloned from a migrated template. A test that stops, kills or fills its server takes a server
// of its own with NewServer.
//
// The server's programs are those that are first in PATH, else the newest that are installed. A machine without
// PostgreSQL fails the tests, with the name of the package to install; nothing is skipped. Nothing is left behind:
// what a killed test binary leaves, the next one removes.
//
// It is for tests alone: nothing but _test files may import it.
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

// timeout bounds what the harness itself does to a server.
const timeout = time.Minute

// shared is the server of this test binary.
var shared struct {
	sync.Mutex
	running bool // Run is in charge
	server  *Server
	err     error
}

// Run runs the tests, and ends the process. The server starts with the first test that asks for a database. A
// TestMain calls it:
//
//	func TestMain(m *testing.M) { dbtest.Run(m) }
func Run(m *testing.M) {
	shared.running = true
	code := m.Run()
	if err := stopShared(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func stopShared() error {
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil {
		return nil
	}
	return shared.server.remove()
}

// sharedServer starts it once. What a start that failed said, every test says.
func sharedServer(t testing.TB) *Server {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if !shared.running {
		t.Fatal("this package has no TestMain that calls dbtest.Run")
	}
	if shared.server == nil && shared.err == nil {
		removeStale(t)
		shared.server, shared.err = newServer(Options{})
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.server
}

// removeStale removes the servers of test binaries that were killed. A server that its test has stopped for a while
// is not locked, so it is the binary's process that counts.
func removeStale(t testing.TB) {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		if madeByTheLiving(dir) {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		err := localpg.Remove(ctx, dir)
		cancel()
		if err != nil && !errors.Is(err, localpg.ErrRunning) && !errors.Is(err, os.ErrNotExist) {
			t.Logf("left over from a killed test: %v", err)
		}
	}
}

// madeByTheLiving tells whether the process in the folder's name is there.
func madeByTheLiving(dir string) bool {
	pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), dirPrefix), "-")
	n, err := strconv.Atoi(pid)
	return err == nil && system.Exists(n)
}

// Config is the configuration of a new, migrated, empty database, which goes with the test. Its user is no
// superuser, and owns it. Strategy and the rest are the defaults; the test may change them before db.Open.
func Config(t testing.TB) config.Database {
	t.Helper()
	return sharedServer(t).Config(t)
}

// Open is db.Open on Config(t), closed with the test.
func Open(t testing.TB) *db.DB {
	t.Helper()
	return sharedServer(t).Open(t)
}

// Control is a superuser's connection to cfg's database which does not go through package db: it looks at
// pg_stat_activity, and kills. It reaches the server of a test even where cfg leads through a proxy.
func Control(t testing.TB, cfg config.Database) *pgx.Conn {
	t.Helper()
	return serverOf(t, cfg).connect(t, cfg.Name)
}

// Backends counts the sessions of an application in the database of the control connection.
func Backends(t testing.TB, control *pgx.Conn, application string) (n int) {
	t.Helper()
	if err := control.QueryRow(context.Background(), `SELECT count(*) FROM pg_stat_activity
		WHERE datname = current_database() AND application_name = $1`, application).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// KillBackends ends the sessions of an application in the database of the control connection, and tells how
// many. The server frees their slots a moment later.
func KillBackends(t testing.TB, control *pgx.Conn, application string) (n int) {
	t.Helper()
	if err := control.QueryRow(context.Background(), `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
		WHERE datname = current_database() AND application_name = $1`, application).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// Eventually waits until ok, which looks at the server, and fails the test if that does not come within 20
// seconds: the server learns of a closed socket, and frees a slot, a moment later.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not so after 20 s: %s", what)
		}
	}
}

// NoLeaks fails the test if it leaves a goroutine behind that was not there before. It
// looks when the test and all that it asked for in t.Cleanup afterwards are over: call it first. The functions of
// others are those of libraries that leave theirs behind.
func NoLeaks(t testing.TB, others ...string) {
	t.Helper()
	ignore := []goleak.Option{goleak.IgnoreCurrent(), goleak.IgnoreAnyFunction("ddtb/db/localpg.(*process).keep")}
	for _, f := range others {
		ignore = append(ignore, goleak.IgnoreTopFunction(f))
	}
	t.Cleanup(func() { goleak.VerifyNone(t, ignore...) })
}
