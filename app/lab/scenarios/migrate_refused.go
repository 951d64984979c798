package scenarios

import (
	"context"
	"time"

	"ddtb/app/lab/scene"
)

const (
	busy     = 32 // requests, before the deploy and during it
	deployed = 4  // replicas
)

var _ = add(scene.Scenario{
	Number: 14, Name: "migrate-refused", Title: "migrations at boot find no slot",
	Family: scene.TooMany, Message: "FATAL: remaining connection slots are reserved for non-replication superuser connections",
	Why: "The pools may take every slot, and under load they do. " +
		"A deploy starts replicas, each of which migrates on its own connection beside the pool. " +
		"The migration is refused, the replica does not start, and the orchestrator starts another.",
	Figure: "migrations refused", FixedBy: "pools that leave two slots free, and one migration for all replicas",
	SQL: `SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
     - count(*) AS free FROM pg_stat_activity WHERE backend_type = 'client backend';`,
	Recipe: "pool", Threads: scene.Threads("simstudioai/sim#5226", "prisma/prisma#11818"), Of: deployed,
	Load:  scene.Load{Requests: 2 * busy, Burst: busy, Every: 400 * time.Millisecond, Patience: 3 * time.Second},
	Value: scene.FailedFrom(busy), Fails: migrateRefusedFails, Works: migrateRefusedWorks,
})

func migrateRefusedFails(s *scene.Stage) scene.Request {
	web := s.Pool(s.Slots())
	return deploy(func(ctx context.Context, n int) error {
		return slowly(ctx, web, 200*time.Millisecond)
	}, func(ctx context.Context, _ int) error {
		conn, err := s.Connect(ctx)
		if err != nil {
			return err
		}
		return vote(ctx, conn, 1) // stands for the migration
	})
}

func migrateRefusedWorks(s *scene.Stage) scene.Request {
	web := s.Pool(s.Slots() - 2) // room for a migration and for monitoring
	return deploy(func(ctx context.Context, n int) error {
		return slowly(ctx, web, 200*time.Millisecond)
	}, func(ctx context.Context, replica int) error {
		if replica > 0 {
			return nil // the deployment migrates once, before starting replicas
		}
		conn, err := s.Connect(ctx)
		if err != nil {
			return err
		}
		return vote(ctx, conn, 1)
	})
}

// deploy has four replicas migrate at boot, 100 ms into the second burst, while the others serve.
func deploy(page, migrate func(context.Context, int) error) scene.Request {
	return func(ctx context.Context, n int) error {
		if n < busy || n >= busy+deployed {
			return page(ctx, n)
		}
		_ = scene.Sleep(ctx, 100*time.Millisecond)
		return migrate(ctx, n-busy)
	}
}
