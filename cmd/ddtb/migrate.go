package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/migrations"
)

func (c *cli) migrateCommand() *cobra.Command {
	migrate := &cobra.Command{
		Use:   "migrate",
		Short: "Bring the database's tables up to date (same as migrate up)",
		Long: `Bring the tables of the configured database up to date. Several processes may do
so at once: they take turns. Behind PgBouncer, direct_host and direct_port are
used.`,
		RunE: c.onDatabase(c.migrateUp),
	}
	migrate.AddCommand(
		&cobra.Command{Use: "up", Short: "Apply every migration that is missing", RunE: c.onDatabase(c.migrateUp)},
		c.migrateDownCommand(),
		&cobra.Command{Use: "status", Short: "List the migrations, and which are applied", RunE: c.onDatabase(c.migrateStatus)},
	)
	return migrate
}

func (c *cli) migrateDownCommand() *cobra.Command {
	var yes bool
	down := &cobra.Command{
		Use: "down", Short: "Take the newest migration back, with the data in its tables",
		Long: `Take the newest migration back. What it made is dropped with all data in it,
which only a backup brings back. It asks first.`,
		RunE: c.onDatabase(func(ctx context.Context, d config.Database) error { return c.migrateDown(ctx, d, yes) }),
	}
	down.Flags().BoolVar(&yes, "yes", false, "don't ask")
	return down
}

// onDatabase makes do a command on the configured database.
func (c *cli) onDatabase(do func(context.Context, config.Database) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		cfg, err := c.loadForServer()
		if err != nil {
			return err
		}
		return do(cmd.Context(), cfg.Databases["default"])
	}
}

func (c *cli) migrateUp(ctx context.Context, d config.Database) error {
	applied, err := migrations.Up(ctx, d)
	for _, m := range applied {
		c.say("Applied %s\n", m.Name)
	}
	if err == nil && len(applied) == 0 {
		c.say("Nothing to do: the database is up to date.\n")
	}
	return err
}

func (c *cli) migrateDown(ctx context.Context, d config.Database, yes bool) error {
	var newest int64 // any
	if !yes {
		var err error
		if newest, err = c.confirmDown(ctx, d); err != nil {
			return err
		}
	}
	m, err := migrations.Down(ctx, d, newest)
	if err == nil {
		c.say("Took back %s\n", m.Name)
	}
	return err
}

// confirmDown asks whether the newest migration may go, if there is one, and returns its version.
func (c *cli) confirmDown(ctx context.Context, d config.Database) (version int64, err error) {
	steps, err := migrations.Status(ctx, d)
	if err != nil {
		return 0, err
	}
	steps = slices.DeleteFunc(steps, func(m migrations.Step) bool { return m.Pending })
	if len(steps) == 0 {
		return 0, migrations.ErrNone
	}
	newest := steps[len(steps)-1]
	cc, err := db.ConnConfig(db.Direct(d), d.ApplicationName)
	if err != nil {
		return 0, err
	}
	c.say("Database %s on %s port %d:\nthis takes back %s, and drops what it made with all data in it.\n",
		cc.Database, cc.Host, cc.Port, cmp.Or(newest.Name, fmt.Sprint(newest.Version)))
	return newest.Version, c.confirm(ctx, "Go on?", "nothing was changed", "add --yes to take it back")
}

func (c *cli) migrateStatus(ctx context.Context, d config.Database) error {
	migrations, err := migrations.Status(ctx, d)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	for _, m := range migrations {
		applied := "not applied"
		if !m.Pending {
			applied = "applied " + m.AppliedAt.Format(time.DateTime)
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\n", cmp.Or(m.Name, fmt.Sprintf("%05d (of a newer ddtb)", m.Version)), applied)
	}
	return w.Flush()
}
