package db_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

func TestADeclaredReadGivesItsLeaseBackBeforeItsRowsAreScanned(t *testing.T) {
	everyStrategy(t, func(t *testing.T, set func(*config.Database)) {
		d, _, _ := open(t, set)
		rows, err := d.Read().Query(t.Context(), "SELECT n, 'number ' || n FROM generate_series(1, 3) n")
		must(t, err)
		if n := d.Stat().Leases; n != 0 {
			t.Errorf("%d leases are out", n)
		}
		texts, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (s string, err error) { return s, row.Scan(new(int), &s) })
		if err != nil || fmt.Sprint(texts) != "[number 1 number 2 number 3]" {
			t.Errorf("%q, %v", texts, err)
		}
	})
}

func TestADeclaredReadWithALargeResultIsStreamed(t *testing.T) {
	everyStrategy(t, func(t *testing.T, set func(*config.Database)) {
		d, _, _ := open(t, func(c *config.Database) { set(c); c.Multiplex.MaxResult = 64 << 10 })
		rows, err := d.Read().Query(t.Context(), "SELECT n FROM generate_series(1, 100000) n")
		must(t, err)
		sum, n := 0, 0
		if _, err := pgx.ForEachRow(rows, []any{&n}, func() error { sum += n; return nil }); err != nil || sum != 5000050000 {
			t.Errorf("the sum is %d (%v)", sum, err)
		}
	})
}

func TestALargeResultIsReadAgainOnce(t *testing.T) {
	everyStrategy(t, func(t *testing.T, set func(*config.Database)) {
		d, control, cfg := open(t, func(c *config.Database) { set(c); c.Multiplex.MaxResult = 64 << 10 })
		run(t, control, "CREATE SEQUENCE runs; GRANT USAGE ON SEQUENCE runs TO "+pgx.Identifier{cfg.User}.Sanitize())
		for i, want := range []int64{2, 4} {
			rows, err := d.Read().Query(t.Context(), "SELECT nextval('runs'), repeat('x', 1000) FROM generate_series(1, 10000)")
			must(t, err)
			rows.Close()
			var values int64
			must(t, control.QueryRow(t.Context(), "SELECT last_value FROM runs").Scan(&values))
			if got := (values + 9999) / 10000; got > want { // under multiplex the second read is streamed at once
				t.Errorf("it ran %d times for %d reads", got, i+1)
			}
		}
	})
}

func TestSharedConnectionsEndAtTheirLifetime(t *testing.T) {
	d, _, _ := open(t, func(c *config.Database) { multiplex(c); c.Pool.MaxLifetime = 20 * time.Millisecond })
	var failed error
	dbtest.Eventually(t, "three connections are closed for their age", func() bool {
		failed = d.Read().QueryRow(t.Context(), "SELECT 1").Scan(new(int))
		return failed != nil || d.Stat().AgedOut >= 3
	})
	if failed != nil {
		t.Error(failed)
	}
}

func TestAProcessThatStoodStillGivesUpTheRunningStatementAlone(t *testing.T) {
	m := newMuxTest(t, db.MultiplexSettings{Connections: 1})
	m.SetTimeout(2 * db.MultiplexStuckAfter)
	run := func(seconds float64) <-chan error {
		done := make(chan error, 1)
		go func() {
			_, err := m.Query(t.Context(), "SELECT pg_sleep($1)", seconds)
			done <- err
		}()
		return done
	}
	must(t, <-run(0))
	var slow, behind <-chan error
	dbtest.Eventually(t, "one statement is sent behind another", func() bool {
		slow, behind = run(1), run(0)
		for m.Stat().InFlight < 2 && len(behind) == 0 {
			runtime.Gosched()
		}
		if m.Stat().InFlight == 2 {
			return true
		}
		t.Logf("this machine was too late: %v, %v", <-slow, <-behind)
		return false
	})
	m.Freeze(4 * db.MultiplexStuckAfter)
	var ended int
	for _, done := range []<-chan error{slow, behind} {
		if errors.Is(<-done, db.ErrQueryTimeout) {
			ended++
		}
	}
	if ended > 1 {
		t.Error("the statement that had not begun ended at the time limit too")
	}
}

func TestADeclaredReadHasTheErrorsOfItsStatementAndItsCaller(t *testing.T) {
	everyStrategy(t, func(t *testing.T, set func(*config.Database)) {
		d, _, _ := open(t, set)
		for range 2 {
			err := d.Read().QueryRow(t.Context(), "SELECT 1/($1::int - 1)", 1).Scan(new(int))
			if pe, ok := errors.AsType[*pgconn.PgError](err); !ok || pe.Code != "22012" {
				t.Errorf("a division by zero: %v", err)
			}
			if err := d.Read().QueryRow(t.Context(), "SELECT 1 WHERE false").Scan(new(int)); !errors.Is(err, pgx.ErrNoRows) {
				t.Errorf("no row: %v", err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		began := time.Now()
		if _, err := d.Read().Query(ctx, "SELECT pg_sleep(10)"); !errors.Is(err, context.DeadlineExceeded) && !pgconn.Timeout(err) {
			t.Errorf("a deadline: %v", err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("a deadline of 50 ms took %v", took)
		}
		one(t, d.Read(), t.Context())
	})
}

// readers query repeatedly until stop is called, and count the failed reads.
func readers(t *testing.T, d *db.DB, deadline time.Duration) (stop func() (read, failed int64)) {
	t.Helper()
	var wg sync.WaitGroup
	var read, failed atomic.Int64
	done := make(chan struct{})
	for range 16 {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				default:
				}
				ctx, cancel := context.WithTimeout(t.Context(), deadline)
				var got int
				err := d.Read().QueryRow(ctx, "SELECT $1::int", n).Scan(&got)
				cancel()
				read.Add(1)
				if err != nil || got != n {
					failed.Add(1)
					t.Errorf("%d: %d, %v", n, got, err)
				}
			}
		})
	}
	end := sync.OnceFunc(func() { close(done); wg.Wait() })
	t.Cleanup(end) // after a failure
	return func() (int64, int64) { end(); return read.Load(), failed.Load() }
}

func TestARestartOfTheServerFailsNoDeclaredRead(t *testing.T) {
	s := dbtest.NewServer(t, dbtest.Options{})
	for _, mode := range []string{"fast", "immediate"} {
		t.Run(mode, func(t *testing.T) {
			stops := map[string]func() (read, failed int64){}
			for name, set := range strategies {
				cfg := s.Config(t)
				set(&cfg)
				d, err := db.Open(t.Context(), cfg)
				must(t, err)
				t.Cleanup(func() { _ = d.Close(context.Background()) })
				dbtest.Eventually(t, "it works before the restart", func() bool {
					return d.Read().QueryRow(t.Context(), "SELECT 1").Scan(new(int)) == nil
				})
				stop := readers(t, d, time.Minute)
				stops[name] = func() (int64, int64) { one(t, d.Read(), t.Context()); return stop() }
			}
			s.Restart(t, mode)
			for name, stop := range stops {
				if read, failed := stop(); failed > 0 || read < 16 {
					t.Errorf("%s: %d of %d reads failed", name, failed, read)
				}
			}
		})
	}
}

func TestASwitchInBothDirectionsFailsNoDeclaredRead(t *testing.T) {
	d, _, cfg := open(t, multiplex)
	other := cfg
	pool(&other)
	stop := readers(t, d, time.Minute)
	for range 5 {
		for _, to := range []config.Database{other, cfg} {
			must(t, d.Switch(t.Context(), to))
			one(t, d.Read(), t.Context())
		}
	}
	if read, failed := stop(); failed > 0 || read < 16 {
		t.Errorf("%d of %d reads failed", failed, read)
	}
}

func TestFiveHundredReadersNeedTwoSlots(t *testing.T) {
	dbtest.Eventually(t, "500 readers need two slots", func() bool {
		d, control, cfg := open(t, multiplex)
		peak := fiveHundredReaders(t, d, func() int { return dbtest.Backends(t, control, cfg.ApplicationName+"/multiplex") })
		stat := d.Stat()
		if peak > cfg.Multiplex.Connections+cfg.Pool.MaxSize {
			t.Errorf("%d backends; %+v", peak, stat)
		}
		if stat.Acquired > 0 {
			t.Logf("the machine stalled, and %d reads got a lease", stat.Acquired)
			return false
		}
		if peak > cfg.Multiplex.Connections || stat.Reads != 2000 {
			t.Errorf("%d backends; %+v", peak, stat)
		}
		return true
	})
}

// fiveHundredReaders read four times each. It returns the highest count meanwhile.
func fiveHundredReaders(t *testing.T, d *db.DB, count func() int) (peak int) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range 500 {
		wg.Go(func() {
			for range 4 {
				var n int
				if err := d.Read().QueryRow(t.Context(), "SELECT $1::int FROM pg_sleep(0.001)", i).Scan(&n); err != nil || n != i {
					t.Errorf("%d: %d, %v", i, n, err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for {
		select {
		case <-done:
			return peak
		default:
			peak = max(peak, count())
		}
	}
}

func TestAReadWaitsForASilentServerNoLongerThanItMay(t *testing.T) {
	for name, set := range map[string]func(*config.Database){"pool": pool, "multiplex": multiplex} {
		t.Run(name, func(t *testing.T) {
			cfg := dbtest.Config(t)
			set(&cfg)
			cfg.Hosts, cfg.Pool.Timeout, cfg.ConnectTimeout = db.Hosts(silent(t)), 500*time.Millisecond, 5*time.Second
			d, err := db.Open(t.Context(), cfg)
			must(t, err)
			defer func() { _ = d.Close(context.Background()) }()
			for _, deadline := range []time.Duration{100 * time.Millisecond, time.Minute} {
				ctx, cancel := context.WithTimeout(t.Context(), deadline)
				defer cancel()
				began := time.Now()
				err := d.Read().QueryRow(ctx, "SELECT 1").Scan(new(int))
				if took := time.Since(began); db.CauseOf(err) == "" || took > cfg.ConnectTimeout-time.Second {
					t.Errorf("within %v: after %v %v", deadline, took, err)
				}
			}
		})
	}
}

func TestAReadWaitsForAServerThatFellSilentAsLongAsForOneConnection(t *testing.T) {
	for name, c := range map[string]struct {
		set  func(*config.Database)
		most time.Duration // the time for a connection
	}{
		"pool": {pool, time.Second}, "multiplex": {multiplex, time.Second},
		"per-request": {perRequest, 3 * time.Second}, "persistent": {persistent, 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := dbtest.NewServer(t, dbtest.Options{})
			cfg := server.Config(t)
			c.set(&cfg)
			cfg.SSLMode, cfg.QueryTimeout, cfg.Multiplex.Connections = "disable", time.Second, 1
			cfg.Pool.Timeout, cfg.ConnectTimeout = time.Second, 3*time.Second
			d, err := db.Open(t.Context(), cfg)
			must(t, err)
			defer func() { _ = d.Close(context.Background()) }()
			one(t, d.Read(), t.Context())
			server.Pause(t)
			defer server.Resume(t)
			lost := cfg.QueryTimeout + 2*time.Second // to find a connection silent, and to end it
			for i, most := range []time.Duration{c.most + lost, c.most + lost, c.most} {
				began := time.Now()
				_, err = d.Read().Exec(t.Context(), "SELECT 1")
				if took := time.Since(began); err == nil || took > most+800*time.Millisecond {
					t.Errorf("read %d: after %v: %v", i+1, took, err)
				}
			}
		})
	}
}

func TestAStallOfTheServerRefusesNoReader(t *testing.T) {
	server := dbtest.NewServer(t, dbtest.Options{})
	cfg := server.Config(t)
	multiplex(&cfg)
	cfg.Pool.MaxSize, cfg.Pool.MaxWaiting = 1, 1
	d, err := db.Open(t.Context(), cfg)
	must(t, err)
	defer func() { _ = d.Close(context.Background()) }()
	one(t, d.Read(), t.Context())
	stop := readers(t, d, 10*time.Second)
	for range 3 {
		server.Pause(t)
		<-time.After(300 * time.Millisecond) // longer than a statement may hold up a shared connection
		server.Resume(t)
		read := d.Stat().Reads
		dbtest.Eventually(t, "it is read on", func() bool { return d.Stat().Reads > read+100 })
	}
	if read, failed := stop(); failed > 0 || read < 300 {
		t.Errorf("%d of %d reads failed", failed, read)
	}
}

func TestAStatementThatIsFastOnAConnectionOfItsOwnIsSharedAgain(t *testing.T) {
	d, _, _ := open(t, multiplex)
	sleep := func(seconds float64) (leases int64) {
		before := d.Stat().Acquired
		if _, err := d.Read().Exec(t.Context(), "SELECT pg_sleep($1)", seconds); err != nil {
			t.Fatal(err)
		}
		return d.Stat().Acquired - before
	}
	dbtest.Eventually(t, "a statement that was slow twice gets a lease, and is shared again after it", func() bool {
		sleep(0)
		return slices.Equal([]int64{sleep(0.2), sleep(0.2), sleep(0), sleep(0)}, []int64{0, 0, 1, 0})
	})
}
