package db_test

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/config"
	"ddtb/db/dbtest"
)

// The backends of the closed connections are stopped, so that they keep their slots for a moment.
func TestARefreshedPoolHasNoMoreBackendsThanItMayHave(t *testing.T) {
	const size = 4
	d, control, cfg := open(t, func(c *config.Database) { pool(c); c.Pool.MaxSize = size })
	run(t, control, "CREATE TABLE thing (n int); INSERT INTO thing VALUES (1); GRANT ALL ON thing TO PUBLIC")
	read := func() (pid int, err error) {
		err = d.QueryRow(t.Context(), "SELECT *, pg_backend_pid() FROM thing").Scan(new(int), &pid)
		return pid, err
	}
	held(t, d, size)()
	used, err := read()
	must(t, err)
	run(t, control, "ALTER TABLE thing ALTER n TYPE bigint")
	rows, _ := control.Query(t.Context(), "SELECT pid FROM pg_stat_activity WHERE application_name = $1 AND pid <> $2", cfg.ApplicationName+"/pool", used)
	others, err := pgx.CollectRows(rows, pgx.RowTo[int])
	must(t, err)
	for _, pid := range others {
		must(t, syscall.Kill(pid, syscall.SIGSTOP))
		defer func() { must(t, syscall.Kill(pid, syscall.SIGCONT)) }()
	}

	const while = 900 * time.Millisecond // a pool waits for each end for a second
	began := time.Now()
	ended := make(chan error, size)
	go func() {
		_, err := read()
		ended <- err
	}()
	dbtest.Eventually(t, "the idle connections are given up", func() bool { return d.Stat().Idle == 0 })
	for range size - 1 {
		go func() {
			_, err := d.Exec(context.WithoutCancel(t.Context()), "SELECT pg_sleep(0.1)")
			ended <- err
		}()
	}
	for ; time.Since(began) < while; <-time.After(20 * time.Millisecond) {
		if n := dbtest.Backends(t, control, cfg.ApplicationName+"/pool"); n > size && time.Since(began) < while {
			t.Errorf("%d backends", n)
			break
		}
	}
	for range size {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
