package app_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/activity"
	"ddtb/db/dbtest"
)

// mine is a strategy that no code but this test names. It is a pool that is half as large as its setting says.
func init() {
	spec, _ := db.Lookup(db.Pool)
	size := spec.Size
	spec.Name, spec.Description = "mine", "a strategy of a test, which no other code names"
	spec.Size = func(s db.Settings) int { return max(1, size(s)/2) }
	spec.Backends = spec.Size
	db.Register(spec)
	db.Figures = append(db.Figures, db.Figure[db.Stat]{
		Name: "ddtb_mine", Key: "mine", Title: "A figure of a test", Help: "Always 42.", Gauge: func(*db.Stat) float64 { return 42 },
	})
	db.Causes = append(db.Causes, db.CauseSpec{
		Cause: mine, Lasts: true, Advice: "Only the test can help.", Sentence: func(e *db.ConnError) string { return "The test waited for " + e.Waited.String() + "." },
	})
}

// mine is a cause that no code but this test names.
const mine db.Cause = "cause of a test"

func TestARegisteredStrategyIsEverywhere(t *testing.T) {
	cfg := dbtest.Config(t)
	cfg.Strategy, cfg.Pool.Timeout = "mine", 5*time.Second
	s := boardOn(t, cfg, nil)
	s.get("/polls/")

	t.Run("in the configuration file", func(t *testing.T) {
		if c, err := load(t, "mine"); err != nil || c.Databases["default"].Strategy != "mine" {
			t.Errorf("%v", err)
		}
	})
	t.Run("in the hint for a name that is nearly right", func(t *testing.T) {
		if _, err := load(t, "mime"); err == nil || !strings.Contains(err.Error(), `did you mean "mine"?`) {
			t.Errorf("%v", err)
		}
	})
	t.Run("in the labels of the metrics", func(t *testing.T) {
		m := s.metrics()
		for _, name := range []string{
			"pgxpool_acquire_count", "ddtb_acquire_seconds_count", "ddtb_connects_total", "pgxpool_max_conns", "pgxpool_acquired_conns",
		} {
			if _, there := m[name+`{strategy="mine"}`]; !there {
				t.Errorf("%s has no series for it", name)
			}
		}
	})
	t.Run("in the dashboard's form", func(t *testing.T) {
		page := s.get(connections, "Cookie", s.login("ada")).body
		for _, want := range []string{`value="mine"`, "a strategy of a test, which no other code names"} {
			if !strings.Contains(page, want) {
				t.Errorf("the page has no %s", want)
			}
		}
	})
	t.Run("in the index of the test endpoints", func(t *testing.T) {
		if a := s.get("/test/", "Accept", "application/json"); !strings.Contains(a.body, "mine, multiplex, per-request, persistent or pool: run") {
			t.Error(a.body)
		}
	})
	t.Run("in a run of the pool stress", func(t *testing.T) {
		a := s.get("/test/pool-stress?strategy=mine&max_size=4&threads=3&hold=50ms", "Accept", "application/json")
		for _, want := range []string{`"strategy":"mine"`, `"max_size":4`, `"successes":3`, `"peak_connections":2`} {
			if !strings.Contains(strings.ReplaceAll(a.body, `": `, `":`), want) {
				t.Errorf("no %s in %s", want, a.body)
			}
		}
	})
	t.Run("in the budget", func(t *testing.T) {
		b := activity.PlanBudget(cfg, false, 3, 0, activity.Slots{Max: 100})
		if b.Pool != 5 || b.Strategy != "mine" {
			t.Errorf("%+v", b)
		}
	})
}

func TestARegisteredFigureIsEverywhere(t *testing.T) {
	s := newBoard(t, nil)
	t.Run("in /metrics", func(t *testing.T) { s.metrics().must(t, `ddtb_mine{strategy="pool"}`, 42) })
	t.Run("in the JSON of the start page", func(t *testing.T) { mustContain(t, s.get("/"), 200, `"mine": 42`) })
	t.Run("on the dashboard", func(t *testing.T) {
		mustContain(t, s.get(connections, "Cookie", s.login("ada")), 200, "<td>A figure of a test</td><td class=\"num\">42</td>")
	})
	t.Run("in the dashboard's events", func(t *testing.T) {
		table := s.watch(s.login("ada")).mustNext().Tables["counters"]
		if last := table[len(table)-1]; last[0] != "A figure of a test" || last[1] != "42" {
			t.Errorf("%q", table)
		}
	})
}

func TestARegisteredCauseIsEverywhere(t *testing.T) {
	s := newBoard(t, nil)
	s.AddPage("/mine", func(echo.Context) error {
		return &db.ConnError{Cause: mine, Waited: time.Second, Err: errors.New("secret")}
	})
	t.Run("on the page, with its advice and status", func(t *testing.T) {
		a := s.get("/mine", "Accept", "text/html")
		mustContain(t, a, 503, "No database connection: cause of a test", "The test waited for 1s.", "Only the test can help.")
		if a.header("Retry-After") != "" {
			t.Error("it asks to try again, although the cause lasts")
		}
	})
	t.Run("in /metrics", func(t *testing.T) {
		m := s.metrics()
		m.must(t, `ddtb_failures_total{cause="cause of a test"}`, 1)
		m.must(t, `ddtb_acquire_failures_total{cause="cause of a test",strategy="pool"}`, 0)
	})
	t.Run("on the dashboard", func(t *testing.T) {
		mustContain(t, s.get(connections, "Cookie", s.login("ada")), 200, "<td>cause of a test</td>", "The test waited for 1s.")
	})
}

func load(t *testing.T, strategy string) (*config.Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ddtb.toml")
	if err := os.WriteFile(path, []byte("[databases.default]\nstrategy = \""+strategy+"\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return config.Load(config.Options{File: path})
}
