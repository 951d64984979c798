package db_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
	"ddtb/db/logtest"
)

func openLogged(t *testing.T, set func(*config.Database)) (*db.DB, *logtest.Log) {
	t.Helper()
	cfg := dbtest.Config(t)
	set(&cfg)
	log := &logtest.Log{}
	d, err := db.OpenWith(cfg, db.Options{Log: slog.New(slog.NewTextHandler(log, nil))})
	must(t, err)
	t.Cleanup(func() { _ = d.Close(context.Background()) })
	return d, log
}

func TestALeaseThatIsHeldForLongIsLoggedOnceAndAgainWhenItComesBack(t *testing.T) {
	everyStrategy(t, func(t *testing.T, set func(*config.Database)) {
		d, log := openLogged(t, func(c *config.Database) { set(c); c.Pool.LeakAfter = time.Second })
		l, err := d.Acquire(t.Context())
		must(t, err)
		dbtest.Eventually(t, "the leak is logged", func() bool { return log.Count("held for long: is it a leak") == 1 })
		if log.Count("leaks_test.go:") == 0 {
			t.Error("the line that holds it is not named")
		}
		l.Release()
		if log.Count("was released") != 1 || log.Count("is it a leak") != 1 || d.Stat().Leaked != 1 {
			t.Errorf("%s %+v", log, d.Stat())
		}
		one(t, d, t.Context())
		if log.Count("was released") != 1 {
			t.Error("a lease that was short is reported")
		}
	})
}

func TestARequestThatKeepsItsLeaseForLongIsReportedThoughItsQueriesAreShort(t *testing.T) {
	for name, set := range map[string]func(*config.Database){
		"per-request": perRequest, "persistent": persistent, "pool, for the request": poolRequest,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, log := openLogged(t, func(c *config.Database) { set(c); c.Pool.LeakAfter = time.Second })
			ctx, end := d.Begin(t.Context())
			defer end()
			one(t, d, ctx)
			dbtest.Eventually(t, "it is reported", func() bool { return log.Count("a slow request") == 1 })
		})
	}
}

func TestARequestWhoseKeptLeaseWasTakenBackGetsAnErrorAndGoesOnWithAnother(t *testing.T) {
	d, _, _ := open(t, func(c *config.Database) {
		pool(c)
		c.Pool.Hold, c.Pool.MaxSize, c.Pool.ReclaimAfter = "request", 1, time.Second
	})
	ctx, end := d.Begin(t.Context())
	defer end()
	one(t, d, ctx)
	dbtest.Eventually(t, "it is taken back", func() bool { return d.Stat().Reclaimed == 1 })
	if _, err := d.Exec(ctx, "SELECT 1"); !errors.Is(err, db.ErrReclaimed) {
		t.Errorf("the next query: %v", err)
	}
	one(t, d, ctx)
	end()
	if n := d.Stat().Leases; n != 0 {
		t.Errorf("%d leases are out", n)
	}
}

func TestALeaseThatIsHeldTooLongIsTakenBack(t *testing.T) {
	everyStrategy(t, func(t *testing.T, set func(*config.Database)) {
		d, log := openLogged(t, func(c *config.Database) {
			set(c)
			c.Pool.MaxSize, c.PerRequest.MaxSize, c.Persistent.Workers = 1, 1, 1
			c.Pool.ReclaimAfter = time.Second
		})
		ctx, end := d.Begin(t.Context())
		defer end()
		rows, err := d.Query(ctx, "SELECT generate_series(1, 1000000)") // never closed
		must(t, err)
		one(t, d, t.Context()) // waits until the only place is free again
		for rows.Next() {
		}
		if err := rows.Err(); !errors.Is(err, db.ErrReclaimed) {
			t.Errorf("the holder's next use of its rows: %v", err)
		}
		if d.Stat().Reclaimed != 1 || log.Count("was taken back") != 1 {
			t.Errorf("%+v %s", d.Stat(), log)
		}
	})
}

func TestANestedLeaseIsReportedWithBothLinesBeforeItWaits(t *testing.T) {
	d, log := openLogged(t, func(c *config.Database) { pool(c); c.Pool.MaxSize, c.Pool.Timeout = 1, time.Second })
	ctx, end := d.Begin(t.Context())
	defer end()
	for range 2 {
		err := d.InTx(ctx, func(db.Querier) error {
			return d.QueryRow(ctx, "SELECT 1").Scan(new(int)) // through d, not through the transaction
		})
		if db.CauseOf(err) != db.PoolTimeout {
			t.Errorf("got %v", err)
		}
	}
	if log.Count("asks for a second one", `first="leaks_test.go:`, `second="leaks_test.go:`) != 1 || d.Stat().Nested != 2 {
		t.Errorf("%s %+v", log, d.Stat())
	}
	one(t, d, ctx)
	one(t, d, ctx)
	if d.Stat().Nested != 2 {
		t.Error("two queries one after the other count as nested")
	}
}
