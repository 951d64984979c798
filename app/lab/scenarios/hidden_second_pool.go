package scenarios

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"ddtb/app/lab/scene"
)

var _ = add(scene.Scenario{
	Number: 13, Name: "hidden-second-pool", Title: "a library opens its own pool",
	Family: scene.TooMany, Message: "FATAL: sorry, too many clients already",
	Why: "The web pool was sized for the server's slots. " +
		"A job runner, a migration tool or an analytics library takes the same URL, and opens its own pool with its own default size. " +
		"Together they want more slots than there are, but only when both are busy.",
	Figure: "requests and jobs refused", FixedBy: "giving the one pool to the library",
	SQL: `SELECT application_name, count(*) FROM pg_stat_activity
WHERE backend_type = 'client backend' AND usename = 'YOUR_USER' GROUP BY 1;`,
	Recipe: "pool", Threads: scene.Threads("guardian/typerighter#480"),
	Load:  scene.Load{Requests: 120, Burst: 30, Every: 400 * time.Millisecond, Patience: 3 * time.Second},
	Fails: hiddenSecondPoolFails, Works: hiddenSecondPoolWorks,
})

func hiddenSecondPoolFails(s *scene.Stage) scene.Request {
	web := s.Pool(14)
	jobs := newJobRunner(s.Pool(14)) // from the same URL
	return serve(web, jobs)
}

func hiddenSecondPoolWorks(s *scene.Stage) scene.Request {
	web := s.Pool(14)
	jobs := newJobRunner(web) // the library takes a pool, not a URL
	return serve(web, jobs)
}

// jobRunner is a library that runs jobs.
type jobRunner struct{ pool *pgxpool.Pool }

func newJobRunner(p *pgxpool.Pool) jobRunner { return jobRunner{p} }

// serve makes every second request enqueue a job and wait for it.
func serve(web *pgxpool.Pool, jobs jobRunner) scene.Request {
	return func(ctx context.Context, n int) error {
		if n%2 == 0 {
			return slowly(ctx, jobs.pool, 150*time.Millisecond)
		}
		return slowly(ctx, web, 150*time.Millisecond)
	}
}
