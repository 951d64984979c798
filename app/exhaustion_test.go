package app_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

// small is a server with 20 slots, 3 of them for superusers. The test's connection takes one, and the application's
// monitoring another: 15 are left.
const (
	smallSlots = 20
	smallFree  = smallSlots - 3 - 2
)

// smallSite starts the application on a database of the small server. Its only other session is the control connection.
func smallSite(t *testing.T, server *dbtest.Server, set func(*config.Database)) (*site, *pgx.Conn) {
	t.Helper()
	cfg := server.Config(t)
	s := siteOn(t, cfg, func(c *config.Config) { setDatabase(c, set) })
	control := dbtest.Control(t, cfg)
	s.loadDemo()
	dbtest.Eventually(t, "nobody else is on the server", func() bool {
		var n int
		if err := control.QueryRow(context.Background(), `SELECT count(*) FROM pg_stat_activity
			WHERE backend_type = 'client backend' AND application_name <> 'ddtb/monitor'`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n == 1
	})
	return s, control
}

// oneByOne sends requests in sequence, each on a new client connection, like `ab -c 1`.
func (s *site) oneByOne(n int) (served, failed []answer) {
	s.t.Helper()
	for range n {
		a, err := s.send(s.t.Context(), fresh, http.MethodGet, "/polls/", nil, "Accept", "application/json")
		if err != nil {
			s.t.Fatal(err)
		}
		if a.StatusCode == http.StatusOK {
			served = append(served, a)
		} else {
			failed = append(failed, a)
		}
	}
	return served, failed
}

func TestSlotsRunOut(t *testing.T) {
	t.Parallel()
	server := dbtest.NewServer(t, dbtest.Options{MaxConnections: smallSlots})
	t.Run("one request after another uses up those of a threaded server with persistent connections",
		func(t *testing.T) { oneAfterAnother(t, server) })
	t.Run("a page says so in one sentence", func(t *testing.T) { saysSoInOneSentence(t, server) })
	t.Run("a switch makes room at once, although a request is under way", func(t *testing.T) { switchMakesRoom(t, server) })
	t.Run("more requests at once than slots fail without a bound", func(t *testing.T) { moreThanSlots(t, server) })
}

func oneAfterAnother(t *testing.T, server *dbtest.Server) {
	t.Run("persistent", func(t *testing.T) {
		s, control := smallSite(t, server, persistent)
		served, failed := s.oneByOne(2 * smallSlots)
		if peak := s.backends(control); len(served) != smallFree || peak != smallFree {
			t.Errorf("%d of %d were served, with %d backends; want %d", len(served), 2*smallSlots, peak, smallFree)
		}
		if st := s.DB().Stat(); st.Leases != 0 || st.Idle != smallFree {
			t.Errorf("nobody is there any more, yet %+v", st)
		}
		for _, a := range failed {
			mustBeExhausted(t, a)
		}
		if len(s.log.Lines("level=WARN", `cause="slots exhausted"`, "sqlstate=53300", "path=/polls/", "strategy=persistent")) == 0 {
			t.Errorf("the log does not tell of the first failure:\n%s", s.log)
		}
		s.mustWarn("No database connection: slots exhausted", len(failed))
		s.mustStillSeeTheServer()
		dbtest.Eventually(t, "it is not ready, although its own connection works", func() bool {
			s.oneByOne(1)
			r := s.ready()
			return !r.Ready && r.Cause == db.SlotsExhausted && strings.Contains(r.Detail, "no connection slot left")
		})
		s.reconfigure(pool)
		if served, failed := s.oneByOne(2 * smallSlots); len(failed) > 0 {
			t.Errorf("after the switch to the pool %d were served, and %d failed: %s", len(served), len(failed), failed[0].body)
		}
		if n := dbtest.Backends(t, control, "ddtb/persistent"); n != 0 {
			t.Errorf("%d backends of the old strategy are left", n)
		}
		dbtest.Eventually(t, "it is ready again", func() bool { return s.ready().Ready })
	})
	for _, fix := range strategies {
		if fix.name == "persistent" {
			continue
		}
		t.Run(fix.name, func(t *testing.T) {
			s, control := smallSite(t, server, fix.set)
			if served, failed := s.oneByOne(2 * smallSlots); len(failed) > 0 {
				t.Errorf("%d were served, and %d failed: %s", len(served), len(failed), failed[0].body)
			}
			if n := s.backends(control); n > 5 {
				t.Errorf("%d backends are left", n)
			}
		})
	}
}

// mustBeExhausted checks a response to a client that asked for JSON.
func mustBeExhausted(t *testing.T, a answer) {
	t.Helper()
	var p struct {
		Status int
		Title  string
		Detail string
		Cause  db.Cause
	}
	err := json.Unmarshal([]byte(a.body), &p)
	if a.StatusCode != 503 || a.header("Content-Type") != "application/problem+json" || a.header("Retry-After") == "" ||
		a.header("Cache-Control") != "no-store" || err != nil || p.Status != 503 || p.Cause != db.SlotsExhausted ||
		p.Title != "No database connection: slots exhausted" || p.Detail == "" {
		t.Errorf("%s, %v, %v\n%s", a.Status, a.Header, err, a.body)
	}
}

// mustStillSeeTheServer requests the figures that an operator needs most during an outage.
func (s *site) mustStillSeeTheServer() {
	s.t.Helper()
	var home struct {
		Info struct {
			Max, Used, Free int
			Error           string
		} `json:"connection_info"`
	}
	a := s.get("/")
	if err := json.Unmarshal([]byte(a.body), &home); err != nil || home.Info.Error != "" || home.Info.Free != 0 || home.Info.Used < smallFree {
		s.t.Errorf("the figures while no slot is left: %v\n%s", err, a.body)
	}
	if a := s.get("/healthz"); a.StatusCode != http.StatusOK {
		s.t.Errorf("/healthz while no slot is left: %s", a.Status)
	}
}

func saysSoInOneSentence(t *testing.T, server *dbtest.Server) {
	s, control := smallSite(t, server, persistent)
	s.oneByOne(smallSlots)
	a := s.get("/polls/", "Accept", "text/html")
	mustContain(t, a, 503, "The database server has no connection slot left: all are taken.", "an administrator has to close some")
	if a.header("Retry-After") != "1" {
		t.Errorf("Retry-After: %q", a.header("Retry-After"))
	}
	dbtest.KillBackends(t, control, s.application())
	dbtest.Eventually(t, "it serves again when the slots are free", func() bool { return s.get("/polls/").StatusCode == http.StatusOK })
}

func switchMakesRoom(t *testing.T, server *dbtest.Server) {
	s, control := smallSite(t, server, persistent)
	ctx, end := s.DB().Begin(t.Context())
	defer end()
	if _, err := s.DB().Exec(ctx, "SELECT 1"); err != nil {
		t.Fatal(err)
	}
	if served, _ := s.oneByOne(smallSlots); len(served) != smallFree-1 {
		t.Errorf("%d were served", len(served))
	}
	s.reconfigure(pool)
	if a := s.get("/polls/"); a.StatusCode != http.StatusOK {
		t.Errorf("the first request after the switch: %s\n%s", a.Status, a.body)
	}
	if n := dbtest.Backends(t, control, "ddtb/persistent"); n != 1 {
		t.Errorf("%d backends of the old strategy, want that of the request under way", n)
	}
	if _, err := s.DB().Exec(ctx, "SELECT 1"); err != nil {
		t.Errorf("the request that was under way: %v", err)
	}
	end()
	dbtest.Eventually(t, "its backend is gone too", func() bool { return dbtest.Backends(t, control, "ddtb/persistent") == 0 })
}

func TestIdleKeepAliveClientsPinABackendEach(t *testing.T) {
	t.Parallel()
	const clients = 12
	database := dbtest.Config(t)
	for name, c := range map[string]struct {
		set               func(*config.Database)
		while, afterwards int
	}{
		"persistent":              {persistent, clients, clients},
		"persistent with reap":    {strategies[2].set, clients, 0},
		"persistent with workers": {strategies[3].set, 1, 1},
		"pool":                    {pool, 1, 1},
		"per-request":             {perRequest, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := siteOn(t, database, func(cfg *config.Config) { setDatabase(cfg, c.set) })
			control := dbtest.Control(t, database)
			idle := make([]*http.Client, clients)
			for i := range idle {
				idle[i] = newClient()
				if a, err := s.send(t.Context(), idle[i], http.MethodGet, "/polls/", nil); err != nil || a.StatusCode != 200 {
					t.Fatal(err, a.Status)
				}
				s.mustBeIdle()
			}
			if n := s.backends(control); n != c.while {
				t.Errorf("%d idle clients: %d backends, want %d", clients, n, c.while)
			}
			for _, i := range idle {
				i.CloseIdleConnections()
			}
			dbtest.Eventually(t, fmt.Sprintf("%d backends when all are gone", c.afterwards), func() bool { return s.backends(control) == c.afterwards })
		})
	}
}

// A locked table keeps every request in its query, so that all run at once.
func moreThanSlots(t *testing.T, server *dbtest.Server) {
	const crowd = 25
	for name, c := range map[string]struct {
		set    func(*config.Database)
		served int
	}{
		"per-request":              {perRequest, smallFree},
		"per-request with a bound": {func(c *config.Database) { perRequest(c); c.PerRequest.MaxSize = 5 }, crowd},
		"persistent with workers":  {strategies[3].set, crowd},
		"pool":                     {pool, crowd},
	} {
		t.Run(name, func(t *testing.T) {
			s, control := smallSite(t, server, c.set)
			tx, err := control.Begin(t.Context())
			if err == nil {
				_, err = tx.Exec(t.Context(), "LOCK TABLE polls_question IN ACCESS EXCLUSIVE MODE")
			}
			if err != nil {
				t.Fatal(err)
			}
			answers := s.atOnce(c.served)
			dbtest.Eventually(t, "each has a place or waits for one", func() bool {
				var inside int // they wait for the table; a login that is under way may still be refused
				if err := tx.QueryRow(t.Context(), `SELECT count(*) FROM pg_locks
					WHERE NOT granted AND relation = 'polls_question'::regclass`).Scan(&inside); err != nil {
					t.Fatal(err)
				}
				st := s.DB().Stat()
				return st.Leases+st.Waiting == c.served && st.Leases == inside
			})
			others := s.atOnce(crowd - c.served)
			for range crowd - c.served {
				mustBeExhausted(t, <-others)
			}
			if err := tx.Rollback(t.Context()); err != nil {
				t.Fatal(err)
			}
			for range c.served {
				if a := <-answers; a.StatusCode != http.StatusOK {
					t.Errorf("%s\n%s", a.Status, a.body)
				}
			}
		})
	}
}

// atOnce sends the requests concurrently; the channel has their responses in order of arrival.
func (s *site) atOnce(n int) <-chan answer {
	answers := make(chan answer, n)
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			a, err := s.send(context.WithoutCancel(s.t.Context()), fresh, http.MethodGet, "/polls/", nil, "Accept", "application/json")
			if err != nil {
				s.t.Error(err)
				a.Response = &http.Response{Status: err.Error()}
			}
			answers <- a
		})
	}
	s.t.Cleanup(wg.Wait)
	return answers
}
