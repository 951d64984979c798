// Package app puts the parts together: it makes them from one configuration, binds every address in one table of
// routes, and runs the server until it is told to stop. It must not know a flag, a file or a signal: package
// main does.
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
	echo   *echo.Echo

	patterns  map[string]bool // of the routes; written while they are bound
	switching sync.Mutex      // from reading the settings in force to having put others there
}

// surroundings are those of the process, as far as New is told of them.
type surroundings struct{ stateDir, version string }

// Option is something about the surroundings of the process that New may be told.
type Option func(*surroundings)

// WithStateDir has all processes that are given the same folder share one limit on mails and events.
func WithStateDir(dir string) Option { return func(s *surroundings) { s.stateDir = dir } }

// WithVersion names the program's version in metrics, traces and events.
func WithVersion(version string) Option { return func(s *surroundings) { s.version = version } }

// New makes the application. It connects only to look at the server, and does not fail when the database can't
// be reached: the pages say so, and recover with it.
func New(ctx context.Context, cfg *config.Config, log *slog.Logger, options ...Option) (*App, error) {
	database := cfg.Databases["default"]
	observer, err := activity.NewObserver(database)
	if err != nil {
		return nil, fmt.Errorf("database settings: %w", err)
	}
	around := surroundings{version: "devel"}
	for _, option := range options {
		option(&around)
	}
	traces, err := trace.New(cfg.Tracing, around.version, log)
	if err != nil {
		return nil, err
	}
	count := metrics.New(around.version)
	d, err := db.OpenWith(database, db.Options{Log: log, Tracer: tracer(cfg, count, traces)})
	if err != nil {
		return nil, errors.Join(err, traces.Close(ctx))
	}
	reporter, err := report.New(report.Options{
		Mail: cfg.Mail, Sentry: cfg.Sentry, BaseURL: cfg.Server.BaseURL, Secrets: []config.Secret{database.Password}, Log: log,
		Release: "ddtb@" + around.version, StateDir: around.stateDir,
	})
	if err != nil {
		return nil, errors.Join(err, d.Close(ctx), traces.Close(ctx))
	}
	users := auth.New(d, cfg.Admin)
	users.Reserve = newReserve(observer).inTx
	a := &App{
		cfg: cfg, log: log, db: d, server: observer,
		report: reporter, count: count, trace: traces, users: users,
		admin: admin.New(d, users, log, web.Link{Path: dashboard.Path, Text: "Connections"}),
		lab:   lab.New(d, observer, cfg.Test, log),
		polls: polls.New(polls.NewStore(d), time.Now),
		ready: &readiness{db: d, server: observer}, patterns: map[string]bool{},
	}
	a.lab.UseSentry(cfg.Sentry)
	a.scenes = labsite.New(a.lab.Enabled, log)
	a.admin.Tell = a.tell
	a.count.FollowLeases(d)
	a.count.FollowReports(reporter)
	if err := a.openEye(ctx); err != nil {
		return nil, errors.Join(err, a.Close(ctx))
	}
	a.look = activity.StartSampler(observer, cfg.Monitor.Interval, activity.ThresholdsOf(cfg.Monitor))
	a.board = dashboard.New(dashboard.Options{
		DB: d, Users: users, Server: observer, Look: a.look, Config: cfg, Waits: count.Acquires().Waits,
		Testing: a.lab.Enabled, Log: log,
		Switch: a.switchTo, LookReserve: newReserve(observer).inTx, SwitchReserve: newReserve(observer).inTx, Record: admin.Record,
	})
	a.count.FollowServer(a.look)
	a.echo = a.routes()
	return a, nil
}

// openEye connects to look at the server while there is room: later, when every slot is taken, it would be late. It
// fails when strict_budget is set and more connections are allowed here than the server has slots for.
func (a *App) openEye(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	budget, err := a.server.CheckBudget(ctx, a.cfg.Databases["default"], a.cfg.Server)
	switch _, refused := errors.AsType[*activity.BudgetError](err); {
	case refused:
		return err
	case err != nil:
		a.log.WarnContext(ctx, "the database server can't be looked at yet", "error", err)
	case !budget.Fits:
		a.log.WarnContext(ctx, budget.String())
	}
	return nil
}

// Handler answers every request.
func (a *App) Handler() http.Handler { return a.echo }

// DB is the application's database.
func (a *App) DB() *db.DB { return a.db }

// Server looks at the database's server, over a connection of its own.
func (a *App) Server() *activity.Observer { return a.server }

// Reconfigure puts a newly read configuration in force as far as that needs no restart: the database,
// its strategy and its sizes, and the test endpoints. No request fails. restart names what else was changed.
func (a *App) Reconfigure(ctx context.Context, cfg *config.Config) (restart []string, err error) {
	a.report.Hide(cfg.Databases["default"].Password) // before anything can fail with it
	read := func(config.Database) (config.Database, error) { return cfg.Databases["default"], nil }
	if _, _, err := a.switchTo(ctx, read); err != nil {
		return nil, err
	}
	if err := a.server.Use(ctx, cfg.Databases["default"]); err != nil {
		return nil, err
	}
	a.lab.Configure(cfg.Test)
	return needRestart(a.cfg, cfg), nil
}

// switchTo puts in force what edit makes of the settings of the database, for the configuration and for the dashboard:
// one after the other, so that neither undoes what the other changes at the same moment.
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

// Close ends what New began, after the last request. When ctx ends first, leases are taken back.
func (a *App) Close(ctx context.Context) error {
	a.lab.Close()
	a.scenes.Close()
	err := a.db.Close(ctx)
	if err != nil {
		err = fmt.Errorf("not all connections came back in time, and were cut: %w", err)
	}
	a.count.Close()
	if a.board != nil {
		a.board.Close()
	}
	if a.look != nil {
		a.look.Stop()
	}
	a.server.Close()
	traced := make(chan error, 1)
	go func() { traced <- a.trace.Close(ctx) }() // a collector that hangs must not use up the time of the mails
	return errors.Join(err, a.report.Close(ctx), <-traced)
}
