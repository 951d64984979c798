package db_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

func TestAQueryRowInATransactionReturnsItsError(t *testing.T) {
	var n int
	for name, run := range map[string]func(ctx context.Context, q db.Querier) error{
		"of its syntax":         func(ctx context.Context, q db.Querier) error { return q.QueryRow(ctx, "SELEC 1").Scan(&n) },
		"of a missing argument": func(ctx context.Context, q db.Querier) error { return q.QueryRow(ctx, "SELECT $1::int").Scan(&n) },
		"of no row":             func(ctx context.Context, q db.Querier) error { return q.QueryRow(ctx, "SELECT 1 WHERE false").Scan(&n) },
		"of a context that has ended": func(_ context.Context, q db.Querier) error {
			ended, cancel := context.WithCancel(context.Background())
			cancel()
			return q.QueryRow(ended, "SELECT 3").Scan(&n)
		},
		"of a transaction that has failed": func(ctx context.Context, q db.Querier) error {
			_, _ = q.Exec(ctx, "SELECT 1/0")
			return q.QueryRow(ctx, "SELECT 4").Scan(&n)
		},
		"of a connection that is lost": func(ctx context.Context, q db.Querier) error {
			_, _ = q.Exec(ctx, "SELECT pg_terminate_backend(pg_backend_pid())")
			return q.QueryRow(ctx, "SELECT 5").Scan(&n)
		},
		"of rows that are open": func(ctx context.Context, q db.Querier) error {
			rows, err := q.Query(ctx, "SELECT generate_series(1, 100000)")
			if err != nil || !rows.Next() {
				return nil
			}
			defer rows.Close()
			return q.QueryRow(ctx, "SELECT 6").Scan(&n)
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, _, _ := open(t, pool)
			if err := d.InTx(t.Context(), func(q db.Querier) error { return run(t.Context(), q) }); err == nil {
				t.Error("no error")
			}
			dbtest.Eventually(t, "its lease is returned", func() bool { return d.Stat().Leases == 0 }) // a lost one a moment later
		})
	}
}

func TestATransactionThatItsCallersDeadlineEndedSaysSo(t *testing.T) {
	d, _, _ := open(t, pool)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err := d.InTx(ctx, func(q db.Querier) error {
		_, err := q.Exec(ctx, "SELECT pg_sleep(10)")
		return err
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestATransactionThatIsLeftOpenIsReported(t *testing.T) {
	d, log := openLogged(t, pool)
	for range 2 {
		if _, err := d.Exec(t.Context(), "BEGIN"); err != nil {
			t.Fatal(err)
		}
	}
	if n := log.Count("a transaction was left open", "transaction_test.go", "use InTx"); n != 1 {
		t.Errorf("%d lines:\n%s", n, log)
	}
}

func TestAConnectionLostUnderAStatementSaysThatItWasSent(t *testing.T) {
	d, _, _ := open(t, func(c *config.Database) { pool(c); c.Pool.MaxSize = 1 })
	_, err := d.Exec(t.Context(), "SELECT pg_terminate_backend(pg_backend_pid())")
	if lost, ok := errors.AsType[*db.ConnError](err); !ok || !lost.Sent {
		t.Errorf("%#v", err)
	}
	held, err := d.Acquire(t.Context())
	must(t, err)
	defer held.Release()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = d.Exec(ctx, "SELECT 1")
	if none, ok := errors.AsType[*db.ConnError](err); !ok || none.Sent {
		t.Errorf("%#v", err)
	}
}

func TestASecondQueryOfAKeptLeaseSaysWhatElseItMayBe(t *testing.T) {
	d, _, _ := open(t, poolRequest)
	ctx, end := d.Begin(t.Context())
	defer end()
	err := d.InTx(ctx, func(db.Querier) error {
		_, err := d.Exec(ctx, "SELECT 1")
		return err
	})
	if !errors.Is(err, db.ErrInUse) || !strings.Contains(err.Error(), "the transaction's Querier inside InTx") {
		t.Error(err)
	}
}

func TestCloseWithoutTimeFailsOnlyForLeasesThatAreOut(t *testing.T) {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	cfg := dbtest.Config(t)
	pool(&cfg)
	for range 20 {
		d, err := db.Open(t.Context(), cfg)
		must(t, err)
		one(t, d, t.Context())
		if err := d.Close(ended); err != nil {
			t.Error(err)
		}
	}
}

func TestRowsOfATransactionEndWhenItsLeaseIsTakenBack(t *testing.T) {
	d, _, _ := open(t, func(c *config.Database) { pool(c); c.Pool.ReclaimAfter = 200 * time.Millisecond })
	read := 0
	err := d.InTx(t.Context(), func(q db.Querier) error {
		rows, err := q.Query(t.Context(), "SELECT generate_series(1, 1000000)")
		if err != nil {
			return err
		}
		defer rows.Close()
		dbtest.Eventually(t, "it is taken back", func() bool { return d.Stat().Reclaimed == 1 })
		for rows.Next() {
			read++
		}
		return rows.Err()
	})
	if read > 0 {
		t.Errorf("%d rows were read while the rest was dropped", read)
	}
	if !errors.Is(err, db.ErrReclaimed) || strings.Count(err.Error(), db.ErrReclaimed.Error()) != 1 {
		t.Error(err)
	}
}

func TestATransactionThatCanNotCommitLeavesNoBackendAtWork(t *testing.T) {
	d, control, cfg := open(t, pool)
	err := d.InTx(t.Context(), func(q db.Querier) error {
		_, err := q.Query(t.Context(), "SELECT CASE WHEN g = 10000 THEN pg_sleep(600)::text ELSE 'x' END FROM generate_series(1, 10000) g")
		return err
	})
	if !errors.Is(err, db.ErrInUse) {
		t.Error(err)
	}
	dbtest.Eventually(t, "no backend runs on", func() bool { return dbtest.Backends(t, control, cfg.ApplicationName+"/pool") == 0 })
}

func TestATransactionWhoseContextHasEndedKeepsItsConnection(t *testing.T) {
	d, _, _ := open(t, poolRequest)
	ctx, end := d.Begin(t.Context())
	defer end()
	pid := func() (pid int) {
		must(t, d.QueryRow(ctx, "SELECT pg_backend_pid()").Scan(&pid))
		return pid
	}
	before := pid()
	for name, early := range map[string]bool{"before it": true, "before its commit": false} {
		gone, cancel := context.WithCancel(ctx)
		if early {
			cancel()
		}
		err := d.InTx(gone, func(q db.Querier) error {
			one(t, q, gone)
			cancel()
			return nil
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
		if now := pid(); now != before {
			t.Errorf("%s: backend %d, then %d", name, before, now)
		}
	}
}

func TestCloseKeepsToItsContextWhileAStrategyIsReplaced(t *testing.T) {
	cfg := dbtest.Config(t)
	cfg.Strategy = db.Multiplex
	d, err := db.Open(t.Context(), cfg)
	must(t, err)
	control := dbtest.Control(t, cfg)
	read := make(chan error, 1)
	go func() {
		_, err := d.Read().Exec(context.Background(), "SELECT pg_sleep(20)")
		read <- err
	}()
	dbtest.Eventually(t, "a read is under way", func() bool {
		return scan[int](t, control, "SELECT count(*)::int FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()") == 1
	})
	go func() {
		next := cfg
		perRequest(&next)
		_ = d.Switch(context.Background(), next)
	}()
	<-time.After(100 * time.Millisecond) // so that the switch waits
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	_ = d.Close(ctx) // the lease is reclaimed
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	if err := <-read; err == nil {
		t.Error("the read went on")
	}
}
