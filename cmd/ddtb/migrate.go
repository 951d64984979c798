package main

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"ddtb/db/migrations"
)

func (c *cli) migrateCommand() *cobra.Command {
	migrate := &cobra.Command{
		Use:   "migrate",
		Short: "Bring the database's tables up to date (same as migrate up)",
		Long: `Bring the tables of the configured database up to date. Several processes may do so at once: they
take turns. Behind PgBouncer, direct_host and direct_port are used.`,
		Args: noCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.migrateUp(cmd.Context()) },
	}
	migrate.AddCommand(
		&cobra.Command{
			Use: "up", Short: "Apply every migration that is missing", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return c.migrateUp(cmd.Context()) },
		},
		&cobra.Command{
			Use: "down", Short: "Take the newest migration back, with the data in its tables", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return c.migrateDown(cmd.Context()) },
		},
		&cobra.Command{
			Use: "status", Short: "List the migrations, and which are applied", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return c.migrateStatus(cmd.Context()) },
		},
	)
	return migrate
}

func (c *cli) migrateUp(ctx context.Context) error {
	cfg, err := c.loadForServer()
	if err != nil {
		return err
	}
	applied, err := migrations.Up(ctx, cfg.Databases["default"])
	for _, m := range applied {
		c.say("Applied %s\n", m.Name)
	}
	if err == nil && len(applied) == 0 {
		c.say("Nothing to do: the database is up to date.\n")
	}
	return err
}

func (c *cli) migrateDown(ctx context.Context) error {
	cfg, err := c.loadForServer()
	if err != nil {
		return err
	}
	m, err := migrations.Down(ctx, cfg.Databases["default"])
	if err != nil {
		return err
	}
	c.say("Took back %s\n", m.Name)
	return nil
}

func (c *cli) migrateStatus(ctx context.Context) error {
	cfg, err := c.loadForServer()
	if err != nil {
		return err
	}
	migrations, err := migrations.Status(ctx, cfg.Databases["default"])
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
