package app_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
}

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
		b := activity.PlanBudget(cfg, 3, 0, activity.Slots{Max: 100})
		if b.Pool != 5 || b.Strategy != "mine" {
			t.Errorf("%+v", b)
		}
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
