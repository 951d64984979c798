package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"ddtb/config"
	"ddtb/db"
	"ddtb/polls"
)

func (c *cli) loaddemoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "loaddemo",
		Short: "Put a few polls into an empty database",
		RunE: c.onDatabase(func(ctx context.Context, d config.Database) error {
			return withDB(ctx, d, func(d *db.DB) error {
				made, err := polls.NewStore(d).LoadDemo(ctx, time.Now())
				switch {
				case err != nil:
					return err
				case made == 0:
					c.say("There are questions already, so nothing was added.\n")
				default:
					c.say("Added %d questions.\n", made)
				}
				return nil
			})
		}),
	}
}
