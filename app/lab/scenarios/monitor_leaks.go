package scenarios

import (
	"context"
	"time"

	"ddtb/app/lab/scene"
)

var _ = add(scene.Scenario{
	Number: 17, Name: "monitor-leaks", Title: "the monitoring itself piles up connections",
	Family: scene.Leaks, Message: "FATAL: sorry, too many clients already",
	Why: "A monitor opens a connection for each scrape. " +
		"When the server is slow the scrape times out, and the monitor gives up without closing. " +
		"So the monitoring adds connections just when there are none to spare.",
	Figure: "page views refused", FixedBy: "one connection, kept and reused",
	SQL: `SELECT application_name, usename, count(*) FROM pg_stat_activity
WHERE backend_type = 'client backend' GROUP BY 1, 2 ORDER BY 3 DESC;`,
	Recipe: "leaks", Threads: scene.Threads("prometheus-community/postgres_exporter#941", "ankane/pghero#253"), Of: 40,
	Load:  scene.Load{Requests: 80, Every: 15 * time.Millisecond, Patience: 5 * time.Second},
	Fails: monitorLeaksFails, Works: monitorLeaksWorks,
})

func monitorLeaksFails(s *scene.Stage) scene.Request {
	return scraped(s, func(ctx context.Context) error {
		conn, err := s.Connect(ctx)
		if err != nil {
			return err
		}
		if err := scrape(ctx, conn); err != nil {
			return err // and the connection stays open
		}
		return conn.Close(ctx)
	})
}

func monitorLeaksWorks(s *scene.Stage) scene.Request {
	one := s.Pool(1) // the monitor's only connection
	return scraped(s, func(ctx context.Context) error {
		return scrape(ctx, one)
	})
}

// scrape waits for a slow server until the scraper's timeout.
func scrape(_ context.Context, q querier) error {
	_, err := q.Exec(context.Background(), "SET statement_timeout = '20ms'; SELECT pg_sleep(1)")
	return err
}

// scraped alternates scrapes and page views, which use one connection each.
func scraped(s *scene.Stage, scrape func(context.Context) error) scene.Request {
	return func(ctx context.Context, n int) error {
		if n%2 == 0 {
			_ = scrape(ctx) // its statement timeout is expected, and page views show whether there are slots
			return nil
		}
		conn, err := s.Connect(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close(ctx) }()
		return latestPolls(ctx, conn)
	}
}
