package app_test

import (
	"net/http"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

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

func TestTheStartPageOfASilentServerSaysSoWithoutFigures(t *testing.T) {
	t.Parallel()
	server := dbtest.NewServer(t, dbtest.Options{})
	s := siteOn(t, server.Config(t), nil)
	mustContain(t, s.get("/"), http.StatusOK, `"max_connections"`)
	server.Pause(t)
	for _, accepted := range []string{"application/json", "text/html"} {
		a := s.get("/", "Accept", accepted)
		mustContain(t, a, http.StatusOK, "he database server does not answer") // also if another query waits for it first
		if strings.Contains(a.body, "If it was a change") || strings.Contains(a.body, `"max_connections"`) {
			t.Errorf("%s: it advises the sender of a change, or has figures that nobody counted:\n%s", accepted, a.body)
		}
	}
}

func TestTheStartPageSaysThatTheMonitoringConnectionIsBusy(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	err := s.Monitor().Read(t.Context(), func(*pgx.Conn) error { // it keeps the connection of a server that answers
		mustContain(t, s.get("/"), http.StatusOK, "The monitoring connection is in use by another query")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	mustContain(t, s.get("/"), http.StatusOK, `"max_connections"`)
}

func TestABusyMonitoringConnectionMakesTheServerUnreadyOnlyIfThatLasts(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	mustContain(t, s.get("/readyz"), http.StatusOK, `"ready":true`)
	query := make(chan error, 1)
	go func() {
		query <- s.Monitor().Read(t.Context(), func(*pgx.Conn) error { // of a server that answers
			<-time.After(4 * time.Second)
			return nil
		})
	}()
	for len(query) == 0 {
		<-time.After(100 * time.Millisecond)
		mustContain(t, s.get("/readyz"), http.StatusOK, `"ready":true`)
	}
	if err := <-query; err != nil {
		t.Fatal(err)
	}
	<-time.After(time.Second) // the last answer is given for so long
	mustContain(t, s.get("/readyz"), http.StatusOK, `"ready":true`)
	err := s.Monitor().Read(t.Context(), func(*pgx.Conn) error {
		dbtest.Eventually(t, "it is unready", func() bool { return s.get("/readyz").StatusCode == http.StatusServiceUnavailable })
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	dbtest.Eventually(t, "it is ready again", func() bool { return s.get("/readyz").StatusCode == http.StatusOK })
}
