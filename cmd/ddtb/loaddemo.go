package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"ddtb/config"
	"ddtb/db"
	"ddtb/polls"
)

// mostQuestions guards against a slip of the finger.
const mostQuestions = 10_000_000

func (c *cli) loaddemoCommand() *cobra.Command {
	var many int
	cmd := &cobra.Command{
		Use:   "loaddemo",
		Short: "Put a few polls into an empty database",
		Args:  asInUse,
		RunE: c.onDatabase(func(ctx context.Context, d config.Database) error {
			if many < 0 || many > mostQuestions {
				return usage("--questions=%d: give a number from 0 to %d", many, mostQuestions)
			}
			made, err := c.loaddemo(ctx, d, many)
			switch {
			case err != nil:
				return err
			case made == 0:
				c.say("There are questions already, so nothing was added.\n")
			default:
				c.say("Added %d questions.\n", made)
			}
			return nil
		}),
	}
	cmd.Flags().IntVar(&many, "questions", 0, "also add this many made-up questions, in an instant")
	return cmd
}

// loaddemo adds the demo polls if there are none, and many more if requested.
func (c *cli) loaddemo(ctx context.Context, cfg config.Database, many int) (made int, err error) {
	err = withDB(ctx, cfg, func(d *db.DB) error {
		store := polls.NewStore(d)
		made, err = store.LoadDemo(ctx, time.Now())
		if err != nil || many <= 0 {
			return err
		}
		made += many
		return store.LoadMany(ctx, time.Now(), many)
	})
	return made, err
}
