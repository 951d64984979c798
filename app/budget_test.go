package app_test

import (
	"errors"
	"maps"
	"net/url"
	"testing"

	"ddtb/config"
	"ddtb/db/activity"
	"ddtb/db/dbtest"
)

func TestNoChangeOfTheRunningServerEscapesAStrictBudget(t *testing.T) {
	t.Parallel()
	server := dbtest.NewServer(t, dbtest.Options{MaxConnections: 30})
	s := boardOn(t, server.Config(t), func(c *config.Config) {
		c.Server.StrictBudget, c.Server.Replicas = true, 5 // one more connection of each process does not fit
		setDatabase(c, func(d *config.Database) { pool(d); d.Pool.MaxSize = 1 })
	})
	t.Run("a replica that is added to the file", func(t *testing.T) {
		cfg := *s.cfg
		cfg.Databases = maps.Clone(cfg.Databases)
		cfg.Databases["replica"] = cfg.Databases["default"]
		if _, err := s.Reconfigure(t.Context(), &cfg); !isBudgetError(err) {
			t.Errorf("the error is %v", err)
		}
		if s.DB().Replica() != nil {
			t.Error("it is in use")
		}
	})
	t.Run("a size that is set on the dashboard", func(t *testing.T) {
		cookie := s.login("ada")
		a := s.post(connections, url.Values{"strategy": {"pool"}, "pool.max_size": {"2"}}, "Cookie", cookie)
		mustContain(t, a, 200, "The connection budget does not fit", `value="2"`)
		if got := s.DB().Config().Pool.MaxSize; got != 1 {
			t.Errorf("max_size is %d", got)
		}
		if a := s.post(connections, url.Values{"strategy": {"pool"}, "pool.timeout": {"7s"}}, "Cookie", cookie); a.StatusCode != 303 {
			t.Errorf("one that fits: %s\n%s", a.Status, a.body)
		}
	})
}

func isBudgetError(err error) bool {
	_, ok := errors.AsType[*activity.BudgetError](err)
	return ok
}
