package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"ddtb/config"
	"ddtb/db/activity"
	"ddtb/db/activity/console"
)

// connections is one run of db-connections.
type connections struct {
	*cli
	dsn     string
	dsnFile string // as it was given: @FILE; "": the DSN itself was given
	pooler  string // the DSN of PgBouncer's admin console
	asJSON  bool

	filter   activity.Filter
	dryRun   bool
	yes      bool
	watch    bool
	interval time.Duration
	replicas int
	extras   int

	cfg     *config.Config
	printer console.Printer
	poller  activity.Poller
	reached *pgx.ConnConfig // the server of this run
	refused error           // why it is reached through a running server
	close   func()
}

// action is one of its actions: a subcommand, and a value of --action.
type action struct {
	name, short, long string
	flags             func(*connections, *pflag.FlagSet)
	run               func(*connections, context.Context) error
}

var actions = []action{
	{
		name: "status", short: "Show who has the slots", run: (*connections).status,
		long: `Show the slots, and the sessions that have them: by state, by application, by
user and client; the oldest transaction, the longest query, and what waits on
locks. With PgBouncer, its pools too.`,
	},
	{
		name: "health", short: "Give a verdict, with reasons and what to do", run: (*connections).health,
		long: `Give a verdict on the connections, with the reasons, and what to do for each.
Exit code: 0 ok, 1 warning, 2 critical, 3 unknown, as monitoring plugins do. It
takes a second, in which it sees how fast sessions come and go.`,
	},
	{
		name: "doctor", short: "Say what is wrong, who is the cause, and the next steps", run: (*connections).doctor,
		long: `Read the state of a server in trouble, and say in order what is wrong, which
application is the cause, which of the known scenarios it looks like, and the
next steps with their commands: the least harmful first, and for each step who
is hurt by it. Where two look alike from outside, it says how to find
out which it is. It ends nothing.

` + whatDoctorKnows(),
	},
	{
		name: "close-idle", short: "End sessions that have been idle for long",
		flags: (*connections).closeIdleFlags, run: (*connections).closeIdle,
		long: `End sessions of this database that have been idle for longer than --older-than.
It shows them first, and asks; a session that began to work in the meantime goes
on. Never ended: this session, the running server's monitor, replication,
listeners (their last statement is LISTEN) unless --pid names one, and a
superuser's unless --superusers is given.`,
	},
	{
		name: "force-close", short: "End all sessions of one application",
		flags: (*connections).closeFlags, run: (*connections).forceClose,
		long: `End all sessions of one application in this database, or the one of --pid,
whatever they do. Without --application and --pid it is this application: the
application_name of the configuration, ddtb by default. It shows them first, and
asks. What they were doing is rolled back; an application with a pool opens new
ones.`,
	},
	{
		name: "cancel", short: "Cancel the query of one session, which stays",
		flags: (*connections).cancelFlags, run: (*connections).cancel,
		long: `Cancel the query that one session runs. The session stays; its transaction, if
any, is to be rolled back. It waits until the query has ended. A session whose
client does not read its rows goes on all the same: force-close --pid ends it.`,
	},
	{
		name: "monitor", short: "Show it all the time", flags: (*connections).monitorFlags, run: (*connections).monitor,
		long: `Show the connections again and again: a full screen on a terminal, lines
elsewhere, JSON lines with --json. It keeps one connection, and goes on when the
server restarts. Without --watch it is one line.`,
	},
	{
		name: "budget", short: "Check that the fleet's pools fit into the server's slots",
		flags: (*connections).budgetFlags, run: (*connections).budget,
		long: `Check replicas × (pool + 1) × 2 while deploying + extras against the usable
slots, and without the extras against the role's and the database's own limit,
and say which pool size fits. It lists the services that have sessions now.
With --dsn, where the configured pools are another server's, it checks those
sessions instead, without these limits: all services, and the largest once
more while it is deployed. Exit code 1 when it does not fit.`,
	},
}

// whatDoctorKnows lists the scenarios that can be detected from a server's state, and why the others can't.
func whatDoctorKnows() string {
	known, unseen := "It knows:\n", "It can't know, for the server's state does not show it:\n"
	for _, s := range activity.Scenarios() {
		if s.Unseen == "" {
			known += item(fmt.Sprintf("  %2d %-24s", s.Number, s.Name), s.Cause)
		} else {
			unseen += item(fmt.Sprintf("  %2d %-24s", s.Number, s.Name), s.Unseen)
		}
	}
	return known + "\nAn attempt to connect that the server refuses leaves no session. So it names\n" +
		"reconnect-stampede only if sessions begin and end after a restart.\n\n" + strings.TrimSpace(unseen)
}

func (c *cli) dbConnectionsCommand() *cobra.Command {
	names := make([]string, len(actions))
	for i, a := range actions {
		names[i] = a.name
	}
	d, chosen := &connections{cli: c}, ""
	cmd := &cobra.Command{
		Use:   "db-connections [ACTION]",
		Short: "Show who has a PostgreSQL server's slots; end connections",
		Long: `Show the connections of any PostgreSQL (12 and later), judge them, and end
those that do nothing.

The server is that of the configuration file, of DATABASE_URL, or of --dsn. It
works with an ordinary role, and says what that role can't see. When no slot is
left, it takes a reserved slot if the role may have one, or uses the
connection that a running ddtb server of the same user on this machine keeps
open; else it says how to get in.

In trouble, begin with: ddtb db-connections doctor`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			i := slices.Index(names, cmp.Or(chosen, "status"))
			if i < 0 {
				return errors.Join(noCommand(cmd, []string{chosen}), usage("the actions are %s", strings.Join(names, ", ")))
			}
			if err := onlyFlagsOf(cmd, actions[i]); err != nil {
				return err
			}
			return d.startWith(cmd, actions[i])
		},
	}
	cmd.PersistentFlags().StringVar(&d.dsn, "dsn", "",
		"the server, as a URL or as host=… user=… dbname=…, or @FILE that holds it (default: the configuration's, or DATABASE_URL)")
	cmd.PersistentFlags().StringVar(&d.pooler, "pgbouncer", "",
		"the console of the PgBouncer in front of the server, as for --dsn (default: that of the configured pooler); its user must be in stats_users")
	cmd.PersistentFlags().BoolVar(&d.asJSON, "json", false, "print JSON; db/activity/JSON.md describes its fields")
	cmd.Flags().StringVar(&chosen, "action", "",
		"the action, as an alternative to the subcommand: "+strings.Join(names, ", ")+" (default status)")
	for _, a := range actions {
		sub := &cobra.Command{
			Use: a.name, Short: a.short, Long: a.long,
			RunE: func(cmd *cobra.Command, _ []string) error { return d.startWith(cmd, a) },
		}
		if a.flags != nil {
			a.flags(d, sub.Flags())
			sub.Flags().VisitAll(func(f *pflag.Flag) {
				if cmd.Flags().Lookup(f.Name) == nil {
					cmd.Flags().AddFlag(f)
				}
			})
		}
		cmd.AddCommand(sub)
	}
	return cmd
}

// onlyFlagsOf rejects a flag of another action, which would be ignored.
func onlyFlagsOf(cmd *cobra.Command, a action) (err error) {
	sub, _, _ := cmd.Find([]string{a.name})
	cmd.Flags().Visit(func(f *pflag.Flag) {
		forAll := f.Name == "action" || cmd.InheritedFlags().Lookup(f.Name) != nil || cmd.PersistentFlags().Lookup(f.Name) != nil
		if !forAll && sub.Flags().Lookup(f.Name) == nil {
			err = usage("--%s means nothing to the action %s", f.Name, a.name)
		}
	})
	return err
}

// actionOf returns the action of db-connections that the command is, by its name or by --action.
func actionOf(cmd *cobra.Command) string {
	if f := cmd.Flags().Lookup("action"); f != nil && f.Changed {
		return f.Value.String()
	}
	return cmd.Name()
}

// startWith is start; an application given as "" means the sessions without a name.
func (d *connections) startWith(cmd *cobra.Command, a action) error {
	f := cmd.Flags().Lookup("application")
	d.filter.Nameless = f != nil && f.Changed && d.filter.Application == ""
	// An unset variable must not mean all sessions, or another server.
	for name, empty := range map[string]string{"dsn": "", "pgbouncer": "", "user": "", "database": "", "pid": "0"} {
		if f := cmd.Flags().Lookup(name); f != nil && f.Changed && f.Value.String() == empty {
			return usage("--%s %q names nothing: give a value, or leave it out", name, empty)
		}
	}
	return d.start(cmd.Context(), a)
}

// start opens an access path to the server, and runs the action.
func (d *connections) start(ctx context.Context, a action) error {
	d.printer = printer(d.cli)
	d.close = func() {}
	if err := d.configure(); err != nil {
		return err
	}
	err := d.open(ctx)
	defer func() { d.close() }()
	if err == nil {
		err = a.run(d, ctx)
	}
	if _, reported := errors.AsType[*exitError](err); err == nil || reported {
		return err
	}
	return d.fail(ctx, a, err)
}

// configure reads the configuration. With --dsn it only provides thresholds, and its mistakes must not prevent the
// command from helping in an outage.
func (d *connections) configure() error {
	if err := d.readDSN(); err != nil {
		return err
	}
	if d.dsn == "" {
		cfg, err := d.loadForServer()
		d.cfg = cfg
		return err
	}
	cfg, err := d.load(d.options())
	if err != nil {
		d.log.Warn("the configuration has mistakes; the defaults are used", "error", err)
		c := config.Default()
		cfg = &c
	}
	d.cfg = cfg
	return nil
}

// database returns the database being monitored.
func (d *connections) database() config.Database { return d.cfg.Databases["default"] }

func (d *connections) json(v any) error { return console.JSON(d.out, v) }

// show prints v as JSON if that was asked for, or as text.
func (d *connections) show(v any, asText func()) error {
	if d.asJSON {
		return d.json(v)
	}
	asText()
	return nil
}

// printer prints to c.out. It uses colour only on a terminal, and never with NO_COLOR.
func printer(c *cli) console.Printer {
	return console.Printer{
		W: c.out, Width: width(c.out),
		Colour: isTerminal(c.out) && c.environment("NO_COLOR") == "" && c.environment("TERM") != "dumb",
	}
}

// width returns the width of f, if f is a terminal; 0: no bound.
func width(f any) int {
	fd, is := terminal(f)
	if !is {
		return 0
	}
	w, _, _ := term.GetSize(fd) // 0 if it is not known
	return w
}

func isTerminal(f any) bool {
	_, is := terminal(f)
	return is
}

// terminal returns the descriptor of f, if f is a terminal.
func terminal(f any) (fd int, is bool) {
	file, ok := f.(interface{ Fd() uintptr })
	if !ok {
		return 0, false
	}
	fd = int(file.Fd())
	return fd, term.IsTerminal(fd)
}

// secondsValue is a flag that accepts Go's durations, and a bare number as seconds, like the configuration.
type secondsValue struct{ *time.Duration }

func (v secondsValue) Type() string { return "duration" }

// Set implements pflag.Value.
func (v secondsValue) Set(s string) error {
	if s != "" && strings.Trim(s, "0123456789.") == "" {
		s += "s"
	}
	parsed, err := time.ParseDuration(s)
	if err != nil || parsed < 0 {
		return errors.New(`write a duration as 90s or 5m; a bare number is seconds`)
	}
	*v.Duration = parsed
	return nil
}
