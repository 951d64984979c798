// Package app assembles the application from one configuration. It binds every address in one table of routes, and runs
// the server until its context ends. It does not depend on flags, files or signals: package main handles those.
package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
	"golang.org/x/sync/singleflight" // shares a query with a result among the requests that wait for it

	"ddtb/admin"
	"ddtb/app/auth"
	"ddtb/app/dashboard"
	"ddtb/app/lab"
	labsite "ddtb/app/lab/site"
	"ddtb/app/metrics"
	"ddtb/app/report"
	"ddtb/app/trace"
	"ddtb/app/web"
	"ddtb/config"
	"ddtb/db"
	"ddtb/db/activity"
	"ddtb/polls"
)

// App is the application on one database.
type App struct {
	o       Options
	cfg     *config.Config
	log     *slog.Logger
	db      *db.DB
	monitor *activity.Observer
	sampler *activity.Sampler
	leases  *activity.ProcessMonitor
	hosts   hostWatch
	lab     *lab.Lab
	scenes  *labsite.Site
	polls   *polls.Handlers
	users   *auth.Service
	admin   *admin.Site
	board   *dashboard.Board
	report  *report.Reporter
	count   *metrics.Metrics
	trace   *trace.Tracing
	ready   *readiness
	agent   *agent // nil: off
	guard   *web.Guard
	ids     *requestIDs
	echo    *echo.Echo

	slotQueries singleflight.Group // shares one query of the slots among start pages
	patterns    map[string]bool    // of the routes; written only while they are bound
	switching   sync.Mutex         // held by each change of the database settings, so that none overwrites another
}

// Options are settings of the process. All are optional.
type Options struct {
	Version  string // of the program, in metrics, traces and events; default "devel"
	StateDir string // keeps the limits on mails and events across restarts; "": a restart forgets them
	File     string // the configuration file, so that a command can find out whether its file is this server's

	// PassFile is that of the activity.Observer.
	PassFile string

	// Complete completes the commands that pages and mails suggest, so that they reach this server from a terminal beside
	// it. By default they stay as they are.
	Complete func(command string) string
}

func (o Options) withDefaults() Options {
	o.Version = cmp.Or(o.Version, "devel")
	if o.Complete == nil {
		o.Complete = func(command string) string { return command }
	}
	return o
}

// New makes the application. It connects only for monitoring, and does not fail when the database is unreachable: pages
// report the problem until the database recovers.
func New(ctx context.Context, cfg *config.Config, log *slog.Logger, o Options) (*App, error) {
	a, err := open(ctx, cfg, log, o.withDefaults())
	if err != nil {
		return nil, err
	}
	a.addPages()
	if a.agent, err = listenAgent(ctx, cfg.Server.AgentAddr, a.ready, a.db.Stat); err == nil {
		a.hosts.check(ctx, cfg.Databases["default"])
		err = a.checkBudget(ctx, a.monitor, cfg)
	}
	if err != nil {
		return nil, errors.Join(err, a.Close(ctx))
	}
	a.hosts.start(a.db.Config, cfg.Monitor.Interval)
	return a, nil
}

// open makes what connects to the database or to other servers.
func open(ctx context.Context, cfg *config.Config, log *slog.Logger, o Options) (*App, error) {
	database := cfg.Databases["default"]
	observer, err := activity.NewObserver(database)
	if err != nil {
		return nil, fmt.Errorf("database settings: %w", err)
	}
	observer.PassFile = o.PassFile
	traces, err := trace.New(cfg.Tracing, o.Version, log)
	if err != nil {
		return nil, err
	}
	count := metrics.New(o.Version)
	d, err := db.OpenWith(database, db.Options{
		Log: log, Tracer: tracer(cfg, traces), OnAcquire: count.Acquires().Ended, Control: observer.Do,
		Replica: replica(cfg),
	})
	if err != nil {
		return nil, errors.Join(err, traces.Close(ctx))
	}
	reporter, err := report.New(report.Options{
		Mail: cfg.Mail, Sentry: cfg.Sentry, BaseURL: cfg.Server.BaseURL, Secrets: []config.Secret{database.Password, cfg.Databases["replica"].Password}, Log: log,
		Release: "ddtb@" + o.Version, StateDir: o.StateDir, Complete: o.Complete,
	})
	if err != nil {
		return nil, errors.Join(err, d.Close(ctx), traces.Close(ctx))
	}
	leases := activity.StartProcessMonitor(d)
	observer.Process = leases.Now
	a := &App{
		o: o, cfg: cfg, log: log, db: d, monitor: observer, leases: leases, report: reporter, count: count, trace: traces,
		sampler: activity.StartSampler(observer, cfg.Monitor.Interval, thresholds(cfg, d)), hosts: hostWatch{log: log},
		ready: &readiness{db: d, monitor: observer, leases: leases, pooler: undeclared{log: log}},
	}
	a.count.FollowDB(d)
	a.count.FollowProcess(leases.Now)
	a.count.FollowReports(reporter)
	a.count.FollowServer(a.sampler)
	return a, nil
}

// addPages makes what serves requests.
func (a *App) addPages() {
	cfg, reserve := a.cfg, func() auth.Runner { return newReserve(a.monitor).inTx }
	a.guard, a.ids, a.patterns = web.NewGuard(cfg.Server.BaseURL, cfg.Server.AllowedHosts...), newRequestIDs(), map[string]bool{}
	a.users = auth.New(a.db, cfg.Admin, reserve())
	a.polls = polls.New(polls.NewStore(a.db))
	a.lab = lab.New(a.db, a.monitor, cfg.Test, cfg.Sentry, a.log)
	a.scenes = labsite.New(a.lab.Enabled, a.o.Complete, a.log)
	a.admin = admin.New(admin.Options{
		DB: a.db, Users: a.users, Log: a.log, Links: []web.Link{{Path: dashboard.Path, Text: "Connections"}}, Report: a.failed,
		Urgent: func() string {
			if a.leases.Now().Level() == activity.Critical {
				return dashboard.Path
			}
			return ""
		},
	})
	a.board = dashboard.New(dashboard.Options{
		DB: a.db, Users: a.users, Monitor: a.monitor, Sampler: a.sampler, Process: a.leases.Now, Config: cfg,
		Waits: a.count.Acquires().Waits, Testing: a.lab.Enabled, Log: a.log, Complete: a.o.Complete,
		Switch: a.switchByHand, ViewReserve: reserve(), ChangeReserve: reserve(), Record: admin.Record,
	})
	a.echo = a.routes()
}

// thresholds are the same as those of `ddtb db-connections` with the configuration in effect, so that both give the same
// advice.
func thresholds(cfg *config.Config, d *db.DB) func() activity.Thresholds {
	return func() activity.Thresholds {
		return activity.ThresholdsOf(cfg.Monitor).WithPools(d.Config(), d.Replica() != nil, cfg.Server.Replicas)
	}
}

// budgetTimeout limits checkBudget, including the login.
const budgetTimeout = 5 * time.Second

// checkBudget runs for each new configuration, and at start, where it opens the monitoring connection: later all slots may
// be taken. It fails if strict_budget is set and the configuration allows more connections than the server has slots.
func (a *App) checkBudget(ctx context.Context, monitor *activity.Observer, cfg *config.Config) error {
	ctx, cancel := context.WithTimeout(ctx, budgetTimeout)
	defer cancel()
	budget, err := monitor.CheckBudget(ctx, cfg)
	switch _, refused := errors.AsType[*activity.BudgetError](err); {
	case refused:
		return err
	case err != nil:
		a.log.WarnContext(ctx, "the database server can't be polled yet", "error", err)
	case !budget.Fits:
		a.log.WarnContext(ctx, budget.String())
	}
	if err == nil {
		a.ready.pooler.check(ctx, monitor, cfg.Databases["default"])
	}
	return nil
}

// checkNewBudget is checkBudget for a configuration whose database may be on a different server.
func (a *App) checkNewBudget(ctx context.Context, cfg *config.Config) error {
	database := cfg.Databases["default"]
	if database == a.db.Config() && (replica(cfg) == nil) == (a.db.Replica() == nil) &&
		cfg.Server.Replicas == a.cfg.Server.Replicas && cfg.Server.StrictBudget == a.cfg.Server.StrictBudget {
		return nil
	}
	monitor := a.monitor
	if !database.SameServer(a.db.Config()) {
		var err error
		if monitor, err = activity.NewObserver(database); err != nil {
			return fmt.Errorf("database settings: %w", err)
		}
		defer monitor.Close()
	}
	return a.checkBudget(ctx, monitor, cfg)
}

// DB returns the application's database.
func (a *App) DB() *db.DB { return a.db }

// Monitor returns the monitor of the database server. It has its own connection.
func (a *App) Monitor() *activity.Observer { return a.monitor }

// Reconfigure applies a new configuration as far as possible without a restart: the database, its strategy and sizes,
// its replicas, and the test endpoints. No request fails. restart names the other sections that changed.
func (a *App) Reconfigure(ctx context.Context, cfg *config.Config) (restart []string, err error) {
	database := cfg.Databases["default"]
	a.report.Hide(database.Password, cfg.Databases["replica"].Password) // before an error can contain it
	if database != a.db.Config() {
		a.hosts.check(ctx, database)
	}
	if err := a.checkNewBudget(ctx, cfg); err != nil {
		return nil, err
	}
	before := a.db.Replica()
	if err := a.db.UseReplica(replica(cfg)); err != nil {
		return nil, err
	}
	a.switching.Lock()
	err = a.db.Switch(ctx, database)
	a.switching.Unlock()
	if err != nil {
		return nil, errors.Join(err, a.db.UseReplica(before))
	}
	if err := a.monitor.Use(ctx, database); err != nil {
		return nil, err
	}
	a.lab.Configure(cfg.Test)
	a.site().On(a.echo)
	return needRestart(a.cfg, cfg), nil
}

// switchByHand applies edit to the current database settings, with the budget check that a change of the file gets too.
func (a *App) switchByHand(
	ctx context.Context, edit func(now config.Database) (config.Database, error),
) (before, after config.Database, err error) {
	a.switching.Lock()
	defer a.switching.Unlock()
	before = a.db.Config()
	if after, err = edit(before); err != nil {
		return before, before, err
	}
	cfg := *a.cfg
	cfg.Databases = map[string]config.Database{"default": after}
	if standby := a.db.Replica(); standby != nil {
		cfg.Databases["replica"] = *standby
	}
	if err := a.checkNewBudget(ctx, &cfg); err != nil {
		return before, before, err
	}
	return before, after, a.db.Switch(ctx, after)
}

// Close ends what New started. Call it after the last request. When ctx ends first, leases are reclaimed. The parts are
// closed concurrently, so that one that hangs does not use up the time of the others.
func (a *App) Close(ctx context.Context) error {
	parts := []func() error{
		func() error { a.agent.Close(); return nil },
		func() error { a.scenes.Close(); return nil },
		func() error { return a.closeDB(ctx) },
		func() error { a.stopMonitoring(); return nil },
		func() error { return a.trace.Close(ctx) },
		func() error { return a.report.Close(ctx) },
	}
	errs := make([]error, len(parts))
	var wg sync.WaitGroup
	for i, part := range parts {
		wg.Go(func() { errs[i] = part() })
	}
	wg.Wait()
	a.monitor.Close() // last: the pool's tickets are held on it
	return errors.Join(errs...)
}

func (a *App) closeDB(ctx context.Context) error {
	a.lab.Close() // returns its leases
	if err := a.db.Close(ctx); err != nil {
		return fmt.Errorf("not all connections came back in time, and were cut: %w", err)
	}
	return nil
}

func (a *App) stopMonitoring() {
	a.leases.Stop()
	a.hosts.close()
	a.board.Close()
	a.sampler.Stop()
}
