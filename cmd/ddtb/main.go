// Command ddtb reproduces every common way in which a web application runs PostgreSQL out of connections, and fixes
// each one. This package parses flags, connects the parts and chooses exit codes, and nothing else.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra" // commands, flags, help and shell completion as Go programs have them

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/activity"
	"ddtb/db/activity/console"
)

// Exit codes. `db-connections health` has its own: see activity.Level.
const (
	exitFine        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130 // as a shell reports Ctrl-C
)

func main() {
	// The first signal shuts the command down. It also restores the default, so that a second one kills the command.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	c := &cli{in: os.Stdin, out: os.Stdout, err: os.Stderr, environ: os.Environ()}
	os.Exit(c.run(ctx, os.Args[1:]))
}

// cli is the command with its environment, so that tests can run it.
type cli struct {
	in       io.Reader
	out, err io.Writer
	environ  []string

	file    string // of --config
	verbose bool
	log     *slog.Logger
	began   bool      // the command line was parsed
	screen  io.Writer // the terminal that err is; nil: none
	warned  []string
	again   string // the command that starts the private PostgreSQL, if that is meant and it does not run

	stopWithin atomic.Int64 // in nanoseconds, after the first signal
}

// How long a command may take to end after the first signal, unless it sets its own limit, and how long writing the
// last log lines may then take.
const (
	defaultStopWithin = 5 * time.Second
	flushTime         = 300 * time.Millisecond
)

// run runs the command and returns its exit code. After the first signal it returns in bounded time, even if the
// command is blocked by an unread output, a hanging file system or a silent server: blocked work is abandoned, because
// the process exits.
func (c *cli) run(ctx context.Context, args []string) int {
	if isTerminal(c.err) {
		c.screen = c.err
	}
	log := newLogSink(&output{w: c.err})
	defer log.close(flushTime)
	c.err = log
	c.out = &output{w: c.out, colour: isTerminal(c.out)}
	c.stopWithin.Store(int64(defaultStopWithin))
	ended := make(chan int, 1)
	go func() { ended <- c.execute(ctx, args) }()
	select {
	case code := <-ended:
		return code
	case <-ctx.Done():
	}
	within := time.Duration(c.stopWithin.Load())
	select {
	case code := <-ended:
		return code
	case <-time.After(within):
		_, _ = fmt.Fprintf(c.err, "ddtb: it did not stop within %v: something that it waits for hangs. It ends now.\n", within)
		return exitFailed
	}
}

// mayTake sets the total time that the command may take to end after the first signal.
func (c *cli) mayTake(total time.Duration) {
	c.stopWithin.Store(int64(float64(total)*0.95) - int64(min(flushTime, total/20)))
}

func (c *cli) execute(ctx context.Context, args []string) int {
	root := c.root()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	code, reported := exitFailed, true
	if ee, ok := errors.AsType[*exitError](err); ok {
		code, reported = ee.code, ee.err != nil
	}
	switch {
	case err == nil:
		return exitFine
	case !c.began:
		c.complain(err, "\nRun `"+strings.Replace(cmd.CommandPath(), "ddtb", c.program(), 1)+" --help` for the commands and flags.")
		code = exitUsage
	case reported:
		c.complain(err, "")
	}
	if reported && actionOf(cmd) == "health" { // it has no verdict, which monitoring plugins call unknown
		return int(activity.Unknown)
	}
	return code
}

// nextStep comes before the advice in an error's text.
const nextStep = "\nWhat to do: "

// complain prints an error. Further lines are indented, so that a server's text can't be mistaken for ours.
func (c *cli) complain(err error, hint string) {
	text, advice := err.Error(), cmp.Or(c.privateStopped(err), adviceOn(err))
	if !strings.Contains(text, nextStep) && !strings.Contains(text, advice) {
		text += nextStep + advice
	}
	text = strings.ReplaceAll(c.suggester().complete(text), "\r", "\n")
	p := console.Printer{W: c.err, Width: width(c.screen)}
	p.Lines("ddtb: " + strings.ReplaceAll(text, "\n", "\n  ") + hint + "\n")
}

// adviceOn returns what to do about an error of the database, or "".
func adviceOn(err error) string {
	ce, is := errors.AsType[*db.ConnError](err)
	hint := db.Hint(err)
	switch {
	case !is || hint != "": // the cause's general advice may contradict it
		return hint
	case ce.Cause == db.SlotsExhausted:
		return "`ddtb db-connections doctor` says who has the slots, or which ways in there are"
	case ce.Cause == db.PoolerFull: // Unreachable's advice is for commands that monitor
		return "the pooler is full: end some of its clients, or raise the limit that the message names"
	}
	return activity.Unreachable(err).Findings[0].Do
}

// exitError ends the command with a specific exit code. Without err, everything has been printed.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "ddtb",
		Short: "Run PostgreSQL out of connections, see why, and fix it",
		Long: `ddtb is a polls application on PostgreSQL that reproduces every common way in
which a web application runs PostgreSQL out of connections, and fixes each one.

Start with ` + "`ddtb run`" + `: it brings its own PostgreSQL and says what to try.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRun: func(*cobra.Command, []string) {
			c.began = true
			level := slog.LevelInfo
			if c.verbose {
				level = slog.LevelDebug
			}
			c.log = slog.New(slog.NewTextHandler(c.err, &slog.HandlerOptions{Level: level}))
		},
	}
	root.SetIn(c.in)
	root.SetOut(c.out)
	root.SetErr(c.err)
	root.PersistentFlags().StringVar(&c.file, "config", "", "configuration file (default $DDTB_CONFIG, else ~/.config/ddtb.toml)")
	root.PersistentFlags().BoolVarP(&c.verbose, "verbose", "v", false, "log every request and every detail")
	root.AddCommand(
		c.runCommand(), c.runserverCommand(), c.strategyCommand(), c.migrateCommand(), c.loaddemoCommand(),
		c.createsuperuserCommand(), c.changepasswordCommand(), c.dbConnectionsCommand(), c.sendtestemailCommand(),
		c.configCommand(), c.healthcheckCommand(), c.labCommand(), c.versionCommand(),
	)
	checkArguments(root)
	root.SetFlagErrorFunc(flagError)
	fitHelp(root)
	return root
}

// options returns the sources of the configuration. Flags override all others.
func (c *cli) options(flags ...config.Flag) config.Options {
	return config.Options{File: c.file, Environ: c.environ, Flags: flags}
}

// load reads the configuration and prints its warnings once. A mistake in a flag is wrong usage.
func (c *cli) load(o config.Options) (*config.Config, error) {
	cfg, err := config.Load(o)
	if found, ok := errors.AsType[config.Mistakes](err); ok && slices.ContainsFunc(found, byFlag) {
		return nil, &exitError{exitUsage, err}
	}
	if err != nil {
		return nil, err
	}
	for _, w := range cfg.Warnings {
		if !slices.Contains(c.warned, w) {
			c.warned = append(c.warned, w)
			c.log.Warn(w)
		}
	}
	return cfg, nil
}

// byFlag reports whether the mistake is in a flag that was given.
func byFlag(m *config.Mistake) bool { return m.Flag != "" && m.Flag != privateLogin }

// environment returns a variable of the process, for the few uses outside the configuration.
func (c *cli) environment(name string) string {
	value := ""
	for _, assignment := range c.environ {
		if n, v, ok := strings.Cut(assignment, "="); ok && n == name {
			value = v
		}
	}
	return value
}

// say prints a text. Lines that are too wide for the terminal are wrapped.
func (c *cli) say(format string, args ...any) { printer(c).Lines(fmt.Sprintf(format, args...)) }

// print is say for text with commands to copy, which are not wrapped.
func (c *cli) print(format string, args ...any) { _, _ = fmt.Fprintf(c.out, format, args...) }
