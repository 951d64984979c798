package scene

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/config"
	"ddtb/db/localpg"
	"ddtb/db/localpg/system"
)

const (
	dirPrefix    = "ddtb-lab-"
	appRole      = "lab"       // as whom scenarios connect, and their database
	otherRole    = "neighbour" // another application on the server, and its database
	reserved     = "3"         // superuser_reserved_connections, PostgreSQL's default
	notForSlots  = 3 + 1       // the reserved connections, and the lab's own session
	stopPatience = 10 * time.Second
)

// settings are the server's. A standby can follow a server with these, and finds it soon after it has started.
var settings = map[string]string{
	"superuser_reserved_connections": reserved, "wal_level": "replica", "max_wal_senders": "4",
	"wal_retrieve_retry_interval": "100ms",
}

// Server is the lab's private PostgreSQL. It starts at the first run, and serves one run at a time.
type Server struct {
	log  *slog.Logger
	dir  string
	lock *os.File // held until the lab is closed, also while PostgreSQL restarts

	mu      sync.Mutex // held while the server starts or stops, and while the session is used
	options localpg.Options
	pg      *localpg.Server // nil: not started yet
	slots   int
	logins  map[string]config.Database // by role
	session *pgx.Conn                  // a superuser's; nil while the server is stopped
}

// Open creates the lab's server in a new directory below the system's temporary directory. It removes what a killed lab
// left there. The caller must Close it.
func Open(ctx context.Context, log *slog.Logger) (*Server, error) {
	removeLeftovers(ctx, log)
	dir, err := os.MkdirTemp("", dirPrefix)
	if err != nil {
		return nil, fmt.Errorf("the lab needs a temporary directory; set TMPDIR to another one: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &Server{
		log: log, dir: dir, lock: lock,
		options: localpg.Options{Dir: filepath.Join(dir, "pg"), Volatile: true, Settings: settings},
	}, os.Chmod(dir, 0o711) //nolint:gosec // for root the server runs as another user, who must get to its own part
}

// lockDir locks the directory against other labs. The kernel releases the lock when the process ends.
func lockDir(dir string) (*os.File, error) {
	f, err := system.OpenLock(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	if _, err := system.TryLock(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// removeLeftovers removes the directories of labs that are not running: those without a lock.
func removeLeftovers(ctx context.Context, log *slog.Logger) {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"*")) // only fails for a malformed pattern
	for _, dir := range dirs {
		if err := removeLeftover(ctx, dir); err != nil {
			log.Warn("the files of an earlier lab can't be removed", "dir", dir, "error", err)
		}
	}
}

// removeLeftover keeps a directory that is in use, being created, or not a lab's.
func removeLeftover(ctx context.Context, dir string) error {
	pg := filepath.Join(dir, "pg")
	if _, err := os.Lstat(pg); err != nil {
		return nil
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil
	}
	return errors.Join(localpg.Remove(ctx, pg), os.RemoveAll(dir), lock.Close())
}

// Close stops the server and removes its data. It may be called twice.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lock == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopPatience)
	defer cancel()
	var errs []error
	if s.pg != nil {
		errs = append(errs, s.stop(ctx), localpg.Remove(ctx, s.options.Dir))
	}
	errs = append(errs, os.RemoveAll(s.dir), s.lock.Close())
	s.lock = nil
	return errors.Join(errs...)
}

// ensure makes the server run with that many application slots, a new table, and no sessions of the run before.
func (s *Server) ensure(ctx context.Context, slots int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session == nil || s.session.IsClosed() || s.slots != slots {
		s.slots, s.options.MaxConnections = slots, slots+notForSlots
		if err := s.restart(ctx); err != nil {
			return err
		}
	}
	if err := s.endSessions(ctx); err != nil {
		return err
	}
	_, err := s.session.Exec(ctx, `
		ALTER ROLE `+otherRole+` CONNECTION LIMIT -1;
		DROP TABLE IF EXISTS polls;
		CREATE TABLE polls (id int PRIMARY KEY, question text NOT NULL, votes int NOT NULL DEFAULT 0);
		ALTER TABLE polls OWNER TO `+appRole+`;
		INSERT INTO polls SELECT n, 'What''s up?' FROM generate_series(1, 1000) n`)
	return err
}

// restart crashes the server, if it runs, and starts it at the same address.
func (s *Server) restart(ctx context.Context) error {
	if s.pg != nil {
		if err := s.stop(ctx); err != nil {
			return err
		}
	}
	pg, err := localpg.Start(ctx, s.options)
	if err != nil {
		return err
	}
	s.pg, s.options.Port = pg, pg.Port()
	if len(s.logins) == 0 { // later a change may wait for a standby
		if err := s.makeDatabases(ctx); err != nil {
			return fmt.Errorf("the lab's databases: %w", err)
		}
	}
	s.session, err = pg.Connect(ctx, appRole)
	return err
}

func (s *Server) makeDatabases(ctx context.Context) (err error) {
	logins := map[string]config.Database{}
	for _, role := range []string{appRole, otherRole} {
		if logins[role], err = s.pg.Database(ctx, role, role); err != nil {
			return err
		}
	}
	s.logins = logins
	return nil
}

func (s *Server) stop(ctx context.Context) error {
	if s.session != nil {
		_ = s.session.Close(ctx) // the server may have stopped
		s.session = nil
	}
	return s.pg.Crash(ctx) // the data are not needed: no checkpoint
}

// endSessions ends all sessions except the lab's, and waits until they are closed.
func (s *Server) endSessions(ctx context.Context) error {
	return until(ctx, "the sessions of the run before do not end", func(ctx context.Context) (ended bool, err error) {
		err = s.session.QueryRow(ctx, `SELECT count(pg_terminate_backend(pid)) = 0 FROM pg_stat_activity
			WHERE backend_type = 'client backend' AND usename IS DISTINCT FROM '`+localpg.Superuser+`'`).Scan(&ended)
		return ended, err
	})
}

// until polls until done reports true or an error, for stopPatience at most. problem describes the timeout.
func until(ctx context.Context, problem string, done func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, stopPatience)
	defer cancel()
	for {
		if ok, err := done(ctx); ok || err != nil {
			return err
		}
		if err := Sleep(ctx, 10*time.Millisecond); err != nil {
			return fmt.Errorf("%s: %w", problem, err)
		}
	}
}

// Operator returns the superuser's login, to inspect the server during a run. It is available from the first sample of
// a run.
func (s *Server) Operator() config.Database {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pg.Config(appRole)
}

// config returns a role's login, with the default settings.
func (s *Server) config(role string) config.Database {
	cfg, login := config.Default().Databases["default"], s.logins[role]
	cfg.Name, cfg.User, cfg.Password = login.Name, login.User, login.Password
	cfg.Host, cfg.Port, cfg.SSLMode, cfg.ChannelBinding = login.Host, login.Port, login.SSLMode, login.ChannelBinding
	return cfg
}
