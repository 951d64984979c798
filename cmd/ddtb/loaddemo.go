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
		RunE: c.onDatabase(func(ctx context.Context, d config.Database) error {
			if many < 0 || many > mostQuestions {
				return usage("--questions=%d: give a number from 0 to %d", many, mostQuestions)
			}
			return withDB(ctx, d, func(d *db.DB) error { return c.loaddemo(ctx, polls.NewStore(d), many) })
		}),
	}
	cmd.Flags().IntVar(&many, "questions", 0, "also add this many made-up questions, in an instant")
	return cmd
}

// loaddemo adds the demo polls if there are none, and as many more as requested.
func (c *cli) loaddemo(ctx context.Context, store *polls.Store, many int) error {
	made, err := store.LoadDemo(ctx, time.Now())
	if err == nil && many > 0 {
		made += many
		err = store.LoadMany(ctx, time.Now(), many)
	}
	switch {
	case err != nil:
		return err
	case made == 0:
		c.say("There are questions already, so nothing was added.\n")
	default:
		c.say("Added %d questions.\n", made)
	}
	return nil
}
