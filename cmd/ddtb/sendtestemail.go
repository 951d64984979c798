package main

import (
	"strings"

	"github.com/spf13/cobra"

	"ddtb/app/report"
)

func (c *cli) sendtestemailCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "sendtestemail",
		Short: "Send a mail to every admin, as failures are reported",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := c.load(c.options())
			if err != nil {
				return err
			}
			o := report.Options{Mail: cfg.Mail, BaseURL: cfg.Server.BaseURL, Console: c.out, Log: c.log}
			if err := report.SendTest(cmd.Context(), o); err != nil {
				return err
			}
			c.say("Sent to %s.\n", strings.Join(cfg.Mail.Admins, ", "))
			return nil
		},
	}
}
