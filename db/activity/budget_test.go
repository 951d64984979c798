package activity

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"ddtb/config"
	"ddtb/db"
)

func TestTheBudgetIsThatOfARollingDeploy(t *testing.T) {
	slots := Slots{Max: 100, Reserved: 3}
	pool := func(n int) config.Database {
		return config.Database{Strategy: db.Pool, Pool: db.PoolSettings{MaxSize: n}}
	}
	for name, c := range map[string]struct {
		cfg                     config.Database
		replicas, extras        int
		needed, fitsPool, raise int
		fits                    bool
		inAdvice                string
	}{
		"one replica":               {pool(10), 1, 1, 23, 47, 26, true, ""},
		"just fits":                 {pool(11), 4, 1, 97, 11, 100, true, ""},
		"one too many":              {pool(11), 4, 2, 98, 10, 101, false, "set pool.max_size to 10 at most; or raise max_connections from 100 to 101"},
		"no pool fits":              {pool(5), 50, 0, 600, 0, 603, false, "raise max_connections from 100 to 603"},
		"others have all the slots": {pool(5), 1, 97, 109, 0, 112, false, "PgBouncer"},
		"no bound": {
			config.Database{Strategy: db.Persistent}, 2, 1, 0, 23, 12, false, "set persistent.workers to 23 at most; or run fewer",
		},
		"no bound on connections for requests": {
			config.Database{Strategy: db.PerRequest}, 2, 1, 0, 23, 12, false, "set per_request.max_size to 23 at most",
		},
		"a bound on them": {
			config.Database{Strategy: db.PerRequest, PerRequest: db.PerRequestSettings{MaxSize: 20}}, 2, 1, 85, 23, 88, true, "",
		},
	} {
		b := PlanBudget(c.cfg, false, c.replicas, c.extras, slots)
		if b.Needed != c.needed || b.FitsPool != c.fitsPool || b.Fits != c.fits || b.ToRaise != c.raise {
			t.Errorf("%s: %+v", name, b)
		}
		if !strings.Contains(b.Advice(), c.inAdvice) || (b.Advice() == "") != c.fits {
			t.Errorf("%s: advice %q, want %q in it", name, b.Advice(), c.inAdvice)
		}
		if c.fitsPool > 0 && c.cfg.Strategy == db.Pool {
			if at := PlanBudget(pool(c.fitsPool), false, c.replicas, c.extras, slots); !at.Fits {
				t.Errorf("%s: the pool that is said to fit does not: %v", name, at)
			}
			if above := PlanBudget(pool(c.fitsPool+1), false, c.replicas, c.extras, slots); above.Fits {
				t.Errorf("%s: a larger pool fits too: %v", name, above)
			}
		}
	}
}

func TestTheBudgetIsWithinTheLimitsOfTheRoleAndTheDatabase(t *testing.T) {
	s := Snapshot{Slots: Slots{Max: 100, Reserved: 3}, Database: "wall", Role: Role{Name: "app"}, Limits: []Limit{
		{Of: "role", Name: "app", Max: 20}, {Of: "role", Name: "other", Max: 1}, {Of: "database", Name: "wall", Max: 30}, {Of: "database", Name: "elsewhere", Max: 1},
	}}
	pool := func(n int) config.Database {
		return config.Database{Strategy: db.Pool, Pool: db.PoolSettings{MaxSize: n}}
	}
	auto := pool(db.Auto)
	auto.Budget = 30
	behind := pool(10)
	behind.Pooler = db.PgBouncer
	for name, c := range map[string]struct {
		cfg    config.Database
		advice string
	}{
		"it fits":         {pool(9), ""},
		"beyond the role": {pool(10), "raise the limit of role app from 20 to 22 at least; or set pool.max_size to 9 at most; or run fewer"},
		"no bound":        {config.Database{Strategy: db.Persistent}, "set persistent.workers to 9 at most; or run fewer"},
		"a shared budget": {auto, "raise the limit of role app from 20 to 32 at least; or set fleet.budget to 18 at most; or run fewer"},
		"behind a pooler": {behind, ""},
	} {
		b := PlanBudget(c.cfg, false, 1, 1, s.Slots).Within(s, c.cfg)
		if c.cfg.Pooler == "" && b.FitsPool != 9 {
			t.Errorf("%s: a pool of %d fits", name, b.FitsPool)
		}
		if !strings.HasPrefix(b.Advice(), c.advice) || b.Fits != (c.advice == "") {
			t.Errorf("%s: fits %t, %q", name, b.Fits, b.Advice())
		}
	}
}

func TestBehindPgBouncerItsLimitsAreTheBudget(t *testing.T) {
	now := Snapshot{Slots: Slots{Max: 100, Reserved: 3}}
	for name, c := range map[string]struct {
		bouncer  bouncer
		needed   int
		inAdvice string // "": it fits
	}{
		"everything fits":            {bouncer{clients: 100, poolSize: 20, pools: 1, databases: 1}, 20 + 4 + 1, ""},
		"too few clients":            {bouncer{clients: 39, poolSize: 20, pools: 1, databases: 1}, 25, "raise PgBouncer's max_client_conn to 40 at least, or set pool.max_size to 9 at most"},
		"too many pools":             {bouncer{clients: 100, poolSize: 20, pools: 5, databases: 5}, 105, "set PgBouncer's default_pool_size to 18 at most"},
		"pools that share a bound":   {bouncer{clients: 100, poolSize: 20, pools: 5, databases: 1, perDatabase: 30}, 35, ""},
		"a bound for each database":  {bouncer{clients: 100, poolSize: 20, pools: 6, databases: 3, perDatabase: 31}, 98, "raise max_connections from 100 to 101"},
		"a bound that is never full": {bouncer{clients: 100, poolSize: 20, pools: 1, databases: 1, perDatabase: 30}, 25, ""},
	} {
		t.Run(name, func(t *testing.T) {
			now.bouncer = &c.bouncer
			b := PlanBudget(config.Database{Strategy: db.Pool, Pool: db.PoolSettings{MaxSize: 10}}, false, 2, 1, now.Slots).Through(now)
			if b.Needed != c.needed || b.Fits != (c.inAdvice == "") || !strings.Contains(b.Advice(), c.inAdvice) || strings.Contains(b.Advice(), "PgBouncer in front") {
				t.Errorf("needed %d, fits %v: %s: %s", b.Needed, b.Fits, b.Sum(), b.Advice())
			}
		})
	}
}

func TestAServerIsRefusedAStartBeyondItsBudgetIfItIsStrict(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		o := s.observer(t, app)
		exec(t, s.session(t, app, "wall", "shop/pool"), "SELECT 1") // this application's: no extra
		exec(t, s.session(t, other, "wall", "theirs"), "SELECT 1")
		of := func(maxSize int, strict bool) *config.Config {
			cfg := s.config(app, "wall")
			cfg.Pool.MaxSize = maxSize
			return &config.Config{Databases: map[string]config.Database{"default": cfg}, Server: config.Server{Replicas: 1, StrictBudget: strict}}
		}
		b, err := o.CheckBudget(t.Context(), of(4, true))
		if err != nil || !b.Fits || b.Extras != 2 || b.Needed != 12 || b.Usable != s.usable() {
			t.Errorf("%+v, %v", b, err)
		}
		b, err = o.CheckBudget(t.Context(), of(8, false))
		if err != nil || b.Fits {
			t.Errorf("lenient: %+v, %v", b, err)
		}
		_, err = o.CheckBudget(t.Context(), of(8, true))
		if over, is := errors.AsType[*BudgetError](err); !is || over.Needed != 20 {
			t.Errorf("strict: %v", err)
		}
	})
}

func TestAnObservedBudgetIsTheSumOfTheServicesAndOneDeploy(t *testing.T) {
	pool := func(name string, n int) []Session {
		return many(n, with(in(Idle, 0), func(x *Session) { x.Application, x.Address = name, "10.0.0.%d" }))
	}
	s := of(pool("web-1", 15), pool("web-2", 15), pool("api", 8), pool("shop/pool", 4), pool("shop/jobs", 1))
	b := ObservedBudget(s)
	if got := b.Sum(); got != "web 30 + api 8 + shop 5 + web again while it is deployed 30 + an operator 1 = 74, of 97 usable slots" || !b.Fits {
		t.Errorf("%q: %+v", got, b)
	}
	if web := b.Services[0]; web != (Service{"web", 8, 30}) {
		t.Errorf("%+v", web)
	}
	b = ObservedBudget(of(pool("web", 50), pool("api", 20)))
	if b.Fits || b.Needed != 121 || b.FitsPool != 38 || b.ToRaise != 124 {
		t.Errorf("%+v", b)
	}
	for _, key := range []string{"pool.max_size", "persistent.workers", "strategy"} {
		if strings.Contains(b.Advice(), key) {
			t.Errorf("a key of ddtb is advised for a foreign program: %s", b.Advice())
		}
	}
	if fits := ObservedBudget(of(pool("web", 38), pool("api", 20))); !fits.Fits {
		t.Errorf("the pool that is said to fit does not: %s", fits.Sum())
	}
	if nobody := ObservedBudget(of()); !nobody.Fits || nobody.Sum() != "an operator 1 = 1, of 97 usable slots" {
		t.Errorf("%q", nobody.Sum())
	}
}

func TestTheBudgetOfPoolsOfAutomaticSizeIsNoProductOfTheReplicas(t *testing.T) {
	slots := Slots{Max: 100, Reserved: 3}
	auto := func(budget int) config.Database {
		return config.Database{Strategy: db.Pool, Budget: budget, Pool: db.PoolSettings{MaxSize: db.Auto}}
	}
	for name, c := range map[string]struct {
		budget, replicas, extras int
		auto, pool, needed       int
		inAdvice                 string
	}{
		"a budget that is set":         {40, 4, 1, 40, 10, 49, ""},
		"as many slots as are left":    {0, 4, 1, 83, 20, 92, ""},
		"larger than the slots":        {200, 4, 1, 200, 50, 209, "set fleet.budget to 88 at most; or raise max_connections from 100 to 212"},
		"smaller than the processes":   {3, 4, 1, 3, 1, 12, "set fleet.budget to 4 at least"},
		"others have all of the slots": {0, 1, 96, 1, 1, 99, "raise max_connections from 100 to 102"},
	} {
		b := PlanBudget(auto(c.budget), false, c.replicas, c.extras, slots)
		if !b.Auto || b.AutoBudget != c.auto || b.Pool != c.pool || b.Needed != c.needed || b.Fits != (c.inAdvice == "") {
			t.Errorf("%s: %+v", name, b)
		}
		if !strings.Contains(b.Advice(), c.inAdvice) {
			t.Errorf("%s: advice %q, want %q in it", name, b.Advice(), c.inAdvice)
		}
	}
}

func TestASnapshotCountsTheTicketsOfTheBudget(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		cfg := s.config(app, "wall")
		cfg.Strategy, cfg.Pool, cfg.Budget = db.Pool, db.DefaultSettings().Pool, 3
		cfg.Pool.MaxSize = db.Auto
		d, err := db.Open(t.Context(), cfg)
		must(t, err)
		defer func() { must(t, d.Close(context.Background())) }()
		first, err := d.Acquire(t.Context())
		must(t, err)
		defer first.Release()
		second, err := d.Acquire(t.Context())
		must(t, err)
		defer second.Release()
		o := s.observer(t, app)
		if got := snapshot(t, o).Tickets; got.Held < 2 || got.Held > 3 || got.Processes != 1 || got.Needed < 2 {
			t.Errorf("%+v", got)
		}
	})
}

// sharing opens a pool of automatic size.
func (s *server) sharing(t *testing.T, application string, budget int) (*db.DB, *ProcessMonitor) {
	t.Helper()
	cfg := s.config(app, "wall")
	cfg.Strategy, cfg.Pool, cfg.Budget, cfg.ApplicationName = db.Pool, db.DefaultSettings().Pool, budget, application
	cfg.Pool.MaxSize, cfg.Pool.Timeout = db.Auto, time.Minute
	d, err := db.Open(t.Context(), cfg)
	must(t, err)
	t.Cleanup(func() { must(t, d.Close(context.Background())) })
	m := StartProcessMonitor(d)
	t.Cleanup(m.Stop)
	return d, m
}

// budgetFinding polls until the server's sessions and the process have a finding on the budget.
func budgetFinding(t *testing.T, o *Observer, m *ProcessMonitor) (d Diagnosis) {
	t.Helper()
	eventually(t, "there is a finding on the budget", func() bool {
		now := snapshot(t, o)
		now.Processes = []Process{m.Now()}
		thresholds := defaults()
		thresholds.Idle, thresholds.Budget = 2*time.Second, m.db.Config().Budget
		d = Diagnose(now, nil, thresholds)
		return slices.ContainsFunc(d.Health.Findings, func(f Finding) bool { return f.Code == "budget" })
	})
	return d
}

func TestABudgetLargerThanTheServerIsFound(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		d, m := s.sharing(t, "shop", 40)
		lease, err := d.Acquire(t.Context())
		must(t, err)
		defer lease.Release()
		got := budgetFinding(t, s.observer(t, app), m)
		if got.Culprit != "the setting fleet.budget" || !strings.Contains(got.Health.Findings[0].What, fmt.Sprintf("fleet.budget is 40, and the server has %d usable", s.usable())) ||
			!strings.Contains(got.Steps[0].Do, fmt.Sprintf("to %d at most", s.usable()-4)) {
			t.Errorf("%+v\n%+v", got.Health.Findings, got.Steps)
		}
	})
}

func TestABudgetSmallerThanTheProcessesIsFound(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		var m *ProcessMonitor
		for range 2 {
			var d *db.DB
			d, m = s.sharing(t, "shop", 1)
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				if lease, err := d.Acquire(ctx); err == nil {
					<-ctx.Done()
					lease.Release()
				}
			}()
			t.Cleanup(func() { stop(); <-ended })
		}
		got := budgetFinding(t, s.observer(t, app), m)
		if f := got.Health.Findings[0]; !strings.Contains(f.What, "2 processes share a budget of 1 connection") || !strings.Contains(f.Do, "to 2 at least") {
			t.Errorf("%+v", f)
		}
	})
}
