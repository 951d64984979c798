package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"ddtb/config"
	"ddtb/db"
)

func (c *cli) configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Check, show or begin the configuration file", RunE: needsSubcommand}
	var connect bool
	check := &cobra.Command{
		Use: "check", Short: "Find every mistake in the file and the environment",
		RunE: func(cmd *cobra.Command, _ []string) error { return c.configCheck(cmd.Context(), connect) },
	}
	check.Flags().BoolVar(&connect, "connect", false, "log in to the database as well")
	cmd.AddCommand(check,
		&cobra.Command{
			Use: "show", Short: "Print every value and where it comes from, without secrets",
			RunE: func(*cobra.Command, []string) error { return c.configShow() },
		},
		&cobra.Command{
			Use: "init", Short: "Write a file with every key, its default and a line on it",
			RunE: func(*cobra.Command, []string) error { return c.configInit() },
		},
	)
	return cmd
}

func needsSubcommand(cmd *cobra.Command, _ []string) error {
	_ = cmd.Help()
	return &exitError{code: exitUsage}
}

func (c *cli) configCheck(ctx context.Context, connect bool) error {
	cfg, err := c.load(c.options())
	if err != nil {
		return err
	}
	c.sayChecked(cfg)
	if !connect {
		return nil
	}
	if cfg, err = c.loadForServer(); err != nil {
		return err
	}
	return c.checkLogin(ctx, cfg.Databases["default"])
}

// sayChecked says what the file is good for. Without a database there may be a mistake, but none that can be found.
func (c *cli) sayChecked(cfg *config.Config) {
	path, _ := c.options().Path()
	named := locatesDatabase(cfg)
	switch {
	case cfg.File == "" && named:
		c.say("No mistake. There is no file %s:\nevery value is a default or from the environment.\n", path)
	case cfg.File == "":
		c.say("There is no file %s:\nevery value is a default or from the environment.\n", path)
	case keysFrom(cfg) == 0:
		c.say("%s sets nothing:\nevery value is a default or from the environment.\n", cfg.File)
	case named:
		c.say("No mistake in %s.\n", cfg.File)
	default:
		c.say("What %s sets is valid.\n", cfg.File)
	}
	if !named {
		c.say("No database, user or host is named. The server of `ddtb run` needs none;\n" +
			"elsewhere a database and a user with the account's name are meant.\n")
	}
}

// checkLogin logs in once, and prints the server.
func (c *cli) checkLogin(ctx context.Context, d config.Database) error {
	cc, err := db.ConnConfig(d, d.ApplicationName)
	if err != nil {
		return err
	}
	conn, err := db.Connect(ctx, cc)
	if err != nil {
		return fmt.Errorf("the login fails: %w", err)
	}
	defer db.Disconnect(conn)
	ctx, cancel := context.WithTimeout(ctx, schemaTimeout)
	defer cancel()
	var user, database, version string
	err = conn.QueryRow(ctx, "SELECT current_user, current_database(), current_setting('server_version')",
		pgx.QueryExecModeSimpleProtocol).Scan(&user, &database, &version)
	if err != nil {
		return fmt.Errorf("the login works, and a query fails: %w", err)
	}
	c.say("Logged in as %s to database %s of PostgreSQL %s on %s.\n", user, database, version, conn.PgConn().Conn().RemoteAddr())
	return c.warnOfPooler(ctx, d, conn)
}

// warnOfPooler warns if a pooler answers that d does not name.
func (c *cli) warnOfPooler(ctx context.Context, d config.Database, conn *pgx.Conn) error {
	if d.Pooler != "" {
		return nil
	}
	advice, _, err := db.UndeclaredPooler(ctx, conn)
	if err == nil && advice != "" {
		c.log.WarnContext(ctx, advice)
	}
	return err
}

func (c *cli) configShow() error {
	cfg, err := c.load(c.options())
	if err != nil {
		return err
	}
	return cfg.WriteTOML(c.out)
}

func (c *cli) configInit() error {
	path, _ := c.options().Path()
	if path == "" {
		return fmt.Errorf("there is no home to write the file to: give its place with --config FILE")
	}
	if err := config.Init(path); err != nil {
		return err
	}
	c.print("Wrote %s.\nFill in name, user and password, then run:\n  %s\n", path, c.suggester().complete("ddtb config check --connect"))
	return nil
}
