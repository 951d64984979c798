package dbtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/localpg"
	"ddtb/db/localpg/system"
	"ddtb/db/migrations"
)

const (
	dirPrefix = "ddtb-test-"
	template  = "ddtb_template"
	owner     = "ddtb_owner" // of the template's tables; a test's role is a member of it
)

// Options configure a server.
type Options struct {
	MaxConnections int               // 0: 100
	Settings       map[string]string // of postgresql.conf
	Initialized    bool              // by initdb, not copied: its system identifier differs from the other servers'
}

// Server is a private PostgreSQL with a migrated template. Inject faults only on servers of NewServer: on the test
// binary's shared server they would affect the other tests too.
type Server struct {
	options localpg.Options
	own     bool // of one test: its databases are not dropped one by one

	idle chan *pgx.Conn // a superuser's connection for the next exec; none on a server of one test

	mu     sync.Mutex
	pg     *localpg.Server
	paused []int // processes
}

var (
	servers   atomic.Int64 // started by this process
	databases atomic.Int64
	homes     sync.Map // database name → *Server
)

// NewServer starts a server that is removed after the test.
func NewServer(t testing.TB, o Options) *Server {
	t.Helper()
	s, err := newServer(t, o)
	must(t, err)
	s.ownedBy(t)
	return s
}

// ownedBy removes the server after the test.
func (s *Server) ownedBy(t testing.TB) {
	s.own = true
	s.disconnect()
	t.Cleanup(func() {
		if err := s.remove(); err != nil {
			t.Error(err)
		}
	})
}

// NewReplica starts a streaming replica of a server that was started with Replicated. It restarts that server.
func (s *Server) NewReplica(t testing.TB) *Server {
	t.Helper()
	r := &Server{options: s.options}
	r.options.Dir = newDir()
	r.options.ReplicaOf, r.options.Port, r.options.Settings = s.pg, 0, maps.Clone(s.options.Settings)
	r.ownedBy(t)
	s.Stop(t, Fast)
	must(t, bounded(r.start))
	s.Start(t)
	return r
}

// Replicated returns the options of a server that may have replicas.
func Replicated() Options {
	return Options{Settings: map[string]string{
		"wal_level": "replica", "max_wal_senders": "5", "wal_receiver_timeout": "2s",
		"wal_retrieve_retry_interval": "100ms", "max_standby_streaming_delay": "50ms", "synchronous_commit": "local",
	}}
}

// Reach returns cfg with this server as its address.
func (s *Server) Reach(cfg config.Database) config.Database {
	cfg.Host, cfg.Port = s.pg.Config("").Host, s.pg.Port()
	return cfg
}

func newDir() string {
	return filepath.Join(TempDir(), fmt.Sprintf("%s%d-%d", dirPrefix, os.Getpid(), servers.Add(1)))
}

func newServer(t testing.TB, o Options) (*Server, error) {
	t.Helper()
	if o.Initialized || !shared.running { // nothing would remove what the copies are made from
		return initServer(o)
	}
	from, err := pristine(t)
	if err != nil {
		return nil, err
	}
	s := serverFor(o)
	if err := bounded(func(ctx context.Context) error { return s.copyFrom(ctx, from) }); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.options.Dir))
	}
	if err := bounded(s.start); err != nil {
		return nil, errors.Join(err, s.remove())
	}
	return s, nil
}

// copyFrom copies the directory of a stopped server, without its log and the record of its port.
func (s *Server) copyFrom(ctx context.Context, dir string) error {
	if out, err := exec.CommandContext(ctx, "cp", "-Rp", dir, s.options.Dir).CombinedOutput(); err != nil {
		return fmt.Errorf("copy a server's data: %w: %s", err, out)
	}
	for _, name := range []string{"postgres.log", "lock"} {
		if err := os.Remove(filepath.Join(s.options.Dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// initServer makes a server with initdb and migrates its template.
func initServer(o Options) (*Server, error) {
	s := serverFor(o)
	s.options.Fresh = true
	if err := bounded(s.start); err != nil {
		return nil, errors.Join(err, s.remove())
	}
	if err := bounded(s.makeTemplate); err != nil {
		return nil, errors.Join(fmt.Errorf("the template of the test databases: %w", err), s.remove())
	}
	return s, nil
}

func serverFor(o Options) *Server {
	return &Server{idle: make(chan *pgx.Conn, 1), options: localpg.Options{
		Dir: newDir(), Volatile: true, MaxConnections: o.MaxConnections, Settings: maps.Clone(o.Settings),
	}}
}

func (s *Server) start(ctx context.Context) (err error) {
	if s.pg, err = localpg.Start(ctx, s.options); err != nil {
		s.pg = nil
		return err
	}
	s.options.Fresh, s.options.Port = false, s.pg.Port() // another start counts as a restart for the clients
	return nil
}

// makeTemplate migrates a database once and closes its connections: a database with sessions can't be cloned.
func (s *Server) makeTemplate(ctx context.Context) error {
	cfg, err := s.pg.Database(ctx, template, owner)
	if err != nil {
		return err
	}
	if _, err := migrations.Up(ctx, cfg); err != nil {
		return err
	}
	return s.exec("ALTER DATABASE " + template + " ALLOW_CONNECTIONS false")
}

// exec runs statements as a superuser, each on its own.
func (s *Server) exec(statements ...string) error {
	return bounded(func(ctx context.Context) error {
		conn, err := s.superuser(ctx)
		if err != nil {
			return err
		}
		defer s.put(conn)
		for _, sql := range statements {
			if _, err := conn.Exec(ctx, sql); err != nil {
				return fmt.Errorf("%s: %w", sql, err)
			}
		}
		return nil
	})
}

// superuser returns a connection to the database postgres.
func (s *Server) superuser(ctx context.Context) (*pgx.Conn, error) {
	select {
	case conn := <-s.idle:
		if conn.Ping(ctx) == nil {
			return conn, nil
		}
		db.Disconnect(conn)
	default:
	}
	return s.pg.Connect(ctx, "postgres")
}

// put keeps a connection, or closes it.
func (s *Server) put(conn *pgx.Conn) {
	if !s.own && !conn.IsClosed() {
		select {
		case s.idle <- conn:
			return
		default:
		}
	}
	db.Disconnect(conn) // it waits for the slot, which the test may need
}

func (s *Server) disconnect() {
	for len(s.idle) > 0 {
		db.Disconnect(<-s.idle)
	}
}

func (s *Server) remove() error {
	s.disconnect()
	s.resume()
	if s.pg != nil {
		if err := bounded(s.pg.Crash); err != nil { // the data is not needed: no checkpoint
			return err
		}
	}
	err := bounded(func(ctx context.Context) error { return localpg.Remove(ctx, s.options.Dir) })
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// Config is dbtest.Config on this server.
func (s *Server) Config(t testing.TB) config.Database {
	t.Helper()
	name, password := fmt.Sprintf("test_%d", databases.Add(1)), rand.Text()
	strategy := ""
	if s.pg.Version() >= "15" { // else it writes the template to the WAL, which takes longer
		strategy = " STRATEGY FILE_COPY"
	}
	must(t, s.exec(
		"CREATE ROLE "+name+" LOGIN PASSWORD '"+password+"' IN ROLE "+owner,
		"CREATE DATABASE "+name+" TEMPLATE "+template+" OWNER "+name+strategy))
	homes.Store(name, s)
	t.Cleanup(func() { s.drop(t, name) })
	cfg, way := config.Default().Databases["default"], s.pg.Config(name)
	cfg.Name, cfg.User, cfg.Password = name, name, config.Secret(password)
	cfg.Host, cfg.Port, cfg.SSLMode, cfg.ChannelBinding = way.Host, way.Port, way.SSLMode, way.ChannelBinding
	cfg.ConnectTimeout = patience // for slow machines; a test of a server that does not answer needs a shorter one
	return cfg
}

func (s *Server) drop(t testing.TB, name string) {
	homes.Delete(name)
	if s.own {
		return
	}
	err := errors.New("never tried")
	for end, in := time.Now().Add(timeout), true; in && time.Now().Before(end); in = isInUse(err) {
		err = s.exec( // PostgreSQL 12 lacks WITH (FORCE): these are its steps
			"ALTER ROLE "+name+" NOLOGIN",
			"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '"+name+"'",
			"DROP DATABASE IF EXISTS "+name, "DROP ROLE "+name)
	}
	if err != nil {
		t.Error(err)
	}
}

// isInUse reports whether a database can't be dropped yet: the server has waited 5 s for its backends to end.
func isInUse(err error) bool {
	pe, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pe.Code == pgerrcode.ObjectInUse
}

// Open is dbtest.Open on this server.
func (s *Server) Open(t testing.TB) *db.DB {
	t.Helper()
	d, err := db.Open(context.Background(), s.Config(t))
	must(t, err)
	t.Cleanup(func() {
		if err := bounded(d.Close); err != nil {
			t.Error(err)
		}
	})
	return d
}

func serverOf(t testing.TB, cfg config.Database) *Server {
	t.Helper()
	s, ok := homes.Load(cfg.Name)
	if !ok {
		t.Fatalf("%q is not a database that dbtest made for a test that still runs", cfg.Name)
	}
	return s.(*Server)
}

// Control is dbtest.Control on this server.
func (s *Server) Control(t testing.TB, database string) *pgx.Conn {
	t.Helper()
	var conn *pgx.Conn
	must(t, bounded(func(ctx context.Context) (err error) {
		conn, err = s.pg.Connect(ctx, database)
		return err
	}))
	t.Cleanup(func() { _ = bounded(conn.Close) }) // the test may have terminated it
	return conn
}

// The ways in which a server ends.
const (
	Fast      = "fast"      // sessions are terminated, and the data is written
	Immediate = "immediate" // as in a crash: recovery at the next start
)

// Stop stops the server in one of these ways.
func (s *Server) Stop(t testing.TB, mode string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	end := s.pg.Stop
	if mode == Immediate {
		end = s.pg.Crash
	}
	must(t, bounded(end))
}

// Start starts the server again, at the same address.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	must(t, bounded(s.start))
}

// Restart is Stop and Start.
func (s *Server) Restart(t testing.TB, mode string) {
	t.Helper()
	s.Stop(t, mode)
	s.Start(t)
}

// Log returns the server's log, over all its starts.
func (s *Server) Log(t testing.TB) string {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	text, err := os.ReadFile(s.pg.LogFile())
	must(t, err)
	return string(text)
}

// Pause suspends every process of the server. To clients it hangs: it accepts connections but does not answer.
func (s *Server) Pause(t testing.TB) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paused = s.pg.Processes()
	if len(s.paused) == 0 {
		t.Fatal("the server is not running")
	}
	signal(s.paused[:1], system.Stop) // the main process first, so that no new ones start
	s.paused = s.pg.Processes()
	signal(s.paused, system.Stop)
}

// Resume continues a paused server.
func (s *Server) Resume(testing.TB) { s.resume() }

func (s *Server) resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	signal(s.paused, system.Continue)
	s.paused = nil
}

func signal(pids []int, sig syscall.Signal) {
	for _, pid := range pids {
		_ = system.Kill(pid, sig) // fails if the process has ended, which is fine
	}
}
