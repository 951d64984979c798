package db_test

import (
	"testing"
	"time"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

func sharing(budget int) func(*config.Database) {
	return func(c *config.Database) { auto(budget)(c); c.Strategy = db.Multiplex }
}

func mustWrite(t *testing.T, d *db.DB) {
	t.Helper()
	if _, err := d.Exec(t.Context(), "CREATE TEMP TABLE IF NOT EXISTS written ()"); err != nil {
		t.Errorf("a write: %v", err)
	}
}

func TestSharedConnectionsLeaveATicketForLeases(t *testing.T) {
	dbtest.NoLeaks(t)
	d, control, cfg := open(t, sharing(2))
	held(t, d, 2)() // leases have both, and are idle
	stop := readers(t, d, 20*time.Second)
	defer stop()
	for range 5 {
		dbtest.Eventually(t, "reads share connections", func() bool { s := d.Stat(); return s.Shared > 0 && s.Reads > 0 })
		if n := dbtest.Backends(t, control, cfg.ApplicationName+"/multiplex"); n > 2 {
			t.Errorf("%d connections", n)
		}
		mustWrite(t, d)
	}
}

func TestAProcessWithOneTicketLeftWritesAndReads(t *testing.T) {
	dbtest.NoLeaks(t)
	d, _, cfg := open(t, sharing(4))
	stop := readers(t, d, 20*time.Second)
	defer stop()
	dbtest.Eventually(t, "it has shared connections", func() bool { return d.Stat().Reads > 0 && d.Stat().Shared == 2 })
	var others []*db.DB
	auto(4)(&cfg)
	for range 3 {
		other := openAgain(t, cfg, db.Options{})
		end := crowded(other, 4)
		defer mustServe(t, end)
		others = append(others, other)
	}
	dbtest.Eventually(t, "each process has one ticket", func() bool {
		for _, x := range append(others, d) {
			if x.Stat().Tickets != 1 {
				return false
			}
		}
		return true
	})
	began := time.Now()
	for range 3 {
		mustWrite(t, d)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("three writes took %v", took)
	}
}
