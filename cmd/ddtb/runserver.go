package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"ddtb/app"
	"ddtb/config"
	"ddtb/db"
	"ddtb/db/activity"
	"ddtb/db/migrations"
)

func (c *cli) runserverCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "runserver [ADDR]",
		Short: "Serve on the configured database",
		Long: `Serve on the configured database, on ADDR or the configuration's server.addr
(127.0.0.1:8000). ADDR is HOST:PORT, or a port alone.

A saved change of the configuration file, or SIGHUP, switches the strategy and
its sizes while requests go on.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			var flags []config.Flag
			if len(args) == 1 {
				flags = append(flags, config.Flag{Name: "ADDR", Key: "server.addr", Value: address(args[0])})
			}
			return c.runserver(cmd.Context(), func() (*config.Config, error) { return c.load(c.options(flags...)) })
		},
	}
}

// address interprets a bare port as one on the loopback interface, as Django's runserver does.
func address(s string) string {
	if s != "" && strings.Trim(s, "0123456789") == "" {
		return net.JoinHostPort("127.0.0.1", s)
	}
	return s
}

func (c *cli) runserver(ctx context.Context, load loader) error {
	cfg, err := load()
	if err != nil {
		return err
	}
	if err := requireDatabaseSection(cfg); err != nil {
		return err
	}
	c.mayTake(cfg.Server.ShutdownTimeout)
	l, err := app.Listen(ctx, cfg.Server.Addr) // before the database is checked: it fails most often, and at once
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	if err := c.checkSchema(ctx, cfg); err != nil {
		return err
	}
	c.say("ddtb serves on http://%s/ with the strategy %s. Ctrl-C stops it.\n", clickable(l.Addr()), cfg.Databases["default"].Strategy)
	return c.serve(ctx, l, cfg, load, c.suggestions(cfg, l.Addr(), ""))
}

// requireDatabaseSection rejects a configuration that sets no key of [databases].
func requireDatabaseSection(cfg *config.Config) error {
	for key := range cfg.Origins {
		if strings.HasPrefix(key, "databases.") {
			return nil
		}
	}
	return errors.New("no database is configured: write its name, user and password into the file that `ddtb config init` makes, " +
		"or set DATABASE_URL; `ddtb run` brings a PostgreSQL of its own")
}

// clickable returns the address of a listener that a browser on this machine can open.
func clickable(a net.Addr) string {
	addr, _ := reachable(a.String()) // a listener has a port
	return addr
}

// loader reads the configuration, at the start and at each reload.
type loader func() (*config.Config, error)

// schemaTimeout limits the check of a database that accepts the login but does not respond. After slowLogin without a
// login the log says what is being waited for.
const (
	schemaTimeout = 5 * time.Second
	slowLogin     = time.Second
)

// checkSchema rejects a database with an incompatible schema. An unreachable database is accepted: it may recover, and
// until then every page reports it.
func (c *cli) checkSchema(ctx context.Context, cfg *config.Config) error {
	d := cfg.Databases["default"]
	cc, err := db.ConnConfig(d, d.ApplicationName+"/check")
	if err != nil {
		return err
	}
	slow := time.AfterFunc(slowLogin, func() {
		c.log.Warn("the database does not answer yet; its hosts are tried one after the other, each for connect_timeout",
			"hosts", max(1, len(d.Hosts.List())), "connect_timeout", d.ConnectTimeout)
	})
	conn, err := db.Connect(ctx, cc)
	slow.Stop()
	if _, down := errors.AsType[*db.ConnError](err); down {
		c.log.Warn("the database can't be reached yet; serving all the same", "error", err)
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	ctx, cancel := context.WithTimeout(ctx, schemaTimeout)
	defer cancel()
	err = migrations.Check(ctx, conn)
	if f, ok := db.QueryFailureOf(err); errors.Is(err, context.DeadlineExceeded) || ok && f.Passes || conn.IsClosed() {
		c.log.Warn("the database does not answer yet; serving all the same", "error", err)
		return nil
	}
	return err
}

// gcPercent lets the heap grow to five times the live heap, about 10 MB, before a collection. With Go's default, 100, a
// busy server collects a hundred times a second. GOGC overrides it.
const gcPercent = 400

// serve runs the application on l until ctx ends. It loads the configuration again when the file changes, and on SIGHUP.
// Its pages suggest commands that reach this server.
func (c *cli) serve(ctx context.Context, l net.Listener, cfg *config.Config, load loader, here suggester) error {
	if old := debug.SetGCPercent(gcPercent); old != 100 { // GOGC overrides it
		debug.SetGCPercent(old)
	}
	path, _ := c.options().Path()
	a, err := app.New(ctx, cfg, c.log, app.Options{
		Version: version, StateDir: c.stateDir(), File: path, Complete: here.complete, PassFile: here.passFile,
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var background sync.WaitGroup
	defer background.Wait()
	defer cancel()
	reloads := make(chan os.Signal, 1)
	signal.Notify(reloads, syscall.SIGHUP)
	defer signal.Stop(reloads)
	if known := cfg.FileState; path != "" {
		background.Go(func() {
			config.Watch(ctx, path, known, func() {
				select {
				case reloads <- syscall.SIGHUP:
				default: // a pending reload will read the current file
				}
			})
		})
	}
	background.Go(func() { c.follow(ctx, a, cfg, load, reloads) })
	return a.Serve(ctx, l)
}

// follow applies the configuration at each reload, until ctx ends. Meanwhile it shares the monitoring connection, anew
// when the configuration names another server.
func (c *cli) follow(ctx context.Context, a *app.App, cfg *config.Config, load loader, reloads <-chan os.Signal) {
	for ctx.Err() == nil {
		sharing, stop := context.WithCancel(ctx)
		var shared sync.WaitGroup
		shared.Go(func() { c.shareMonitor(sharing, a) })
		for server := a.DB().Config(); ctx.Err() == nil && a.DB().Config().SameServer(server); {
			select {
			case <-ctx.Done():
			case <-reloads:
				cfg = c.reconfigure(ctx, a, cfg, load)
			}
		}
		stop()
		shared.Wait()
	}
}

// stateDir is the directory of the limits on mails across restarts: ddtb in $XDG_STATE_HOME, or in ~/.local/state.
// Without a home directory a restart forgets them.
func (c *cli) stateDir() string {
	state, home := c.environment("XDG_STATE_HOME"), c.environment("HOME")
	switch {
	case filepath.IsAbs(state):
		return filepath.Join(state, "ddtb")
	case home != "":
		return filepath.Join(home, ".local", "state", "ddtb")
	}
	return ""
}

// shareMonitor lets `ddtb db-connections` of the same user use this server's monitoring connection when no slot is left.
func (c *cli) shareMonitor(ctx context.Context, a *app.App) {
	dir, err := activity.SocketDir(c.environment("XDG_RUNTIME_DIR"))
	if err == nil {
		err = a.Monitor().Share(ctx, dir)
	}
	if err != nil {
		c.log.Warn("db-connections can't use this server's connection when no slot is left", "error", err)
	}
}

// reconfigure reads the configuration again, and returns the one in effect afterwards. A configuration that the start
// would reject changes nothing. The same applies to a file that was deleted or emptied: it is being written.
func (c *cli) reconfigure(ctx context.Context, a *app.App, before *config.Config, load loader) (inForce *config.Config) {
	cfg, err := load()
	if err == nil {
		err = lostFile(before, cfg)
	}
	if err != nil {
		c.log.Error("the configuration has a mistake; the old one stays in force", "error", err)
		return before
	}
	old := a.DB().Config()
	if err = requireDatabaseSection(cfg); err == nil {
		err = c.checkSchema(ctx, cfg)
	}
	if ctx.Err() != nil { // the server stops
		return before
	}
	var restart []string
	if err == nil {
		restart, err = a.Reconfigure(ctx, cfg)
	}
	if err != nil {
		c.log.Error("the configuration can't be used; the old one stays in force", "error", err)
		return before
	}
	if now := a.DB().Config(); now != old {
		c.log.Info("the database settings were switched", "strategy", now.Strategy, "before", old.Strategy)
	}
	if now := cfg.Databases["replica"]; now != before.Databases["replica"] {
		c.log.Info("the replica's settings were switched", "hosts", cmp.Or(string(now.Hosts), now.Host, "none"))
	}
	if len(restart) > 0 {
		c.log.Warn("these sections changed too, and wait for a restart", "sections", strings.Join(restart, ", "))
	}
	return cfg
}

// lostFile rejects a configuration whose file is missing, or without any key, if the previous one had it.
func lostFile(before, now *config.Config) error {
	switch {
	case before.File == "":
		return nil
	case now.File == "":
		return fmt.Errorf("%s is gone", before.File)
	case keysFrom(before) > 0 && keysFrom(now) == 0:
		return fmt.Errorf("%s is empty: to use the defaults, restart", now.File)
	}
	return nil
}

// keysFrom counts the keys that the configuration file sets.
func keysFrom(cfg *config.Config) (n int) {
	for _, origin := range cfg.Origins {
		if origin.File == cfg.File {
			n++
		}
	}
	return n
}
