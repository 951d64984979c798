package config

import (
	"strings"
	"testing"

	"ddtb/db"
)

func TestTheBudgetOfTheFleetIsTheDatabases(t *testing.T) {
	c := mustLoad(t, "[databases.default.pool]\nmax_size = 'auto'\n[fleet]\nbudget = 40")
	d := c.Databases["default"]
	equal(t, "max_size", d.Pool.MaxSize, db.Auto)
	equal(t, "the budget", d.Budget, 40)
	equal(t, "the warnings", c.Warnings, nil)
	equal(t, "max_size as text", Text(d, "pool.max_size"), "auto")
	t.Run("and the environment sets both", func(t *testing.T) {
		c := mustLoad(t, "", "DB_MAX_CONNS=auto", "DDTB_FLEET_BUDGET=40")
		equal(t, "the database", c.Databases["default"], d)
	})
	t.Run("and what is shown of both loads again", func(t *testing.T) {
		var out strings.Builder
		if err := c.WriteTOML(&out); err != nil {
			t.Fatal(err)
		}
		equal(t, "the database", mustLoad(t, out.String()).Databases["default"], d)
	})
	t.Run("and is warned of where nothing follows it", func(t *testing.T) {
		c := mustLoad(t, "[fleet]\nbudget = 40")
		equal(t, "the number of warnings", len(c.Warnings), 1)
		equal(t, "the warning", strings.Contains(c.Warnings[0], "fleet.budget is set"), true)
	})
	t.Run("and is warned of where it is smaller than the number of processes", func(t *testing.T) {
		c := mustLoad(t, "[databases.default.pool]\nmax_size = 'auto'\n[fleet]\nbudget = 2\n[server]\nreplicas = 4")
		equal(t, "the number of warnings", len(c.Warnings), 1)
		equal(t, "the warning", strings.Contains(c.Warnings[0], "Set it to 4 at least"), true)
	})
	t.Run("and an edit to automatic size needs a server without a pooler", func(t *testing.T) {
		d := db.DefaultSettings()
		d.Pooler = db.PgBouncer
		_, problems := Edit(d, map[string]string{"pool.max_size": "auto"})
		equal(t, "the problem", problems["pool.max_size"], db.ErrPooledBudget.Error())
		d.Pooler = ""
		d, problems = Edit(d, map[string]string{"pool.max_size": "auto"})
		equal(t, "the number of problems", len(problems), 0)
		equal(t, "max_size", d.Pool.MaxSize, db.Auto)
	})
}
