// Package app assembles the application from one configuration. It binds every address in one table of routes, and runs
// the server until its context ends. It does not depend on flags, files or signals: package main handles those.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

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
	cfg    *config.Config
	log    *slog.Logger
	db     *db.DB
	server *activity.Observer
	look   *activity.Sampler
	leases *activity.ProcessMonitor
	hosts  hostWatch
	lab    *lab.Lab
	scenes *labsite.Site
	polls  *polls.Handlers
	users  *auth.Service
	admin  *admin.Site
	board  *dashboard.Board
	report *report.Reporter
	count  *metrics.Metrics
	trace  *trace.Tracing
	ready  *readiness
	agent  *agent // nil: off
	guard  *web.Guard
	ids    *requestIDs
	echo   *echo.Echo

	complete  func(command string) string // see WithCommands
	file      string                      // see WithFile
	patterns  map[string]bool             // of the routes; written only while they are bound
	switching sync.Mutex                  // held from reading the current settings until the new ones are in effect
}

// surroundings are the settings of the process that New was given.
type surroundings struct {
	stateDir, version, file, passFile string
	complete                          func(command string) string
}

// Option is a setting of the process for New.
type Option func(*surroundings)

// WithStateDir keeps the limits on mails and events across restarts, in a file in the directory.
func WithStateDir(dir string) Option { return func(s *surroundings) { s.stateDir = dir } }

// WithVersion names the program's version in metrics, traces and events.
func WithVersion(version string) Option { return func(s *surroundings) { s.version = version } }

// WithCommands completes the commands that pages and mails suggest, so that they reach this server from a terminal
// beside it. passFile is that of the activity.Observer.
func WithCommands(complete func(command string) string, passFile string) Option {
	return func(s *surroundings) { s.complete, s.passFile = complete, passFile }
}

// WithFile names the configuration file that a change is read from, so that a command can find out whether its file is
// this server's.
func WithFile(path string) Option { return func(s *surroundings) { s.file = path } }

// New makes the application. It connects only for monitoring, and does not fail when the database is unreachable: pages
// report the problem until the database recovers.
func New(ctx context.Context, cfg *config.Config, log *slog.Logger, options ...Option) (*App, error) {
	database := cfg.Databases["default"]
	observer, err := activity.NewObserver(database)
	if err != nil {
		return nil, fmt.Errorf("database settings: %w", err)
	}
	around := surroundings{version: "devel", complete: func(command string) string { return command }}
	for _, option := range options {
		option(&around)
	}
	observer.PassFile = around.passFile
	traces, err := trace.New(cfg.Tracing, around.version, log)
	if err != nil {
		return nil, err
	}
	count := metrics.New(around.version)
	d, err := db.OpenWith(database, db.Options{
		Log: log, Tracer: tracer(cfg, traces), OnAcquire: count.Acquires().Ended, Control: observer.Do,
		Replica: replica(cfg),
	})
	if err != nil {
		return nil, errors.Join(err, traces.Close(ctx))
	}
	reporter, err := report.New(report.Options{
		Mail: cfg.Mail, Sentry: cfg.Sentry, BaseURL: cfg.Server.BaseURL, Secrets: []config.Secret{database.Password, cfg.Databases["replica"].Password}, Log: log,
		Release: "ddtb@" + around.version, StateDir: around.stateDir, Complete: around.complete,
	})
	if err != nil {
		return nil, errors.Join(err, d.Close(ctx), traces.Close(ctx))
	}
	users := auth.New(d, cfg.Admin)
	users.Reserve = newReserve(observer).inTx
	leases := activity.StartProcessMonitor(d)
	observer.Process = leases.Now
	a := &App{
		cfg: cfg, log: log, db: d, server: observer, leases: leases, hosts: hostWatch{log: log},
		report: reporter, count: count, trace: traces, users: users,
		lab:   lab.New(d, observer, cfg.Test, log),
		polls: polls.New(polls.NewStore(d), time.Now),
		ready: &readiness{db: d, server: observer, leases: leases, pooler: undeclared{log: log}}, patterns: map[string]bool{},
		complete: around.complete, file: around.file,
		guard: web.NewGuard(cfg.Server.BaseURL, cfg.Server.AllowedHosts...), ids: newRequestIDs(),
	}
	a.lab.UseSentry(cfg.Sentry)
	a.scenes = labsite.New(a.lab.Enabled, around.complete, log)
	a.admin = admin.New(admin.Options{
		DB: d, Users: users, Log: log, Links: []web.Link{{Path: dashboard.Path, Text: "Connections"}}, Report: a.tell,
		Urgent: func() string {
			if a.leases.Now().Level() == activity.Critical {
				return dashboard.Path
			}
			return ""
		},
	})
	a.count.FollowLeases(d)
	a.count.FollowProcess(leases.Now)
	a.count.FollowReplicas(d)
	a.count.FollowReports(reporter)
	if a.agent, err = listenAgent(ctx, cfg.Server.AgentAddr, a.ready, d.Stat); err != nil {
		return nil, errors.Join(err, a.Close(ctx))
	}
	if err := a.checkBudget(ctx, observer, cfg); err != nil {
		return nil, errors.Join(err, a.Close(ctx))
	}
	a.hosts.start(d.Config, cfg.Monitor.Interval)
	a.look = activity.StartSampler(observer, cfg.Monitor.Interval, thresholds(cfg))
	a.board = dashboard.New(dashboard.Options{
		DB: d, Users: users, Server: observer, Look: a.look, Process: leases.Now, Thresholds: thresholds(cfg), Config: cfg, Waits: count.Acquires().Waits,
		Testing: a.lab.Enabled, Log: log, Complete: around.complete,
		Switch: a.switchTo, LookReserve: newReserve(observer).inTx, SwitchReserve: newReserve(observer).inTx, Record: admin.Record,
	})
	a.count.FollowServer(a.look)
	a.echo = a.routes()
	return a, nil
}

// thresholds are the same as those of `ddtb db-connections`, so that both give the same advice.
func thresholds(cfg *config.Config) activity.Thresholds {
	return activity.ThresholdsOf(cfg.Monitor).WithPools(cfg.Databases["default"], cfg.Server.Replicas)
}

// checkBudget runs for each new configuration, and at start, where it opens the monitoring connection: later all slots may
// be taken. It fails if strict_budget is set and the configuration allows more connections than the server has slots.
func (a *App) checkBudget(ctx context.Context, server *activity.Observer, cfg *config.Config) error {
	a.hosts.look(ctx, cfg.Databases["default"])
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	budget, err := server.CheckBudget(ctx, cfg)
	switch _, refused := errors.AsType[*activity.BudgetError](err); {
	case refused:
		return err
	case err != nil:
		a.log.WarnContext(ctx, "the database server can't be looked at yet", "error", err)
	case !budget.Fits:
		a.log.WarnContext(ctx, budget.String())
	}
	if err == nil {
		a.ready.pooler.look(ctx, server, cfg.Databases["default"])
	}
	return nil
}

// checkNewBudget is checkBudget for a configuration whose database may be on a different server.
func (a *App) checkNewBudget(ctx context.Context, cfg *config.Config) error {
	database := cfg.Databases["default"]
	if database == a.db.Config() && cfg.Server.Replicas == a.cfg.Server.Replicas && cfg.Server.StrictBudget == a.cfg.Server.StrictBudget {
		return nil
	}
	server := a.server
	if !database.SameServer(a.db.Config()) {
		var err error
		if server, err = activity.NewObserver(database); err != nil {
			return fmt.Errorf("database settings: %w", err)
		}
		defer server.Close()
	}
	return a.checkBudget(ctx, server, cfg)
}

// Handler returns the handler of every request.
func (a *App) Handler() http.Handler { return a.echo }

// DB returns the application's database.
func (a *App) DB() *db.DB { return a.db }

// Server returns the monitor of the database server. It has its own connection.
func (a *App) Server() *activity.Observer { return a.server }

// Reconfigure applies a new configuration as far as possible without a restart: the database, its strategy and sizes,
// its replicas, and the test endpoints. No request fails. restart names the other sections that changed.
func (a *App) Reconfigure(ctx context.Context, cfg *config.Config) (restart []string, err error) {
	a.report.Hide(cfg.Databases["default"].Password) // before an error can contain it
	a.report.Hide(cfg.Databases["replica"].Password)
	if err := a.checkNewBudget(ctx, cfg); err != nil {
		return nil, err
	}
	before := a.db.Replica()
	if err := a.db.UseReplica(replica(cfg)); err != nil {
		return nil, err
	}
	read := func(config.Database) (config.Database, error) { return cfg.Databases["default"], nil }
	if _, _, err := a.switchTo(ctx, read); err != nil {
		return nil, errors.Join(err, a.db.UseReplica(before))
	}
	if err := a.server.Use(ctx, cfg.Databases["default"]); err != nil {
		return nil, err
	}
	a.lab.Configure(cfg.Test)
	return needRestart(a.cfg, cfg), nil
}

// switchTo applies edit to the current database settings. Changes from the configuration file and the dashboard are
// serialized, so that neither overwrites the other.
func (a *App) switchTo(
	ctx context.Context, edit func(now config.Database) (config.Database, error),
) (before, after config.Database, err error) {
	a.switching.Lock()
	defer a.switching.Unlock()
	before = a.db.Config()
	if after, err = edit(before); err != nil {
		return before, before, err
	}
	return before, after, a.db.Switch(ctx, after)
}

// Close ends what New started. Call it after the last request. When ctx ends first, leases are reclaimed. The parts are
// closed concurrently, so that one that hangs does not use up the time of the others.
func (a *App) Close(ctx context.Context) error {
	a.lab.Close()
	a.scenes.Close()
	parts := []func() error{
		func() error { a.agent.Close(); return nil },
		func() error { return a.closeDB(ctx) },
		func() error { a.closeMonitor(); return nil },
		func() error { return a.trace.Close(ctx) },
		func() error { return a.report.Close(ctx) },
	}
	errs := make([]error, len(parts))
	var wg sync.WaitGroup
	for i, part := range parts {
		wg.Go(func() { errs[i] = part() })
	}
	wg.Wait()
	a.server.Close() // last: the pool's tickets are held on it
	return errors.Join(errs...)
}

func (a *App) closeDB(ctx context.Context) error {
	if err := a.db.Close(ctx); err != nil {
		return fmt.Errorf("not all connections came back in time, and were cut: %w", err)
	}
	return nil
}

func (a *App) closeMonitor() {
	a.count.Close()
	a.leases.Stop()
	a.hosts.close()
	if a.board != nil {
		a.board.Close()
	}
	if a.look != nil {
		a.look.Stop()
	}
}
