package scene

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"ddtb/config"
	"ddtb/db"
)

// Stage provides the resources of a scenario's application for one half of a run. They are closed at the end of that
// half. Its methods are safe for concurrent use. A failure of the stage itself, unlike one intended by the scenario,
// fails the run.
type Stage struct {
	server  *Server
	ctx     context.Context
	tally   *tally
	count   atomic.Int64
	samples []Sample
	observe func(Sample)
	last    []func()
	tasks   sync.WaitGroup

	mu    sync.Mutex
	err   error
	after []func()
}

// Context ends with the half, for work beside the requests.
func (s *Stage) Context() context.Context { return s.ctx }

// Slots returns the number of connections for applications on the server.
func (s *Stage) Slots() int { return s.server.slots }

// Count adds to the scenario's own counter.
func (s *Stage) Count(n int) { s.count.Add(int64(n)) }

// Counted is a Value: the sum passed to Count.
func Counted(s *Stage) int { return int(s.count.Load()) }

// FailedFrom is a Value: the failed requests without those before the n-th, from 0.
func FailedFrom(n int) func(*Stage) int {
	return func(s *Stage) int { return countIf(s.tally.failed, func(request int) bool { return request >= n }) }
}

// Slower is a Value: the requests that took longer than the duration.
func Slower(than time.Duration) func(*Stage) int {
	return func(s *Stage) int { return countIf(s.tally.latencies, func(d time.Duration) bool { return d > than }) }
}

// Above is a Value: the peak of backends above n.
func Above(n int) func(*Stage) int {
	return func(s *Stage) int { return max(0, s.peak()-n) }
}

// Afterwards runs f at the end of the half, in reverse order: it cleans up after the failing application.
func (s *Stage) Afterwards(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.after = append(s.after, f)
}

// BeforeCounting runs f after the last request and before the figure is counted. It is for the variant, not its requests.
func (s *Stage) BeforeCounting(f func()) { s.last = append(s.last, f) }

// Go runs f beside the requests. Its context ends with the half, which waits for it.
func (s *Stage) Go(f func(ctx context.Context)) { s.tasks.Go(func() { f(s.ctx) }) }

// Failed records a failure of the stage. It ignores nil, and what fails because the half has ended.
func (s *Stage) Failed(err error) {
	if s.ctx.Err() == nil {
		s.fail(err)
	}
}

func (s *Stage) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = errors.Join(s.err, err)
}

// failure returns why the stage failed, or nil.
func (s *Stage) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Operate executes a statement as superuser.
func (s *Stage) Operate(sql string) {
	s.operate(sql, func(session *pgx.Conn) error {
		_, err := session.Exec(s.ctx, sql)
		return err
	})
}

// Int returns the number that a superuser's statement returns.
func (s *Stage) Int(sql string) (n int) {
	s.operate(sql, func(session *pgx.Conn) error { return session.QueryRow(s.ctx, sql).Scan(&n) })
	return n
}

func (s *Stage) operate(sql string, run func(session *pgx.Conn) error) {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	err := errors.New("the lab's server is stopped")
	if session := s.server.session; session != nil { // a restart that was interrupted leaves none
		err = run(session)
	}
	if err != nil {
		s.Failed(fmt.Errorf("%s: %w", sql, err))
	}
}

// Config returns the application's login.
func (s *Stage) Config() *pgx.ConnConfig { return s.configOf(appRole, "shop") }

func (s *Stage) configOf(role, application string) *pgx.ConnConfig {
	cfg := s.server.config(role)
	cc, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=%d dbname=%s user=%s sslmode=disable sslrootcert='' channel_binding=disable application_name=%s",
		cfg.Host, cfg.Port, cfg.Name, cfg.User, application))
	if err != nil {
		panic(err) // it is our own text
	}
	delete(cc.RuntimeParams, "options") // of PGOPTIONS; a PgBouncer before 1.20 refuses even an empty one
	cc.Password = cfg.Password.Reveal()
	return cc
}

// Connect opens a connection, as an application without a pool does.
func (s *Stage) Connect(ctx context.Context) (*pgx.Conn, error) { return s.ConnectTo(ctx, s.Config()) }

// ConnectTo is Connect with different settings.
func (s *Stage) ConnectTo(ctx context.Context, cc *pgx.ConnConfig) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, cc)
	if err != nil {
		return nil, err
	}
	s.Afterwards(func() { _ = conn.PgConn().Conn().Close() }) // it may be in use
	return conn, nil
}

// Fill has another application on the server occupy n slots, or as many as it gets, until the end of the half.
func (s *Stage) Fill(n int) {
	for range n {
		_, err := s.ConnectTo(s.ctx, s.configOf(otherRole, "billing"))
		if err == nil {
			continue
		}
		if full, ok := errors.AsType[*pgconn.PgError](err); !ok || full.Code != pgerrcode.TooManyConnections {
			s.Failed(fmt.Errorf("the other application's connection: %w", err))
		}
		return
	}
}

// Pool creates a pgxpool of at most size connections. set, if given, changes its other settings.
func (s *Stage) Pool(size int, set ...func(*pgxpool.Config)) *pgxpool.Pool {
	cfg, err := pgxpool.ParseConfig("")
	if err != nil {
		panic(err) // an empty string is valid
	}
	cfg.ConnConfig, cfg.MaxConns = s.Config(), int32(size)
	for _, f := range set {
		f(cfg)
	}
	pool, err := pgxpool.NewWithConfig(s.ctx, cfg)
	if err != nil {
		panic(err) // it does not connect, and the scenario's settings are fixed
	}
	s.Afterwards(func() { s.closePool(pool) })
	return pool
}

// closePool waits for the leases. By now they are released, unless a scenario leaks one without Afterwards.
func (s *Stage) closePool(pool *pgxpool.Pool) {
	closed := make(chan struct{})
	go func() { defer close(closed); pool.Close() }()
	select {
	case <-closed:
	case <-time.After(5 * time.Second):
		s.fail(errors.New("a pool did not close: a lease is out that the scenario does not give back at its end"))
	}
}

// DB opens this project's db on the server. set changes the default settings.
func (s *Stage) DB(set func(*config.Database)) *db.DB {
	cfg := s.server.config(appRole)
	cfg.ApplicationName = "shop"
	if set != nil {
		set(&cfg)
	}
	d, err := db.OpenWith(cfg, db.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err) // it does not connect, and the scenario's settings are fixed
	}
	s.Afterwards(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = d.Close(ctx) // leaked leases are reclaimed
	})
	return d
}

// RestartAfter crashes the server after d, and starts it again at the same address.
func (s *Stage) RestartAfter(d time.Duration) {
	s.Go(func(ctx context.Context) {
		if Sleep(ctx, d) == nil {
			s.Restart()
		}
	})
}

// Restart crashes the server and starts it again at the same address.
func (s *Stage) Restart() {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	s.Failed(s.server.restart(s.ctx))
}

// Sleep waits for d or until ctx ends.
func Sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// free returns an unused address on this machine.
func (s *Stage) free() (*net.TCPAddr, error) {
	l, err := s.listen()
	if err != nil {
		return nil, err
	}
	return l.Addr().(*net.TCPAddr), l.Close()
}

// close closes the half's resources.
func (s *Stage) close(cancel context.CancelFunc) {
	cancel()
	s.tasks.Wait()
	s.mu.Lock()
	after := s.after
	s.mu.Unlock()
	for _, f := range slices.Backward(after) {
		f()
	}
}
