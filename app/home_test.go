package app_test

import (
	"net/http"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"ddtb/db/dbtest"
)

func TestACrowdOnTheStartPageQueriesTheServerOnce(t *testing.T) {
	s := newSite(t, nil)
	control := dbtest.Control(t, s.cfg.Databases["default"])
	commits := func() (n int) {
		err := s.Server().Read(t.Context(), func(c *pgx.Conn) error {
			_, err := c.Exec(t.Context(), "SELECT pg_stat_force_next_flush()")
			return err
		})
		if err == nil {
			err = control.QueryRow(t.Context(), "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()").Scan(&n)
		}
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	const crowd = 100
	before := commits()
	var visitors sync.WaitGroup
	err := s.Server().Read(t.Context(), func(*pgx.Conn) error { // meanwhile nobody else has the connection
		for range crowd {
			visitors.Go(func() {
				if a := s.get("/"); a.StatusCode != http.StatusOK || strings.Contains(a.body, `"error"`) {
					t.Errorf("%s\n%s", a.Status, a.body)
				}
			})
		}
		dbtest.Eventually(t, "all have arrived", func() bool {
			var b strings.Builder
			return pprof.Lookup("goroutine").WriteTo(&b, 2) == nil && strings.Count(b.String(), "app.(*App).slots(") >= crowd
		})
		return nil
	})
	visitors.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if n := commits() - before; n >= crowd {
		t.Errorf("%d transactions for %d visitors", n, crowd)
	}
}
