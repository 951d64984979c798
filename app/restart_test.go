package app_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/labstack/echo/v4"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

// sleepsInTx is a page whose transaction is under way until its session ends.
func (s *site) sleepsInTx(c echo.Context) error {
	return s.DB().InTx(c.Request().Context(), func(q db.Querier) error {
		_, err := q.Exec(c.Request().Context(), "SELECT pg_sleep(60)")
		return err
	})
}

func TestARestartOfTheServerIsOneMailOneEventAndOneMailOfItsEnd(t *testing.T) {
	t.Parallel()
	server := dbtest.NewServer(t, dbtest.Options{})
	set, mails, events := withListeners(t)
	s := siteOn(t, server.Config(t), func(c *config.Config) { set(c); setDatabase(c, pool) })
	s.loadDemo()
	s.AddPage("/sleeps", s.sleepsInTx)
	var underWay sync.WaitGroup
	underWay.Go(func() {
		if a, err := s.send(t.Context(), fresh, http.MethodGet, "/sleeps", nil); err != nil || a.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("the request under way: %v, %v", a.Status, err)
		}
	})
	control := dbtest.Control(t, server.Config(t))
	dbtest.Eventually(t, "its query is under way", func() bool {
		var n int
		err := control.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'").Scan(&n)
		return err == nil && n == 1
	})
	server.Stop(t, "fast")
	underWay.Wait()
	for range 3 {
		for _, path := range []string{"/polls/", "/polls/1/", "/polls/1/results/"} {
			mustContain(t, s.get(path), http.StatusServiceUnavailable, "")
		}
	}
	server.Start(t)
	dbtest.Eventually(t, "requests are served again", func() bool { return s.get("/polls/").StatusCode == http.StatusOK })
	dbtest.Eventually(t, "its end is reported", func() bool { return len(mails.all()) > 1 })
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	if m, e := len(mails.all()), len(events.Items("event")); m != 2 || e != 1 {
		t.Fatalf("%d mails and %d events:\n%s", m, e, strings.Join(mails.all(), "\n"))
	}
	for i, words := range [][]string{
		{"Subject: [ddtb] server unavailable on /sleeps", "An administrator's command ended the session (57P01)"},
		{"Subject: [ddtb] Recovered: connections again", "server unavailable: "},
	} {
		for _, w := range words {
			if mail := strings.ReplaceAll(mails.all()[i], "=\r\n", ""); !strings.Contains(mail, w) {
				t.Errorf("mail %d lacks %q:\n%s", i, w, mail)
			}
		}
	}
}
