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
	running := func(function string) int {
		var b strings.Builder
		if err := pprof.Lookup("goroutine").WriteTo(&b, 2); err != nil {
			t.Fatal(err)
		}
		return strings.Count(b.String(), function)
	}
	const crowd = 10
	var visitors sync.WaitGroup
	err := s.Monitor().Read(t.Context(), func(*pgx.Conn) error { // meanwhile nobody else has the connection
		for range crowd {
			visitors.Go(func() {
				if a := s.get("/"); a.StatusCode != http.StatusOK {
					t.Errorf("%s\n%s", a.Status, a.body)
				}
			})
		}
		dbtest.Eventually(t, "all wait for one query", func() bool {
			return running("app.(*App).slots(") == crowd && running("activity.(*Observer).Slots(") == 1
		})
		return nil
	})
	visitors.Wait()
	if err != nil {
		t.Fatal(err)
	}
}
