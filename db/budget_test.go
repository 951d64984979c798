package db_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
	"ddtb/db/logtest"
)

// auto is a pool whose size follows the budget.
func auto(budget int) func(*config.Database) {
	return func(c *config.Database) { c.Strategy, c.Pool.MaxSize, c.Budget = db.Pool, db.Auto, budget }
}

// openAgain opens another DB on the same database, as another process would.
func openAgain(t *testing.T, cfg config.Database, o db.Options) *db.DB {
	t.Helper()
	d, err := db.OpenWith(cfg, o)
	must(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := d.Close(ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return d
}

// crowded makes n clients query d repeatedly, until end, which returns how many requests failed and why.
func crowded(d *db.DB, n int) (end func() (requests int, failed []error)) {
	var mu sync.Mutex
	var clients sync.WaitGroup
	var requests int
	var failed []error
	var once sync.Once
	began := make(chan struct{})
	ctx, stop := context.WithCancel(context.Background())
	for range n {
		clients.Go(func() {
			for ctx.Err() == nil {
				_, err := d.Exec(context.Background(), "SELECT pg_sleep(0.005)")
				mu.Lock()
				requests++
				if err != nil {
					failed = append(failed, err)
				}
				mu.Unlock()
				once.Do(func() { close(began) })
			}
		})
	}
	return func() (int, []error) {
		<-began
		stop()
		clients.Wait()
		return requests, failed
	}
}

func mustServe(t *testing.T, end func() (int, []error)) {
	t.Helper()
	requests, failed := end()
	if requests == 0 || len(failed) > 0 {
		t.Errorf("%d of %d requests failed: %v", len(failed), requests, errors.Join(failed[:min(3, len(failed))]...))
	}
}

func held(t *testing.T, d *db.DB, n int) (release func()) {
	t.Helper()
	var leases []*db.Lease
	for range n {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		l, err := d.Acquire(ctx)
		must(t, err)
		leases = append(leases, l)
	}
	return func() {
		for _, l := range leases {
			l.Release()
		}
	}
}

func TestAPoolOfAutomaticSizeGrowsToTheBudget(t *testing.T) {
	dbtest.NoLeaks(t)
	d, control, cfg := open(t, auto(4))
	release := held(t, d, 4)
	if s := d.Stat(); s.Budget != 4 || s.Tickets != 4 || s.TicketsFree != 0 || s.TicketsOthers != 0 || s.Size != 4 {
		t.Errorf("%+v", s)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := d.Acquire(ctx); db.CauseOf(err) != db.PoolTimeout {
		t.Errorf("a fifth lease: %v", err)
	}
	if n := dbtest.Backends(t, control, cfg.ApplicationName+"/pool"); n != 4 {
		t.Errorf("%d backends", n)
	}
	release()
	if n := scan[int](t, control, `SELECT count(*) FROM pg_stat_activity WHERE application_name = $1`, cfg.ApplicationName+"/monitor"); n != 1 {
		t.Errorf("%d monitoring connections", n)
	}
}

func TestAnIdleProcessGivesItsConnectionsToOneThatNeedsThem(t *testing.T) {
	dbtest.NoLeaks(t)
	idle, control, cfg := open(t, auto(4))
	held(t, idle, 4)()
	cfg.ApplicationName = "busy"
	busy := openAgain(t, cfg, db.Options{})
	end := crowded(busy, 8)
	began := time.Now()
	dbtest.Eventually(t, "the busy one has all but one", func() bool { return dbtest.Backends(t, control, "busy/pool") == 3 })
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("after %v", took)
	}
	if s := idle.Stat(); s.Tickets != 1 {
		t.Errorf("the idle one has %d", s.Tickets)
	}
	t.Run("and has its share again when it needs it", func(t *testing.T) {
		endOther := crowded(idle, 8)
		dbtest.Eventually(t, "both have two", func() bool { return idle.Stat().Tickets == 2 && busy.Stat().Tickets == 2 })
		mustServe(t, endOther)
	})
	mustServe(t, end)
}

func TestALeaseThatIsOutIsGivenBackToTheBudgetWhenItComesBack(t *testing.T) {
	dbtest.NoLeaks(t)
	d, _, cfg := open(t, auto(2))
	release := held(t, d, 2)
	served := make(chan error, 1)
	other := openAgain(t, cfg, db.Options{})
	go func() {
		_, err := other.Exec(context.Background(), "SELECT 1")
		served <- err
	}()
	dbtest.Eventually(t, "the other waits", func() bool { return other.Stat().Waiting == 1 })
	release()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestASessionKeepsItsTicketWhenItIsReset(t *testing.T) {
	dbtest.NoLeaks(t)
	d, control, _ := open(t, auto(1))
	change := func(sql string) (pid uint32) {
		t.Helper()
		l, err := d.Acquire(t.Context())
		must(t, err)
		defer l.Release()
		run(t, l.Conn(), sql)
		return l.PID()
	}
	const tickets = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid::bigint = $1 AND pid = $2"
	first := change("SET work_mem = '77MB'")
	if n := scan[int](t, control, tickets, db.TicketClass, first); n != 1 {
		t.Errorf("the session has %d tickets after its reset", n)
	}
	if second := change("SELECT pg_advisory_lock(42)"); second != first {
		t.Error("the session was not used again")
	}
	if third := change("SELECT pg_advisory_unlock_all()"); third == first {
		t.Error("a session with a lock of its holder was used again")
	} else if fourth := change("SELECT 1"); fourth == third {
		t.Error("a session without its ticket was used again")
	}
}

func TestASessionWhoseTicketAnotherOneHasIsClosed(t *testing.T) {
	d, control, cfg := open(t, auto(2))
	l, err := d.Acquire(t.Context())
	must(t, err)
	ticket := scan[int](t, control, "SELECT objid::int FROM pg_locks WHERE locktype = 'advisory' AND classid::bigint = $1 AND pid = $2", db.TicketClass, l.PID())
	l.Release()
	run(t, control, fmt.Sprintf("SELECT pg_advisory_lock(%d, %d)", db.TicketClass, 3-ticket)) // the other one
	if _, err := d.Exec(t.Context(), "SELECT pg_advisory_unlock_all()"); err != nil {         // the session's next lease does not notice
		t.Fatal(err)
	}
	held(t, d, 2)()
	dbtest.Eventually(t, "one session is left", func() bool { return dbtest.Backends(t, control, cfg.ApplicationName+"/pool") == 1 })
}

// The driver takes the primary after it has refused it once, without asking again.
func TestEachConnectionHasATicketWhereAStandbyIsPreferredAndNoneIsThere(t *testing.T) {
	d, control, cfg := open(t, func(c *config.Database) {
		auto(2)(c)
		c.TargetSessionAttrs = "prefer-standby"
	})
	for range 4 {
		held(t, d, 2)()
		if n := d.Stat().Tickets; n != 2 {
			t.Errorf("%d tickets for 2 connections", n)
		}
		dbtest.KillBackends(t, control, cfg.ApplicationName+"/pool")
		dbtest.Eventually(t, "they have ended", func() bool { return dbtest.Backends(t, control, cfg.ApplicationName+"/pool") == 0 })
		<-time.After(2 * time.Millisecond) // the socket of a connection used within the last millisecond is not checked
	}
	const tickets = "SELECT count(DISTINCT objid) FROM pg_locks WHERE locktype = 'advisory' AND classid::bigint = $1"
	dbtest.Eventually(t, "no lock is left beside those of the pool", func() bool {
		return scan[int](t, control, tickets, db.TicketClass) <= 2
	})
}

func TestTheBudgetIsKeptWithoutTheMonitoringConnection(t *testing.T) {
	dbtest.NoLeaks(t)
	d, control, cfg := open(t, auto(3))
	end := crowded(d, 6)
	dbtest.Eventually(t, "it has all", func() bool { return d.Stat().Tickets == 3 })
	other := openAgain(t, cfg, db.Options{})
	endOther := crowded(other, 6)
	for range 5 {
		dbtest.KillBackends(t, control, cfg.ApplicationName+"/monitor")
		for range 20 {
			n, looks := 4, 0
			for ; n > 3 && looks < 10; looks++ { // for a moment there may be one more: see Auto
				if n = dbtest.Backends(t, control, cfg.ApplicationName+"/pool"); n > 3 {
					<-time.After(20 * time.Millisecond)
				}
			}
			if n > 3 {
				t.Errorf("%d connections, in %d looks", n, looks)
			}
			_ = scan[string](t, control, "SELECT pg_sleep(0.01)::text")
		}
	}
	dbtest.Eventually(t, "both have a share", func() bool {
		a, b := d.Stat().Tickets, other.Stat().Tickets
		return a+b == 3 && a > 0 && b > 0
	})
	mustServe(t, end)
	mustServe(t, endOther)
}

func TestTheBudgetSurvivesARestartOfTheServer(t *testing.T) {
	dbtest.NoLeaks(t)
	s := dbtest.NewServer(t, dbtest.Options{})
	cfg := s.Config(t)
	auto(3)(&cfg)
	d := openAgain(t, cfg, db.Options{})
	held(t, d, 3)()
	s.Stop(t, dbtest.Fast)
	_, err := d.Exec(t.Context(), "SELECT 1")
	if cause := db.CauseOf(err); cause != db.ServerUnavailable && cause != db.CircuitOpen {
		t.Errorf("while the server is down: %v", err)
	}
	s.Start(t)
	dbtest.Eventually(t, "it serves", func() bool {
		_, err := d.Exec(t.Context(), "SELECT 1")
		return err == nil
	})
	end := crowded(d, 6)
	dbtest.Eventually(t, "it has all", func() bool { return d.Stat().Tickets == 3 })
	mustServe(t, end)
	if n := dbtest.Backends(t, dbtest.Control(t, cfg), cfg.ApplicationName+"/pool"); n > 3 {
		t.Errorf("%d connections", n)
	}
}

func TestFewerConnectionsThanProcessesTakeTurns(t *testing.T) {
	dbtest.NoLeaks(t)
	d, control, cfg := open(t, auto(1))
	served := make(chan int, 100)
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for i, x := range []*db.DB{d, openAgain(t, cfg, db.Options{}), openAgain(t, cfg, db.Options{})} {
		all.Go(func() {
			for ctx.Err() == nil {
				if _, err := x.Exec(context.Background(), "SELECT pg_sleep(0.01)"); err != nil {
					t.Errorf("process %d: %v", i, err)
				}
				select {
				case served <- i:
				case <-ctx.Done():
				}
			}
		})
	}
	seen := map[int]bool{}
	for i := range served {
		if seen[i] = true; len(seen) == 3 {
			break
		}
		if n := dbtest.Backends(t, control, cfg.ApplicationName+"/pool"); n > 1 {
			t.Fatalf("%d connections", n)
		}
	}
	stop()
	all.Wait()
}

func TestABudgetLargerThanTheServerIsKeptBelowWhatThereIs(t *testing.T) {
	dbtest.NoLeaks(t)
	s := dbtest.NewServer(t, dbtest.Options{MaxConnections: 10})
	cfg := s.Config(t)
	auto(500)(&cfg)
	var log logtest.Log
	d := openAgain(t, cfg, db.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	end := crowded(d, 30)
	dbtest.Eventually(t, "it has what there is", func() bool { return d.Stat().Tickets >= 5 && d.Stat().Idle+d.Stat().Leases >= 5 })
	mustServe(t, end)
	if st := d.Stat(); st.Budget >= 7 { // 7 usable, one of which monitors
		t.Errorf("the budget is %d", st.Budget)
	}
	if log.Count("the budget is larger than the server's slots", "budget=500", "usable=7") != 1 {
		t.Errorf("the log:\n%s", log.String())
	}
}

func TestTheBudgetIsKnownBeforeTheFirstRequest(t *testing.T) {
	dbtest.NoLeaks(t)
	cfg := dbtest.Config(t)
	auto(4)(&cfg)
	d := openAgain(t, cfg, db.Options{Control: monitored(t, cfg)})
	began := time.Now()
	dbtest.Eventually(t, "it is known", func() bool { return d.Stat().Budget == 4 })
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("after %v", took)
	}
	if s := d.Stat(); s.Connects != 0 || s.Tickets != 0 {
		t.Errorf("without a request: %+v", s)
	}
}

func TestABudgetThatIsNotSetIsWhatOthersLeave(t *testing.T) {
	dbtest.NoLeaks(t)
	s := dbtest.NewServer(t, dbtest.Options{MaxConnections: 20})
	cfg := s.Config(t)
	auto(0)(&cfg)
	other := dbtest.Control(t, cfg) // a superuser has an ordinary slot, as long as there are some
	d := openAgain(t, cfg, db.Options{})
	held(t, d, 1)()
	if got, want := d.Stat().Budget, db.DefaultBudget(17, 2); got != want { // the other, and the monitoring connection
		t.Errorf("the budget is %d, want %d", got, want)
	}
	_ = scan[int](t, other, "SELECT 1")
}

func TestATicketThatAnotherProgramLocksIsNoTicket(t *testing.T) {
	dbtest.NoLeaks(t)
	cfg := dbtest.Config(t)
	auto(2)(&cfg)
	cfg.Pool.Timeout = 4 * time.Second
	control := dbtest.Control(t, cfg)
	run(t, control, "SET application_name = 'stranger'")
	_ = scan[int](t, control, "SELECT count(pg_advisory_lock($1::int, n)) FROM generate_series(1, 2) n", int32(db.TicketClass))
	var log logtest.Log
	d := openAgain(t, cfg, db.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	if _, err := d.Exec(t.Context(), "SELECT 1"); db.CauseOf(err) != db.PoolTimeout {
		t.Errorf("without a free ticket: %v", err)
	}
	if log.Count("waits for a ticket of the connection budget", "stranger: 2") != 1 {
		t.Errorf("the log:\n%s", log.String())
	}
	run(t, control, "SELECT pg_advisory_unlock_all()")
	if _, err := d.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("with free tickets: %v", err)
	}
}

func TestABudgetIsRefusedThroughAPooler(t *testing.T) {
	dbtest.NoLeaks(t)
	cfg := dbtest.Config(t)
	auto(2)(&cfg)
	t.Run("that the settings name", func(t *testing.T) {
		named := cfg
		named.Pooler = db.PgBouncer
		if _, err := db.Open(t.Context(), named); !errors.Is(err, db.ErrPooledBudget) {
			t.Errorf("Open: %v", err)
		}
	})
	t.Run("that they don't name", func(t *testing.T) {
		cc := throughPgBouncer(t, cfg)
		through := cfg
		through.Host, through.Port = cc.Host, int(cc.Port)
		d := openAgain(t, through, db.Options{})
		_, err := d.Exec(t.Context(), "SELECT 1")
		if db.CauseOf(err) != db.SettingRefused || !errors.Is(err, db.ErrPooledBudget) {
			t.Errorf("a request: %v", err)
		}
	})
	t.Run("that only the pool goes through", func(t *testing.T) {
		cc := throughPgBouncer(t, cfg)
		through := cfg
		through.Host, through.Port = cc.Host, int(cc.Port)
		direct := dbtest.Control(t, cfg)
		var turn sync.Mutex
		d := openAgain(t, through, db.Options{Control: func(_ context.Context, f func(*pgx.Conn) error) error {
			turn.Lock()
			defer turn.Unlock()
			return f(direct)
		}})
		_, err := d.Exec(t.Context(), "SELECT 1")
		if db.CauseOf(err) != db.SettingRefused || !strings.Contains(err.Error(), "max_db_connections") {
			t.Errorf("a request: %v", err)
		}
	})
}

func TestASwitchToAutomaticSizeAndBackFailsNoRequest(t *testing.T) {
	dbtest.NoLeaks(t)
	d, _, cfg := open(t, pool)
	end := crowded(d, 8)
	for _, set := range []func(*config.Database){auto(4), pool, auto(2), multiplex, auto(3)} {
		next := cfg
		set(&next)
		must(t, d.Switch(t.Context(), next))
		dbtest.Eventually(t, "it serves", func() bool { return d.Stat().Connected > 0 })
	}
	dbtest.Eventually(t, "it has all", func() bool { return d.Stat().Tickets == 3 })
	mustServe(t, end)
}

func TestSharedConnectionsHaveTicketsToo(t *testing.T) {
	dbtest.NoLeaks(t)
	d, control, cfg := open(t, func(c *config.Database) { auto(4)(c); c.Strategy = db.Multiplex })
	var n int
	must(t, d.Read().QueryRow(t.Context(), "SELECT 1").Scan(&n))
	release := held(t, d, 2)
	defer release()
	dbtest.Eventually(t, "two leases and a shared connection have tickets", func() bool {
		s := d.Stat()
		return s.Tickets >= 3 && s.Tickets <= 4 && s.Shared > 0 && s.Size <= 4-s.Shared
	})
	if n := dbtest.Backends(t, control, cfg.ApplicationName+"/multiplex"); n > 4 {
		t.Errorf("%d connections", n)
	}
}

func TestUnderABudgetTheCircuitOpensForAServerThatEndsEveryLogin(t *testing.T) {
	dbtest.NoLeaks(t)
	cfg := dbtest.Config(t)
	auto(4)(&cfg)
	control := monitored(t, cfg) // whose own connection still works
	cfg.Host, cfg.Port = "127.0.0.1", hangsUp(t)
	cfg.Pool.Timeout = 10 * time.Second
	d := openAgain(t, cfg, db.Options{Control: control})
	dbtest.Eventually(t, "the circuit is open", func() bool {
		_, err := d.Exec(t.Context(), "SELECT 1")
		return db.CauseOf(err) == db.CircuitOpen
	})
	before := d.Stat().Connects
	for range 100 {
		if _, err := d.Exec(t.Context(), "SELECT 1"); err == nil {
			t.Error("it has a connection")
		}
	}
	if n := d.Stat().Connects - before; n > 50 {
		t.Errorf("%d attempts for 100 requests", n)
	}
}

// hangsUp is a server that closes every connection.
func hangsUp(t *testing.T) (port int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // closed below
	must(t, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-ended })
	return l.Addr().(*net.TCPAddr).Port
}

func TestAReadIsRefusedInTimeWhileTheBudgetCanNotBePolled(t *testing.T) {
	for _, strategy := range []string{db.Pool, db.Multiplex} {
		t.Run(strategy, func(t *testing.T) {
			dbtest.NoLeaks(t)
			cfg := dbtest.Config(t)
			auto(4)(&cfg)
			cfg.Strategy, cfg.Pool.Timeout = strategy, 3*time.Second
			cfg.Host, cfg.Port = "127.0.0.1", hangsUp(t)
			d := openAgain(t, cfg, db.Options{})
			ctx, cancel := context.WithCancel(t.Context()) // without a deadline, until which a read would be retried
			defer cancel()
			defer time.AfterFunc(time.Minute, cancel).Stop()
			began := time.Now()
			_, err := d.Read().Exec(ctx, "SELECT 1")
			if cause := db.CauseOf(err); cause == "" || time.Since(began) > 20*time.Second {
				t.Errorf("after %v: %v", time.Since(began), err)
			}
		})
	}
}
