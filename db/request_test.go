package db_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

// anyRows is more than fits into the buffers of a connection.
const anyRows = "SELECT generate_series(1, 1000000)"

func query(t *testing.T, d *db.DB, ctx context.Context) pgx.Rows { //nolint:revive // t first, as in every helper here
	t.Helper()
	rows, err := d.Query(ctx, anyRows)
	if err != nil || !rows.Next() {
		t.Fatal(err)
	}
	return rows
}

func TestARequestThatForgetsARowsLoopLosesNoConnection(t *testing.T) {
	for name, forget := range map[string]func(*testing.T, *db.DB, context.Context){
		"by a panic": func(t *testing.T, d *db.DB, ctx context.Context) {
			for rows := query(t, d, ctx); rows.Next(); {
				panic("within the loop")
			}
		},
		"by an early return": func(t *testing.T, d *db.DB, ctx context.Context) { query(t, d, ctx) },
		"by a QueryRow that is not scanned": func(_ *testing.T, d *db.DB, ctx context.Context) {
			d.QueryRow(ctx, anyRows)
		},
	} {
		t.Run(name, func(t *testing.T) {
			everyStrategy(t, func(t *testing.T, set func(*config.Database)) {
				d, log := openLogged(t, func(c *config.Database) {
					set(c)
					c.Pool.MaxSize, c.PerRequest.MaxSize, c.Persistent.Workers = 1, 1, 1 // a lost one would be missed
				})
				control, cfg := dbtest.Control(t, d.Config()), d.Config()
				for range 2 {
					began := time.Now()
					func() {
						defer func() { _ = recover() }()
						ctx, end := d.Begin(t.Context())
						defer end()
						forget(t, d, ctx)
					}()
					took, n := time.Since(began), dbtest.Backends(t, control, cfg.ApplicationName+"/"+cfg.Strategy)
					if n != 0 && took < time.Second || d.Stat().Leases != 0 { // it waits no longer for a backend
						t.Errorf("after the request there are %d backends: %+v", n, d.Stat())
					}
				}
				one(t, d, t.Context())
				if s := d.Stat(); s.Leaked != 2 || s.Reclaimed != 2 {
					t.Errorf("%+v", s)
				}
				if log.Count("rows were left open at the end of a request") != 1 || log.Count("line=\"request_test.go:") != 1 {
					t.Errorf("the line is not reported once: %s", log)
				}
				next := cfg
				next.Pool.MaxSize, next.PerRequest.MaxSize, next.Persistent.Workers = 2, 2, 2
				if err := d.Switch(t.Context(), next); err != nil { // Close would wait for ever for a request that is not over
					t.Error(err)
				}
			})
		})
	}
}

func TestAGoroutineThatReadsRowsAfterItsRequestGetsErrReclaimed(t *testing.T) {
	everyStrategy(t, func(t *testing.T, set func(*config.Database)) {
		d, _, _ := open(t, set)
		ctx, end := d.Begin(t.Context())
		rows, err := d.Query(ctx, "SELECT n, pg_sleep(n / 5000 * 60) FROM generate_series(1, 5000) n")
		must(t, err)
		read := make(chan error)
		go func() {
			for rows.Next() { // waits for the server when the request ends, or comes after
				_, _ = rows.Values()
			}
			read <- rows.Err()
		}()
		end()
		if err := <-read; !errors.Is(err, db.ErrReclaimed) {
			t.Errorf("got %v", err)
		}
		if s := d.Stat(); s.Leases != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestAStatementUnderWayInAGoroutineOutlivesItsRequest(t *testing.T) {
	everyStrategy(t, func(t *testing.T, set func(*config.Database)) {
		d, control, _ := open(t, set)
		ctx, end := d.Begin(t.Context())
		lock(t, control)
		done := make(chan error)
		go func() {
			done <- d.InTx(ctx, func(q db.Querier) error {
				_, err := q.Exec(ctx, "SELECT pg_advisory_xact_lock(7)")
				return err
			})
		}()
		dbtest.Eventually(t, "it waits on the server", func() bool {
			return scan[int](t, control, `SELECT count(*) FROM pg_locks
				WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`) == 1
		})
		end()
		run(t, control, "SELECT pg_advisory_unlock(7)")
		if err := <-done; err != nil {
			t.Error(err)
		}
		if s := d.Stat(); s.Leases != 0 || s.Leaked != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func lock(t *testing.T, control *pgx.Conn) {
	t.Helper()
	run(t, control, "SELECT pg_advisory_lock(7)")
}

func TestALeaseThatIsTakenBackFreesItsPlaceWithItsBackend(t *testing.T) {
	d, _, cfg := open(t, func(c *config.Database) { pool(c); c.Pool.MaxSize = 1; c.Pool.ReclaimAfter = time.Second })
	for range 3 {
		held, err := d.Acquire(t.Context())
		must(t, err)
		var backends int
		if err := d.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1",
			cfg.ApplicationName+"/pool").Scan(&backends); err != nil || backends != 1 {
			t.Errorf("%d backends with one place (%v)", backends, err)
		}
		held.Release()
	}
}
