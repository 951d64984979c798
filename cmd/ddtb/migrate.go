package main

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"ddtb/config"
	"ddtb/db/migrations"
)

func (c *cli) migrateCommand() *cobra.Command {
	migrate := &cobra.Command{
		Use:   "migrate",
		Short: "Bring the database's tables up to date (same as migrate up)",
		Long: `Bring the tables of the configured database up to date. Several processes may do
so at once: they take turns. Behind PgBouncer, direct_host and direct_port are
used.`,
		Args: noCommand,
		RunE: c.onDatabase(c.migrateUp),
	}
	for _, sub := range []struct {
		use, short string
		run        func(context.Context, config.Database) error
	}{
		{"up", "Apply every migration that is missing", c.migrateUp},
		{"down", "Take the newest migration back, with the data in its tables", c.migrateDown},
		{"status", "List the migrations, and which are applied", c.migrateStatus},
	} {
		migrate.AddCommand(&cobra.Command{Use: sub.use, Short: sub.short, Args: cobra.NoArgs, RunE: c.onDatabase(sub.run)})
	}
	return migrate
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

func (c *cli) migrateDown(ctx context.Context, d config.Database) error {
	m, err := migrations.Down(ctx, d)
	if err == nil {
		c.say("Took back %s\n", m.Name)
	}
	return err
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
		name := m.Name
		if name == "" {
			name = fmt.Sprintf("%05d (of a newer ddtb)", m.Version)
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\n", name, applied)
	}
	return w.Flush()
}
