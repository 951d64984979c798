package scenarios

import (
	"context"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"ddtb/app/lab/scene"
)

var _ = add(scene.Scenario{
	Number: 26, Name: "session-state-leak", Title: "a request inherits the settings of another",
	Family: scene.Leaks, Message: "the page shows the data of another customer",
	Why: "SET changes the session, and a pool hands the session to the next request as it is. " +
		"A request that sets its tenant, its time zone or its role leaves that behind. " +
		"The next holder that does not set it works with another user's setting; advisory locks and temporary tables pass on in the same way.",
	Figure: "requests saw another's setting", FixedBy: "a setting that ends with its transaction",
	SQL: `SELECT name, setting, source FROM pg_settings WHERE source = 'session';
-- in a connection of the pool: a session's settings are visible in that session alone`,
	Recipe: "session", Of: 40,
	Load:  scene.Load{Requests: 80, Burst: 2, Every: 20 * time.Millisecond},
	Value: scene.Counted, Fails: sessionStateLeakFails, Works: sessionStateLeakWorks,
})

func sessionStateLeakFails(s *scene.Stage) scene.Request {
	pool := s.Pool(3)
	return tenants(s, pool, func(ctx context.Context, tenant string) error {
		_, err := pool.Exec(ctx, "SELECT set_config('shop.tenant', $1, false)", tenant) // for the session
		return err
	})
}

func sessionStateLeakWorks(s *scene.Stage) scene.Request {
	pool := s.Pool(3)
	return tenants(s, pool, func(ctx context.Context, tenant string) error {
		return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "SELECT set_config('shop.tenant', $1, true)", tenant) // for the transaction
			return err
		})
	})
}

// tenants alternates requests of customers and anonymous ones, which must not see a customer's setting.
func tenants(s *scene.Stage, pool *pgxpool.Pool, customer func(context.Context, string) error) scene.Request {
	return func(ctx context.Context, n int) error {
		if n%2 == 0 {
			return customer(ctx, strconv.Itoa(n))
		}
		var tenant string
		err := pool.QueryRow(ctx, "SELECT coalesce(current_setting('shop.tenant', true), '')").Scan(&tenant)
		if tenant != "" {
			s.Count(1)
		}
		return err
	}
}
