package scenarios

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"ddtb/app/lab/scene"
)

var _ = add(scene.Scenario{
	Number: 29, Name: "fleet-deploy", Title: "a rolling deploy fails requests behind a balancer",
	Family: scene.TooMany, Message: "FATAL: sorry, too many clients already",
	Why: "A rolling deploy starts each new process before it ends the old one, so one more pool than usual wants connections. " +
		"The other pools hold every slot, so the new process answers with errors. " +
		"The old one ends at once, while the balancer still sends it requests, and aborts those in progress.",
	Figure:  "requests failed",
	FixedBy: "pools that leave room for one more process, and a stop in this order: unready, wait for the balancer, finish, close",
	Note: "Four web servers behind a real HAProxy, which must be installed, that checks each every 100 ms. " +
		"ddtb itself stops in the same order, and notifies HAProxy's agent-check too: server.agent_addr and server.drain.",
	SQL: `SELECT application_name, min(backend_start) AS since, count(*) AS sessions
FROM pg_stat_activity WHERE backend_type = 'client backend' GROUP BY 1 ORDER BY 2;`,
	Recipe: "pool", Threads: scene.Threads("kortix-ai/suna#6724", "openfga/helm-charts#293", "KBVE/kbve#12668"),
	Load:  scene.Load{Requests: 800, Every: 5 * time.Millisecond, Patience: 3 * time.Second},
	Fails: fleetDeployFails, Works: fleetDeployWorks,
})

func fleetDeployFails(s *scene.Stage) scene.Request {
	start := fleetOf(s, s.Slots()/replicas) // 5 each: as many as there are slots
	return rolling(s, start, func(_ context.Context, old *scene.Process) {
		old.Kill()
	})
}

func fleetDeployWorks(s *scene.Stage) scene.Request {
	start := fleetOf(s, s.Slots()/(replicas+1)) // 4 each: room for the new one beside the old ones
	return rolling(s, start, func(ctx context.Context, old *scene.Process) {
		old.Drain()                         // its health check fails
		_ = scene.Sleep(ctx, scene.Noticed) // the balancer sends no more requests
		old.End(ctx)                        // after its running requests
	})
}

// fleet is a site with two places for each process: the old one's and the new one's.
type fleet struct {
	site  *scene.Site
	start func(place int) *scene.Process
}

func fleetOf(s *scene.Stage, size int) fleet {
	site := s.Site(2 * replicas)
	return fleet{site, func(place int) *scene.Process {
		pool := s.Pool(size, func(c *pgxpool.Config) { c.MinConns = int32(size) })
		return s.Start(site, place, func(ctx context.Context) error {
			return slowly(ctx, pool, 40*time.Millisecond)
		}, pool.Close)
	}}
}

// rolling starts the old processes, and replaces them one by one under load.
func rolling(s *scene.Stage, f fleet, stop func(context.Context, *scene.Process)) scene.Request {
	var old []*scene.Process
	for place := range replicas {
		old = append(old, f.start(place))
	}
	s.Go(func(ctx context.Context) {
		for n, process := range old {
			f.start(replicas + n)
			stop(ctx, process)
		}
	})
	return func(ctx context.Context, _ int) error { return f.site.Post(ctx) }
}
