package scenarios

import (
	"context"
	"errors"
	"time"

	"ddtb/app/lab/scene"
)

var _ = add(scene.Scenario{
	Number: 5, Name: "leaked-transaction", Title: "a transaction left open keeps its slot and locks",
	Family: scene.Leaks, Message: "context deadline exceeded",
	Why: "A handler begins a transaction, finds that the form is invalid, and returns without a rollback. " +
		"Its backend stays idle in transaction, with its slot and with the row that it locked. " +
		"Others wait for that row, then for the pool, and time out.",
	Figure: "requests failed", FixedBy: "a deferred rollback, which does nothing after the commit",
	Note: "The requests with an invalid form are answered in both runs, so they don't count as failed. idle_in_transaction_session_timeout is the safety net.",
	SQL: `SELECT pid, application_name, now() - xact_start AS open_for, query
FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' ORDER BY xact_start;`,
	Recipe: "transaction", Threads: scene.Threads("revel/revel#684"),
	Load:  scene.Load{Requests: 60, Every: 10 * time.Millisecond, Patience: time.Second},
	Fails: leakedTransactionFails, Works: leakedTransactionWorks,
})

var errInvalid = errors.New("the form is invalid")

func leakedTransactionFails(s *scene.Stage) scene.Request {
	pool := s.Pool(10)
	return func(ctx context.Context, n int) error {
		tx, err := pool.Begin(ctx)
		if err != nil {
			return err
		}
		s.Afterwards(func() { _ = tx.Rollback(s.Context()) }) // clean-up for the lab
		if err := vote(ctx, tx, n%5+1); err != nil {
			return err
		}
		if err := validate(n); err != nil {
			return nil // shows the form's mistakes; the transaction stays open
		}
		return tx.Commit(ctx)
	}
}

func leakedTransactionWorks(s *scene.Stage) scene.Request {
	pool := s.Pool(10)
	return func(ctx context.Context, n int) error {
		tx, err := pool.Begin(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // on every return
		if err := vote(ctx, tx, n%5+1); err != nil {
			return err
		}
		if err := validate(n); err != nil {
			return nil // shows the form's mistakes
		}
		return tx.Commit(ctx)
	}
}

// validate rejects every fourth form.
func validate(n int) error {
	if n%4 == 0 {
		return errInvalid
	}
	return nil
}
