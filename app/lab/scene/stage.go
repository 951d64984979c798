package scene

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"ddtb/config"
	"ddtb/db"
)

// Stage is what the application of a scenario is built on, for one half of a run. Everything that it hands out is
// closed at the end of that half. Its methods are safe for concurrent use. A failure of the stage itself, as opposed to
// one that the scenario wants, fails the run.
type Stage struct {
	server *Server
	ctx    context.Context
	tally  *tally
	count  atomic.Int64

	mu    sync.Mutex
	err   error
	cut   []func() // done before after: what stands between the clients and the server
	after []func()
	last  []func()
	tasks sync.WaitGroup
	peak  func() int
}

// Context ends with the half of the run, for what goes on beside the requests.
func (s *Stage) Context() context.Context { return s.ctx }

// Slots is how many connections the server has for applications.
func (s *Stage) Slots() int { return s.server.slots }

// Count adds to what the scenario counts by itself.
func (s *Stage) Count(n int) { s.count.Add(int64(n)) }

// Counted is the sum of what Count was given. It is a Value.
func Counted(s *Stage) int { return int(s.count.Load()) }

// Slower is a Value: the requests that took longer.
func Slower(than time.Duration) func(*Stage) int {
	return func(s *Stage) int { return s.tally.slower(than) }
}

// Above is a Value: how far the peak of backends went above n.
func Above(n int) func(*Stage) int {
	return func(s *Stage) int { return max(0, s.peak()-n) }
}

// Afterwards is done at the end of the half, the last first: for what the failing application leaves behind.
func (s *Stage) Afterwards(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.after = append(s.after, f)
}

// BeforeCounting is done after the last request, before the figure is counted: for what sends in the background.
func (s *Stage) BeforeCounting(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = append(s.last, f)
}

func (s *Stage) flush() {
	s.mu.Lock()
	last := s.last
	s.last = nil
	s.mu.Unlock()
	for _, f := range last {
		f()
	}
}

// Go runs f beside the requests; its context ends with the half, which waits for it.
func (s *Stage) Go(f func(ctx context.Context)) { s.tasks.Go(func() { f(s.ctx) }) }

// Failed notes a failure of the stage.
func (s *Stage) Failed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = errors.Join(s.err, err)
}

// Operate runs a statement as the server's superuser.
func (s *Stage) Operate(sql string) {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	if _, err := s.server.operator.Exec(s.ctx, sql); err != nil && s.ctx.Err() == nil {
		s.Failed(fmt.Errorf("%s: %w", sql, err))
	}
}

// Sessions is how many connections the server has accepted for the database, ever.
func (s *Stage) Sessions() (n int) {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	err := s.server.operator.QueryRow(s.ctx, "SELECT sessions FROM pg_stat_database WHERE datname = $1", database).Scan(&n)
	if err != nil && s.ctx.Err() == nil {
		s.Failed(err)
	}
	return n
}

// Config is the application's way to the server.
func (s *Stage) Config() *pgx.ConnConfig { return s.configOf(appRole) }

func (s *Stage) configOf(role string) *pgx.ConnConfig {
	cfg := s.server.config(role)
	cc, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=%d dbname=%s user=%s sslmode=disable application_name=shop",
		cfg.Host, cfg.Port, cfg.Name, cfg.User))
	if err != nil {
		panic(err) // it is our own text
	}
	cc.Password = cfg.Password.Reveal()
	return cc
}

// Connect opens a connection, as an application without a pool does.
func (s *Stage) Connect(ctx context.Context) (*pgx.Conn, error) { return s.ConnectTo(ctx, s.Config()) }

// ConnectAsNeighbour opens one for another application on the same server.
func (s *Stage) ConnectAsNeighbour(ctx context.Context) (*pgx.Conn, error) {
	cc := s.configOf(otherRole)
	cc.RuntimeParams["application_name"] = "billing"
	return s.ConnectTo(ctx, cc)
}

// ConnectTo is Connect with other settings.
func (s *Stage) ConnectTo(ctx context.Context, cc *pgx.ConnConfig) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, cc)
	if err != nil {
		return nil, err
	}
	s.Afterwards(func() { hangUp(conn) })
	return conn, nil
}

// hangUp closes a connection that others may be using.
func hangUp(conn *pgx.Conn) { _ = conn.PgConn().Conn().Close() }

// Fill takes n slots for another application, until the end of the half.
func (s *Stage) Fill(n int) {
	for range n {
		if _, err := s.ConnectAsNeighbour(s.ctx); err != nil && s.ctx.Err() == nil {
			s.Failed(err)
			return
		}
	}
}

// Pool makes a pgxpool of at most size connections. set, where there is one, changes the rest of its settings.
func (s *Stage) Pool(size int, set ...func(*pgxpool.Config)) *pgxpool.Pool {
	cfg, err := pgxpool.ParseConfig("")
	if err != nil {
		panic(err) // an empty text can be parsed
	}
	cfg.ConnConfig, cfg.MaxConns = s.Config(), int32(size)
	for _, f := range set {
		f(cfg)
	}
	pool, err := pgxpool.NewWithConfig(s.ctx, cfg)
	if err != nil {
		panic(err) // it connects to nothing, and the settings are the scenario's own
	}
	s.Afterwards(func() { s.closePool(pool) })
	return pool
}

// closePool waits for the leases, which have come back by now, or a scenario forgot to give what it leaks to Afterwards.
func (s *Stage) closePool(pool *pgxpool.Pool) {
	closed := make(chan struct{})
	go func() { defer close(closed); pool.Close() }()
	select {
	case <-closed:
	case <-time.After(5 * time.Second):
		s.Failed(errors.New("a pool did not close: a lease is out that the scenario does not give back at its end"))
	}
}

// DB opens the project's own db on the server, with the default settings but for what set changes.
func (s *Stage) DB(set func(*config.Database)) *db.DB {
	cfg := s.server.config(appRole)
	cfg.ApplicationName = "shop"
	if set != nil {
		set(&cfg)
	}
	d, err := db.OpenWith(cfg, db.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err) // it connects to nothing, and the settings are the scenario's own
	}
	s.Afterwards(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = d.Close(ctx) // what the application leaked is taken back
	})
	return d
}

// Restart crashes the server and starts it again, at the same address.
func (s *Stage) Restart() {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	if err := s.server.stop(s.ctx); err != nil {
		s.Failed(err)
		return
	}
	if err := s.server.start(s.ctx); err != nil && s.ctx.Err() == nil {
		s.Failed(err)
	}
}

// Sleep waits, unless ctx ends first.
func Sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// free is an address on this machine that nothing listens on.
func free(ctx context.Context) (*net.TCPAddr, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return l.Addr().(*net.TCPAddr), l.Close()
}

// close ends what the half used. Backends are terminated first, so that no client waits for an answer.
func (s *Stage) close(cancel context.CancelFunc) {
	cancel()
	s.tasks.Wait()
	s.mu.Lock()
	after := append(s.after, s.cut...) //nolint:gocritic // both are done with
	s.after, s.cut = nil, nil
	s.mu.Unlock()
	for i := len(after) - 1; i >= 0; i-- {
		after[i]()
	}
}
