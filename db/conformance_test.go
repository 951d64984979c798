package db_test

import (
	"flag"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

func TestMain(m *testing.M) {
	if settings := os.Getenv(processVariable); settings != "" {
		os.Exit(budgetProcess(settings))
	}
	// Tests that run in parallel wait for servers more than they work. The flag on the command line is parsed later.
	_ = flag.Set("test.parallel", strconv.Itoa(max(4, runtime.GOMAXPROCS(0))))
	dbtest.Run(m)
}

func TestEveryStrategyKeepsTheContract(t *testing.T) {
	for name, s := range map[string]struct {
		bound int
		set   func(*config.Database)
	}{
		"per-request": {0, func(c *config.Database) { c.Strategy = db.PerRequest }},
		"per-request, at most 3": {3, func(c *config.Database) {
			c.Strategy, c.PerRequest.MaxSize = db.PerRequest, 3
		}},
		"persistent": {0, func(c *config.Database) { c.Strategy = db.Persistent }},
		"persistent, reaped": {0, func(c *config.Database) {
			c.Strategy, c.Persistent.Reap = db.Persistent, true
		}},
		"persistent, 3 workers": {3, func(c *config.Database) {
			c.Strategy, c.Persistent.Workers = db.Persistent, 3
		}},
		"persistent, for ever": {0, func(c *config.Database) {
			c.Strategy, c.Persistent.ConnMaxAge = db.Persistent, db.Forever
		}},
		"pool":      {3, func(c *config.Database) { c.Strategy, c.Pool.MaxSize = db.Pool, 3 }},
		"multiplex": {3, func(c *config.Database) { c.Strategy, c.Pool.MaxSize = db.Multiplex, 3 }},
		"pool, with idle connections": {3, func(c *config.Database) {
			c.Strategy, c.Pool.MaxSize, c.Pool.MaxIdle = db.Pool, 3, time.Hour
		}},
		"pool, of a budget": {3, auto(3)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it waits for the server more than it works
			conformance(t, s.bound, s.set)
		})
	}
}
