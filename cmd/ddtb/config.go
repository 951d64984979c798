package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"ddtb/config"
)

func (c *cli) configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Check, show or begin the configuration file", Args: noCommand, RunE: needsSubcommand}
	cmd.AddCommand(
		&cobra.Command{
			Use: "check", Short: "Find every mistake in the file and the environment", Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error { return c.configCheck() },
		},
		&cobra.Command{
			Use: "show", Short: "Print every value and where it comes from, without secrets", Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error { return c.configShow() },
		},
		&cobra.Command{
			Use: "init", Short: "Write a file with every key, its default and a line on it", Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error { return c.configInit() },
		},
	)
	return cmd
}

func needsSubcommand(cmd *cobra.Command, _ []string) error {
	_ = cmd.Help()
	return &exitError{code: exitUsage}
}

func (c *cli) configCheck() error {
	cfg, err := c.load(c.options())
	if err != nil {
		return err
	}
	if cfg.File == "" {
		path, _ := c.options().Path()
		c.say("No mistake. There is no file %s: every value is a default or from the environment.\n", path)
		return nil
	}
	c.say("No mistake in %s.\n", cfg.File)
	return nil
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
	c.say("Wrote %s. Fill in name, user and password, then run `ddtb config check`.\n", path)
	return nil
}
