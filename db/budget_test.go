package db_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

func auto(budget int) func(*config.Database) {
	return func(c *config.Database) { c.Strategy, c.Pool.MaxSize, c.Budget = db.Pool, db.Auto, budget }
}

func TestAPoolOfAutomaticSize(t *testing.T) {
	dbtest.NoLeaks(t)
	t.Run("has as many connections as requests at once, up to the budget", func(t *testing.T) {
		d, control, cfg := open(t, auto(4))
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				if _, err := d.Exec(ctx, "SELECT pg_sleep(0.05)"); err != nil {
					t.Error(err)
				}
			})
		}
		dbtest.Eventually(t, "it has grown to the budget", func() bool { return d.Stat().Tickets == 4 })
		wg.Wait()
		if n := dbtest.Backends(t, control, cfg.ApplicationName+"/pool"); n > 4 {
			t.Errorf("%d backends", n)
		}
		if s := d.Stat(); s.Budget != 4 || s.Tickets != 4 || s.TicketsFree != 0 || s.TicketsOthers != 0 || s.Connected > 4 {
			t.Errorf("%+v", s)
		}
	})
}
