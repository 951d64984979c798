package app_test

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/PuerkitoBio/goquery"
	"github.com/jackc/pgx/v5"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

// TestADryPoolIsSaidEverywhere leaks every lease of a pool, and checks every place that must report it.
func TestADryPoolIsSaidEverywhere(t *testing.T) {
	t.Parallel()
	s := newBoard(t, func(c *config.Config) {
		setDatabase(c, pool)
		setDatabase(c, func(d *config.Database) { d.Pool.MaxSize, d.Pool.MinSize, d.Pool.Timeout = 2, 0, 300*time.Millisecond })
	})
	cookie := s.login("ada")
	var leases []*db.Lease
	for range 2 {
		l := s.mustAcquire()
		defer l.Release()
		leases = append(leases, l)
	}
	dbtest.Eventually(t, "it is unready", func() bool {
		s.get("/polls/", "Accept", "application/json")
		r := s.ready()
		return !r.Ready && r.Cause == db.PoolTimeout && r.Detail != ""
	})
	t.Run("the dashboard, above everything", func(t *testing.T) { s.in(t).mustDiagnose(cookie) })
	t.Run("metrics", func(t *testing.T) {
		mustContain(t, s.get("/metrics"), 200, `ddtb_finding_level{finding="pool-stalled"} 2`, `ddtb_finding_level{finding="requests-lost"} 2`,
			`ddtb_finding_level{finding="lease-leak"} 0`)
	})
	t.Run("the start page, without a line of code", func(t *testing.T) {
		a := s.get("/", "Accept", "text/html")
		if mustContain(t, a, 200, "All 2 database connections of this application are in use, and none has been released"); strings.Contains(a.body, "_test.go") {
			t.Errorf("a stranger reads:\n%s", a.body)
		}
	})
	t.Run("the error page, with the id that the log has", func(t *testing.T) { s.in(t).mustExplainItself() })
	t.Run("whoever signs in lands on the dashboard", func(t *testing.T) {
		a := s.post("/admin/login/", url.Values{"username": {"ada"}, "password": {testPassword}})
		if a.StatusCode != 302 || a.header("Location") != connections {
			t.Errorf("%s to %q", a.Status, a.header("Location"))
		}
	})
	leases[0].Release()
	dbtest.Eventually(t, "it is ready again", func() bool { return s.ready().Ready })
	mustContain(t, s.get("/polls/", "Accept", "text/html"), 200)
}

func (s *site) mustDiagnose(cookie string) {
	s.t.Helper()
	a := s.get(connections, "Cookie", cookie)
	mustContain(s.t, a, 200, "Critical", "All 2 leases", "site_test.go", "Switch the strategy", `href="/lab/rows-not-closed/"`, "bin/ddtb lab run rows-not-closed")
	if n := strings.Count(a.body, "release the lease on every way out"); n != 1 {
		s.t.Errorf("the first step is there %d times", n)
	}
	if strings.Contains(a.body, "`") {
		s.t.Error("a backtick is on the page")
	}
	if strings.Index(a.body, `id="findings"`) > strings.Index(a.body, `class="charts"`) {
		s.t.Error("the diagnosis is below the charts")
	}
}

func (s *site) mustExplainItself() {
	s.t.Helper()
	dbtest.Eventually(s.t, "a page has its request's id", func() bool {
		<-time.After(1100 * time.Millisecond) // of many in a second, the log has the first
		a := s.get("/polls/", "Accept", "text/html")
		mustContain(s.t, a, 503, connections)
		id := a.header("X-Request-Id")
		shown, logged := strings.Contains(a.body, id), s.log.Count("level=WARN", id) == 1
		if shown != logged {
			s.t.Fatalf("the log has %s: %t, and the page says so: %t\n%s", id, logged, shown, a.body)
		}
		return shown
	})
}

func TestTheStartPageHidesTheDatabasesAddress(t *testing.T) {
	t.Parallel()
	cfg := nobodyListens(t)
	s := siteOn(t, cfg, nil)
	for _, accept := range []string{"text/html", "application/json"} {
		a := s.get("/", "Accept", accept)
		if mustContain(t, a, 200, "does not answer"); strings.Contains(a.body, fmt.Sprint(cfg.Port)) {
			t.Errorf("%s:\n%s", accept, a.body)
		}
	}
}

// TestASuperuserEndsSessionsWhileEverySlotIsTaken also tests users without the permission.
func TestASuperuserEndsSessionsWhileEverySlotIsTaken(t *testing.T) {
	t.Parallel()
	server := dbtest.NewServer(t, dbtest.Options{MaxConnections: smallSlots})
	cfg := server.Config(t)
	s := boardOn(t, cfg, func(c *config.Config) { setDatabase(c, pool) })
	control := dbtest.Control(t, cfg)
	s.addStaff(control, "bob")
	ada, bob := s.login("ada"), s.login("bob")
	s.client.CloseIdleConnections()
	victim := s.victim(cfg)
	fillUp(t, cfg)
	pid := fmt.Sprint(victim.PgConn().PID())

	page := s.until(ada, "the session is listed", func(a answer) bool { return strings.Contains(a.body, ">"+pid+"<") })
	if !strings.Contains(page.body, "session/?pid="+pid) || strings.Contains(s.get(connections, "Cookie", bob).body, "session/?pid=") {
		t.Error("the superuser has no link, or the other has one")
	}
	question := connections + "session/?pid=" + pid
	mustContain(t, s.get(question, "Cookie", bob), 403, "Only a superuser")
	form := s.question(question, ada)
	mustContain(t, s.post(connections+"session/", form, "Cookie", bob), 403, "Only a superuser")
	if err := victim.Ping(t.Context()); err != nil {
		t.Fatalf("it was ended by whoever may not: %v", err)
	}
	stale := url.Values{"pid": {pid}, "started": {"2001-01-01T00:00:00Z"}, "do": {"terminate"}}
	s.post(connections+"session/", stale, "Cookie", ada)
	if err := victim.Ping(t.Context()); err != nil {
		t.Fatalf("another session with this pid was meant: %v", err)
	}
	if a := s.post(connections+"session/", form, "Cookie", ada); a.StatusCode != 303 {
		t.Fatalf("%s\n%s", a.Status, a.body)
	}
	if err := victim.Ping(t.Context()); err == nil {
		t.Error("the session is still there")
	}
	mustContain(t, s.get(connections, "Cookie", ada), 200, "ada terminated session "+pid+" of victim")
	var said string
	if err := control.QueryRow(t.Context(), `SELECT change_message FROM django_admin_log WHERE object_repr = $1`, "Session "+pid).Scan(&said); err != nil || !strings.Contains(said, "victim") {
		t.Errorf("the history says %q, %v", said, err)
	}
	mustContain(t, s.get(question, "Cookie", ada), 200, "It has ended")
}

func TestTheDashboardCancelsTheQueryThatItShowed(t *testing.T) {
	t.Parallel()
	cfg := dbtest.Config(t)
	s := boardOn(t, cfg, func(c *config.Config) { setDatabase(c, pool) })
	ada, victim := s.login("ada"), s.victim(cfg)
	sleep := func() (ended chan error) {
		ended = make(chan error, 1)
		go func() {
			_, err := victim.Exec(context.Background(), "SELECT pg_sleep(60)")
			ended <- err
		}()
		return ended
	}
	path := fmt.Sprintf("%ssession/?pid=%d", connections, victim.PgConn().PID())
	shown := func() url.Values {
		s.until(ada, "its query is listed", func(answer) bool { return strings.Contains(s.get(path, "Cookie", ada).body, "Cancel its query") })
		form := s.question(path, ada)
		form.Set("do", "cancel")
		return form
	}
	first := sleep()
	old := shown()
	s.post(connections+"session/", old, "Cookie", ada)
	if err := <-first; err == nil {
		t.Error("it was not cancelled")
	}
	second := sleep()
	now := shown()
	s.post(connections+"session/", old, "Cookie", ada)
	mustContain(t, s.get(connections, "Cookie", ada), 200, "Nothing was done")
	s.post(connections+"session/", now, "Cookie", ada)
	if err := <-second; err == nil {
		t.Error("the second one was not cancelled")
	}
}

// victim is a session of the application's role that runs nothing.
func (s *site) victim(cfg config.Database) *pgx.Conn {
	s.t.Helper()
	c, err := pgx.Connect(context.Background(), fmt.Sprintf("host=%s port=%d dbname=%s user=%s password=%s sslmode=%s application_name=victim",
		cfg.Host, cfg.Port, cfg.Name, cfg.User, cfg.Password.Reveal(), cfg.SSLMode))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// question is the form that the page about a session asks with.
func (s *site) question(path, cookie string) url.Values {
	s.t.Helper()
	doc, err := goquery.NewDocumentFromReader(strings.NewReader(s.get(path, "Cookie", cookie).body))
	if err != nil {
		s.t.Fatal(err)
	}
	form := url.Values{"do": {"terminate"}}
	doc.Find("main form input").Each(func(_ int, in *goquery.Selection) { form.Set(in.AttrOr("name", ""), in.AttrOr("value", "")) })
	return form
}

func TestTheMonitorIsNoSessionToEnd(t *testing.T) {
	t.Parallel()
	s := newBoard(t, func(c *config.Config) { setDatabase(c, func(d *config.Database) { d.ApplicationName = "monitored" }) })
	ada := s.login("ada")
	page := s.until(ada, "the server was looked at", func(a answer) bool { return strings.Contains(a.body, "monitored/monitor") })
	_, list, _ := strings.Cut(page.body, `data-table="sessions"`)
	if list, _, _ = strings.Cut(list, "</table>"); strings.Contains(list, "monitored/monitor") {
		t.Errorf("the list has the monitor:\n%s", list)
	}
	var pid int
	err := s.Monitor().Do(t.Context(), func(c *pgx.Conn) error { pid = int(c.PgConn().PID()); return nil })
	if err != nil {
		t.Fatal(err)
	}
	mustContain(t, s.get(fmt.Sprintf("%ssession/?pid=%d", connections, pid), "Cookie", ada), 200, "It has ended, or is not one")
	mustContain(t, s.get(connections+"session/?pid=x", "Cookie", ada), 400, "choose one from the list")
}

func TestATestInABrowserIsAPage(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *config.Config) { setDatabase(c, pool) })
	html := []string{"Accept", "text/html"}
	mustContain(t, s.get("/test/pool-stress?threads=3&hold=10ms&max_size=1&strategy=pool&timeout=2s", html...), 200,
		"<h1>Pool stress</h1>", "3 holders", "<meter", "/lab/slow-query-pile-up/", "peak_connections")
	mustContain(t, s.get("/test/connection-leak?count=1&reclaim=10ms", html...), 200, "1 of 1 leases were acquired and not released", "leak.go:")
	mustContain(t, s.get("/test/sentry-db-interaction", html...), 200, "<h1>Sentry and the database</h1>", "/lab/hook-queries/")
	navigation := append(html, "Sec-Fetch-Mode", "navigate")
	mustContain(t, s.get("/test/pool-stress?threads=3", navigation...), 200, "The test is running")
	mustContain(t, s.get("/test/pool-stress?threads=many", navigation...), 400, "give a whole number")
	for _, path := range []string{"/test/pool-stress?timeout=12s", "/test/connection-leak?timeout=12s"} {
		mustContain(t, s.get(path, html...), 400, "the current strategy gives up after 10s")
	}
}
