package main

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"text/template"
	"time"

	"github.com/spf13/cobra"

	"ddtb/app"
	"ddtb/app/auth"
	"ddtb/app/fault"
	"ddtb/app/lab/scenarios"
	"ddtb/config"
	"ddtb/db"
	"ddtb/db/activity"
	"ddtb/db/localpg"
	"ddtb/db/migrations"
	"ddtb/polls"
)

// demo are the names used by `ddtb run` in its private PostgreSQL.
const (
	demoDatabase = "ddtb"
	demoRole     = "ddtb"
	demoAdmin    = "admin"
)

// stopTimeout limits the stop of the private PostgreSQL, which follows the server's.
const stopTimeout = 15 * time.Second

type runFlags struct {
	addr, data string
	fresh      bool
}

func (c *cli) runCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Start a private PostgreSQL, demo polls, and the server",
		Long: `Start everything on a new machine: a private PostgreSQL with 100 connection
slots, its tables, demo polls, an admin user, and the server on 127.0.0.1:8000.
Ctrl-C stops both.

The strategy and all but the database's place come from the configuration file;
without one, a file with comments is written. Data stays between runs, in
~/.local/share/ddtb/postgres. For root it is /var/lib/ddtb/postgres: PostgreSQL
doesn't run as root, and its own user can't enter root's home.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.runAll(cmd.Context(), f) },
	}
	cmd.Flags().StringVar(&f.addr, "addr", "", "where to listen, HOST:PORT (default: server.addr)")
	cmd.Flags().StringVar(&f.data, "data", "", "directory of the private PostgreSQL's data")
	cmd.Flags().BoolVar(&f.fresh, "fresh", false, "remove the data of earlier runs first")
	return cmd
}

func (c *cli) runAll(ctx context.Context, f runFlags) (err error) {
	o := c.options()
	if f.addr != "" {
		o.Flags = append(o.Flags, config.Flag{Name: "--addr", Key: "server.addr", Value: address(f.addr)})
	}
	dir, err := c.privateDir(f.data)
	if err != nil {
		return err
	}
	l, err := c.listenConfigured(ctx, o, dir) // first: it fails most often, and at once
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	pg, err := localpg.Start(ctx, localpg.Options{Dir: dir, Fresh: f.fresh, Logger: c.log})
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, stopPrivate(ctx, pg)); err == nil {
			again := c.program() + " run" + f.again(c, dir)
			c.print("Stopped. The data stays in %s\nTo go on with it: %s\nTo start anew:    %s --fresh\n", dir, again, again)
		}
	}()
	login, err := pg.Database(ctx, demoDatabase, demoRole)
	if err != nil {
		return err
	}
	o.Flags = append(o.Flags, place(login)...)
	load := func() (*config.Config, error) { return c.loadWithTests(o) }
	cfg, err := load()
	if err != nil {
		return err
	}
	password, err := c.prepare(ctx, cfg, filepath.Join(dir, "admin.password"))
	if err != nil {
		return err
	}
	if f.data != "" {
		c.noteDir(dir)
	}
	here := c.suggestions(cfg, l.Addr(), dir)
	c.welcome(cfg, l.Addr(), pg, password, dir, f.again(c, dir), here)
	return c.whileRunning(ctx, pg, func(ctx context.Context) error { return c.serve(ctx, l, cfg, load, here) })
}

// listenConfigured opens the address of the configuration, for which it writes the reference file if there is none. Its
// error names a `ddtb run` that has the data of dir.
func (c *cli) listenConfigured(ctx context.Context, o config.Options, dir string) (net.Listener, error) {
	if err := c.ensureConfigFile(o); err != nil {
		return nil, err
	}
	cfg, err := c.load(o)
	if err != nil {
		return nil, err
	}
	c.mayTake(cfg.Server.ShutdownTimeout + stopTimeout) // the private PostgreSQL stops after the server
	l, err := app.Listen(ctx, cfg.Server.Addr)
	if err == nil {
		return l, nil
	}
	if _, running := localpg.Running(dir, demoDatabase, demoRole); running && errors.Is(err, syscall.EADDRINUSE) {
		err = fmt.Errorf("%w\nIt may be the ddtb run that is running with the data in %s", err, dir)
	}
	return nil, err
}

// stopPrivate stops the private PostgreSQL, also after the end of ctx.
func stopPrivate(ctx context.Context, pg *localpg.Server) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	return pg.Stop(ctx)
}

// whileRunning runs serve while the private PostgreSQL runs or can be started again.
func (c *cli) whileRunning(ctx context.Context, pg *localpg.Server, serve func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var background sync.WaitGroup
	defer background.Wait()
	defer cancel(nil)
	background.Go(func() { cancel(c.keepRunning(ctx, pg)) })
	err := serve(ctx)
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	return err
}

// The private PostgreSQL is started again when it ends by itself, at most mostRestarts times in a row. It is in a row
// unless it ran for steadyAfter.
const (
	mostRestarts = 3
	steadyAfter  = time.Minute
	restartPause = 2 * time.Second // after a restart that failed
)

// keepRunning starts the private PostgreSQL again whenever it ends by itself, until ctx ends. Its error says why it gave
// up.
func (c *cli) keepRunning(ctx context.Context, pg *localpg.Server) error {
	for restarts, began := 0, time.Now(); ; restarts++ {
		select {
		case <-pg.Done():
		case <-ctx.Done():
		}
		if ctx.Err() != nil { // also if both have ended
			return nil
		}
		if time.Since(began) > steadyAfter {
			restarts = 0
		}
		if restarts == mostRestarts {
			return fmt.Errorf("the private PostgreSQL ended again, after %d restarts; its log is %s", restarts, pg.LogFile())
		}
		c.log.Warn("the private PostgreSQL ended; it is started again", "log", pg.LogFile())
		err := pg.Restart(ctx)
		began = time.Now()
		if err != nil && ctx.Err() == nil {
			c.log.Error("the private PostgreSQL does not start", "error", err)
			select {
			case <-time.After(restartPause):
			case <-ctx.Done():
			}
		}
	}
}

// ensureConfigFile writes the commented reference file if there is no file, for experiments to edit.
func (c *cli) ensureConfigFile(o config.Options) error {
	path, named := o.Path()
	if path == "" || named != "" {
		return nil
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := config.Init(path); err != nil {
		return fmt.Errorf("no configuration file, and none could be written: %w\n"+
			"Set XDG_CONFIG_HOME to a directory that you may write to; --data DIR does the same for the data", err)
	}
	c.say("Wrote %s: every setting is in it, with its default.\n", path)
	return nil
}

// loadWithTests enables the test endpoints unless the configuration sets them.
func (c *cli) loadWithTests(o config.Options) (*config.Config, error) {
	cfg, err := c.load(o)
	if err != nil {
		return nil, err
	}
	if _, said := cfg.Origins["test.enabled"]; !said {
		cfg.Test.Enabled = true
	}
	return cfg, nil
}

// prepare creates tables, a few polls, and an admin user. It returns that user's password, or where it is.
func (c *cli) prepare(ctx context.Context, cfg *config.Config, passwordFile string) (password string, err error) {
	database := cfg.Databases["default"]
	if _, err := migrations.Up(ctx, database); err != nil {
		return "", err
	}
	err = withDB(ctx, database, func(d *db.DB) error {
		if _, err := polls.NewStore(d).LoadDemo(ctx, time.Now()); err != nil {
			return err
		}
		password, err = ensureAdmin(ctx, auth.New(d, cfg.Admin, nil), passwordFile)
		return err
	})
	return password, err
}

// ensureAdmin creates the user admin with a random password, once. The password is kept in a file readable only by the
// owner, because it is only shown the first time.
func ensureAdmin(ctx context.Context, users *auth.Service, passwordFile string) (shown string, err error) {
	if _, err := users.UserByName(ctx, demoAdmin); fault.KindOf(err) != fault.NotFound {
		return "password in " + passwordFile, err
	}
	password := rand.Text()
	if err := os.WriteFile(passwordFile, []byte(password+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("keep the admin's password: %w", err)
	}
	_, err = users.CreateSuperuser(ctx, demoAdmin, "", password, false)
	return "password " + password, err
}

// again returns the flags with which a command uses the same files: without them, suggested commands may reset another
// server.
func (f runFlags) again(c *cli, dir string) (flags string) {
	if f.addr != "" {
		flags += " --addr " + activity.ShellQuote(f.addr)
	}
	if f.data != "" {
		flags += " --data " + activity.ShellQuote(dir)
	}
	return flags + c.configFlag()
}

// configFlag returns --config as given, for suggested commands.
func (c *cli) configFlag() string {
	if c.file == "" {
		return ""
	}
	return " --config " + activity.ShellQuote(c.file)
}

//go:embed welcome.txt
var welcomeText string

var welcomeTemplate = template.Must(template.New("welcome").Parse(welcomeText))

// welcome is the data of welcome.txt: where everything is, and the commands to try.
type welcome struct {
	URL            string
	Scenarios      int
	User, Password string // Password says where it is, or what it is
	PostgreSQL     string // its version
	Port           int
	Dir, Since     string // of the data
	SystemDir      bool   // Dir is not in root's home, although root runs this
	Run, Flags     string // the command that starts this server again
	DSN            string
	Psql           string
	Status         string
	Strategy       string
	File           string // of the configuration
	Switch         string
	TestEndpoints  bool
}

func (c *cli) welcome(cfg *config.Config, addr net.Addr, pg *localpg.Server, password, dir, flags string, s suggester) {
	dsn := privateDSN(cfg.Databases["default"])
	_ = welcomeTemplate.Execute(c.out, welcome{
		URL: "http://" + clickable(addr), Scenarios: len(scenarios.All()),
		User: demoAdmin, Password: password,
		PostgreSQL: pg.Version(), Port: pg.Port(),
		Dir: dir, Since: localpg.Since(dir).Format(time.DateOnly), SystemDir: dir == localpg.SystemDir,
		Run: s.program + " run", Flags: flags,
		DSN:      dsn,
		Psql:     "PGPASSFILE=" + activity.ShellQuote(s.passFile) + " psql " + dsn,
		Status:   s.complete("ddtb db-connections") + " status",
		Strategy: cfg.Databases["default"].Strategy, File: cfg.File,
		Switch: s.complete("ddtb strategy"), TestEndpoints: cfg.Test.Enabled && cfg.Test.MaxThreads >= 15 && cfg.Test.MaxHold >= 2*time.Second,
	})
}
