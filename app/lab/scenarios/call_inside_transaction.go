package scenarios

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/app/lab/scene"
)

var _ = add(scene.Scenario{
	Number: 6, Name: "call-inside-transaction", Title: "a call to another service inside a transaction",
	Family: scene.TooLong, Message: "context deadline exceeded",
	Why: "The code begins a transaction, calls a payment service or a mail server, and then writes. " +
		"During the call the connection does nothing, but no other request can use it. " +
		"When the service gets slower, the pool runs dry: it serves at most its size divided by the duration of a call.",
	Figure: "requests failed", FixedBy: "calling first, and opening the transaction for the write only",
	SQL: `SELECT pid, application_name, now() - state_change AS idle_for, query
FROM pg_stat_activity WHERE state = 'idle in transaction' AND state_change < now() - interval '1 s';`,
	Recipe: "transaction", Threads: scene.Threads("ridafkih/keeper.sh#416"),
	Load:  scene.Load{Requests: 80, Every: 12 * time.Millisecond, Patience: time.Second},
	Fails: callInsideTransactionFails, Works: callInsideTransactionWorks,
})

func callInsideTransactionFails(s *scene.Stage) scene.Request {
	pool, pay := s.Pool(5), s.Slow(200*time.Millisecond)
	return func(ctx context.Context, n int) error {
		return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			if err := pay(ctx); err != nil { // the transaction stays open
				return err
			}
			return vote(ctx, tx, n+1)
		})
	}
}

func callInsideTransactionWorks(s *scene.Stage) scene.Request {
	pool, pay := s.Pool(5), s.Slow(200*time.Millisecond)
	return func(ctx context.Context, n int) error {
		if err := pay(ctx); err != nil { // no connection is held
			return err
		}
		return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			return vote(ctx, tx, n+1)
		})
	}
}
