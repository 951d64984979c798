package scenarios

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"ddtb/app/lab/scene"
)

var _ = add(scene.Scenario{
	Number: 12, Name: "replicas-times-pool", Title: "pool × replicas × 2 in a deploy exceeds the slots",
	Family: scene.TooMany, Message: "FATAL: sorry, too many clients already",
	Why: "A pool's maximum is set for one process, and looks modest. " +
		"Four replicas with 5 connections each fit into 20 slots. " +
		"In a rolling deploy the old and the new four run side by side, and want 40.",
	Figure: "requests refused", FixedBy: "pool size = slots ÷ (replicas × 2 while deploying)",
	SQL: `SELECT application_name, count(DISTINCT client_addr) AS hosts, count(*) AS sessions
FROM pg_stat_activity WHERE backend_type = 'client backend' GROUP BY 1 ORDER BY 3 DESC;`,
	Recipe: "pool", Threads: scene.Threads("mdn/mdn-http-observatory#386", "kortix-ai/suna#6722"),
	Load:  scene.Load{Requests: 160, Burst: 40, Every: 500 * time.Millisecond, Patience: 3 * time.Second},
	Fails: replicasTimesPoolFails, Works: replicasTimesPoolWorks,
})

const replicas = 4

func replicasTimesPoolFails(s *scene.Stage) scene.Request {
	fleet := make([]*pgxpool.Pool, 2*replicas) // the old ones and the new ones
	for i := range fleet {
		fleet[i] = s.Pool(s.Slots() / replicas)
	}
	return func(ctx context.Context, n int) error {
		return slowly(ctx, fleet[n%len(fleet)], 150*time.Millisecond)
	}
}

func replicasTimesPoolWorks(s *scene.Stage) scene.Request {
	fleet := make([]*pgxpool.Pool, 2*replicas)
	for i := range fleet {
		fleet[i] = s.Pool(s.Slots() / (2 * replicas)) // room for both
	}
	return func(ctx context.Context, n int) error {
		return slowly(ctx, fleet[n%len(fleet)], 150*time.Millisecond)
	}
}
