package db_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

func TestSettingsOutOfBoundsAreRefusedWithTheirName(t *testing.T) {
	for name, set := range map[string]func(*db.Settings){
		"pool.max_size":            func(s *db.Settings) { s.Pool.MaxSize = 0 },
		"pool.min_size":            func(s *db.Settings) { s.Pool.MinSize = -1 },
		"pool.timeout":             func(s *db.Settings) { s.Pool.Timeout = 0 },
		"pool.max_idle":            func(s *db.Settings) { s.Pool.MaxIdle = -time.Second },
		"pool.max_lifetime":        func(s *db.Settings) { s.Pool.MaxLifetime = 0 },
		"pool.health_check_period": func(s *db.Settings) { s.Pool.HealthCheckPeriod = 0 },
		"pool.hold":                func(s *db.Settings) { s.Pool.Hold = "session" },
		"pool.max_size is 4294967296, and must be at most 10000": func(s *db.Settings) { s.Pool.MaxSize = 1 << 32 },
		"pool.min_size is 4294967296, and must be at most 10000": func(s *db.Settings) { s.Pool.MaxSize, s.Pool.MinSize = db.Auto, 1<<32 },
		`reset is "never": use auto or always`:                   func(s *db.Settings) { s.Reset = "never" },
		`pooler is "odyssey": use pgbouncer`:                     func(s *db.Settings) { s.Pooler = "odyssey" },
		"persistent.conn_max_age":                                func(s *db.Settings) { s.Strategy, s.Persistent.ConnMaxAge = db.Persistent, -time.Minute },
		"per_request.timeout":                                    func(s *db.Settings) { s.Strategy, s.PerRequest.MaxSize, s.PerRequest.Timeout = db.PerRequest, 1, 0 },
		"per_request.max_size":                                   func(s *db.Settings) { s.Strategy, s.PerRequest.MaxSize = db.PerRequest, -1 },
		"persistent.workers":                                     func(s *db.Settings) { s.Strategy, s.Persistent.Workers = db.Persistent, -1 },
		"connect_timeout":                                        func(s *db.Settings) { s.ConnectTimeout = 0 },
		"query_timeout":                                          func(s *db.Settings) { s.QueryTimeout = -1 },
		"statement_timeout is -1ns, and must be at least 0s":     func(s *db.Settings) { s.StatementTimeout = -1 },
		"statement_timeout is 1000h0m0s, and must be at most":    func(s *db.Settings) { s.StatementTimeout = 1000 * time.Hour },
		"pool.leak_after":                                        func(s *db.Settings) { s.Pool.LeakAfter = -1 },
		"pool.reclaim_after":                                     func(s *db.Settings) { s.Pool.ReclaimAfter = -1 },
		"pool.max_waiting":                                       func(s *db.Settings) { s.Pool.MaxWaiting = -1 },
		"multiplex.connections is 1099511627776, and must be at": func(s *db.Settings) { s.Strategy, s.Multiplex.Connections = db.Multiplex, 1<<40 },
		"multiplex.connections":                                  func(s *db.Settings) { s.Strategy, s.Multiplex.Connections = db.Multiplex, 0 },
		`unknown strategy "pooling"`:                             func(s *db.Settings) { s.Strategy = "pooling" },
	} {
		t.Run(name, func(t *testing.T) {
			s := db.DefaultSettings()
			set(&s)
			if _, err := db.NewSource(s, db.Options{}); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("NewSource: %v", err)
			}
			if _, err := db.Open(t.Context(), s); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("Open: %v", err)
			}
		})
	}
}

func TestALeaseIsOfNoUseAfterItsRelease(t *testing.T) {
	everyStrategy(t, func(t *testing.T, set func(*config.Database)) {
		d, _, _ := open(t, set)
		l, err := d.Acquire(t.Context())
		must(t, err)
		l.Release()
		defer func() {
			if thrown := recover(); fmt.Sprint(thrown) != "db: Lease.Conn after Release" {
				t.Errorf("Conn panics with %v", thrown)
			}
		}()
		l.Conn()
	})
}

func TestAContextThatHasEndedTakesNoConnection(t *testing.T) {
	everyStrategy(t, func(t *testing.T, set func(*config.Database)) {
		d, _, _ := open(t, set)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := d.Acquire(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Acquire: %v", err)
		}
		if _, err := d.Read().Query(ctx, "SELECT 1"); !errors.Is(err, context.Canceled) {
			t.Errorf("Read: %v", err)
		}
		if s := d.Stat(); s.Connects != 0 || s.Leases != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestAServerThatAnswersGarbageIsUnavailable(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			_ = c.Close()
		}
	}()
	everyStrategy(t, func(t *testing.T, set func(*config.Database)) {
		cfg := dbtest.Config(t)
		set(&cfg)
		cfg.Host, cfg.Port = "127.0.0.1", l.Addr().(*net.TCPAddr).Port
		d, err := db.Open(t.Context(), cfg)
		must(t, err)
		defer func() { _ = d.Close(context.Background()) }()
		if _, err := d.Exec(t.Context(), "SELECT 1"); db.CauseOf(err) != db.ServerUnavailable && db.CauseOf(err) != db.CircuitOpen {
			t.Error(err)
		}
	})
}

func TestAConnectionThatItsHolderClosedIsNotGivenToTheNextOne(t *testing.T) {
	everyStrategy(t, func(t *testing.T, set func(*config.Database)) {
		d, _, _ := open(t, set)
		for range 3 {
			l, err := d.Acquire(t.Context())
			must(t, err)
			if err := l.Conn().Close(t.Context()); err != nil {
				t.Error(err)
			}
			l.Release()
			one(t, d, t.Context())
		}
		dbtest.Eventually(t, "every lease is released", func() bool { return d.Stat().Leases == 0 })
	})
}

// broken is a strategy whose connections are closed before it gives them out.
type broken struct{ *db.Connector }

func init() {
	db.Register(db.Spec{
		Name: "broken", Description: "for tests: it gives out closed connections",
		Size: func(db.Settings) int { return 1 }, SizeKey: "pool.max_size", Backends: func(db.Settings) int { return 1 },
		Timeout:         func(db.Settings) time.Duration { return time.Second },
		HoldsForRequest: func(db.Settings) bool { return false },
		Show:            func(db.Settings) []db.Setting { return nil },
		New:             func(_ db.Settings, c *db.Connector) (db.Strategy, error) { return broken{c}, nil },
	})
}

func (b broken) Acquire(ctx context.Context, l *db.Lease) error {
	conn, err := b.Connect(ctx)
	if err == nil {
		b.CloseConn(conn)
		l.Attach(conn, nil)
	}
	return err
}

func (broken) Release(*db.Lease)       {}
func (broken) Forget(*db.Lease)        {}
func (broken) Idle() int               { return 0 }
func (broken) Refresh(context.Context) {}
func (broken) Retire(context.Context)  {}
func (broken) Close()                  {}

func TestAStrategyThatGivesOutClosedConnectionsCostsErrorsAndNoPlace(t *testing.T) {
	d, _, _ := open(t, func(c *config.Database) { c.Strategy = "broken" })
	for range 3 { // the one place has to be free again
		if _, err := d.Exec(t.Context(), "SELECT 1"); db.CauseOf(err) != db.ServerUnavailable {
			t.Errorf("Exec: %v", err)
		}
		if err := d.QueryRow(t.Context(), "SELECT 1").Scan(new(int)); db.CauseOf(err) != db.ServerUnavailable {
			t.Errorf("QueryRow: %v", err)
		}
		if err := d.InTx(t.Context(), func(db.Querier) error { return nil }); db.CauseOf(err) != db.ServerUnavailable {
			t.Errorf("InTx: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if _, err := d.Read().Exec(ctx, "SELECT 1"); err == nil { // retried until the deadline, which may be the error
			t.Error("Read found no error")
		}
		cancel()
	}
}

func TestAPoolThatCanNotGrowServesWithWhatItHas(t *testing.T) {
	for name, set := range map[string]func(*config.Database){
		"pool": pool, "persistent workers": func(c *config.Database) { persistent(c); c.Persistent.Workers = 8 },
	} {
		t.Run(name, func(t *testing.T) {
			d, control, cfg := open(t, func(c *config.Database) { set(c); c.Pool.MaxSize = 8 })
			run(t, control, fmt.Sprintf("ALTER DATABASE %s CONNECTION LIMIT 3", pgx.Identifier{cfg.Name}.Sanitize()))
			one(t, d, t.Context())
			var all sync.WaitGroup
			for range 20 {
				all.Go(func() {
					if _, err := d.Exec(t.Context(), "SELECT pg_sleep(0.05)"); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
		})
	}
}

func TestAConnectionReleasedWhileAnotherIsRefusedServesTheRequest(t *testing.T) {
	cfg := dbtest.Config(t)
	direct := dbtest.Control(t, cfg)
	cfg.Strategy, cfg.Pool.MaxSize = db.Pool, 2
	wire := proxied(t, &cfg)
	d, err := db.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close(context.Background()) }()
	first, err := d.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	run(t, direct, fmt.Sprintf("ALTER DATABASE %s CONNECTION LIMIT 1", pgx.Identifier{cfg.Name}.Sanitize()))
	if _, err := wire.Toxics.AddToxicJson(strings.NewReader(`{"type": "latency", "stream": "upstream", "attributes": {"latency": 100}}`)); err != nil {
		t.Fatal(err)
	}
	second := make(chan error, 1)
	go func() {
		l, err := d.Acquire(t.Context())
		if err == nil {
			l.Release()
		}
		second <- err
	}()
	dbtest.Eventually(t, "the second connects", func() bool { return d.Stat().Connecting == 1 })
	first.Release()
	if err := <-second; err != nil {
		t.Errorf("the pool has an idle connection, and yet: %v", err)
	}
}

func TestACallersTimeIsNamedWhereItWasTooShortToConnect(t *testing.T) {
	for _, name := range db.Names() {
		t.Run(name, func(t *testing.T) {
			cfg := dbtest.Config(t)
			cfg.Strategy = name
			wire := proxied(t, &cfg)
			if _, err := wire.Toxics.AddToxicJson(strings.NewReader(`{"type": "latency", "stream": "upstream", "attributes": {"latency": 100}}`)); err != nil {
				t.Fatal(err)
			}
			d, err := db.Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = d.Close(context.Background()) }()
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if _, err := d.Exec(ctx, "SELECT 1"); err == nil || !strings.Contains(err.Error(), "did not end within the time that its caller has") {
				t.Errorf("it says: %v", err)
			}
		})
	}
}

func TestAKeptConnectionIsCheckedBeforeItsFirstUseAfterAPause(t *testing.T) {
	d, control, cfg := open(t, func(c *config.Database) { persistent(c); c.Persistent.Workers = 1 })
	one(t, d, t.Context())
	run(t, control, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '"+cfg.ApplicationName+"/persistent'")
	dbtest.Eventually(t, "the session has ended", func() bool {
		return dbtest.Backends(t, control, cfg.ApplicationName+"/persistent") == 0
	})
	<-time.After(1100 * time.Millisecond) // the pause
	if _, err := d.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Error(err)
	}
}
