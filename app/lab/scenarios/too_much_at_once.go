package scenarios

import (
	"context"
	"time"

	"ddtb/app/lab/scene"
	"ddtb/config"
)

var _ = add(scene.Scenario{
	Number: 3, Name: "too-much-at-once", Title: "a connection per request, more requests than slots",
	Family:  scene.TooMany,
	Message: "FATAL: sorry, too many clients already",
	Why: "Each request opens a connection and closes it at its end. " +
		"So there are as many connections as requests in progress, and nothing bounds their number. " +
		"When there is one request more than there are slots, the server refuses its login.",
	Figure: "requests refused", FixedBy: "a pool with fewer connections than slots, in whose queue requests wait",
	Note: "A real Django under gunicorn with 40 threads, 22 slots and CONN_MAX_AGE = 0 loses 507 of 2,000 requests (25 %) to ab -c 40. " +
		"There, one interpreter's lock lets fewer than 40 threads reach the login at the same time; here 40 requests are due at the same moment, so up to 18 of 40 (45 %) find no slot. " +
		"Wrong advice: CONN_MAX_AGE = 0 does not help here: it is what fails. And a higher max_connections needs a restart, not a reload.",
	SQL: `SELECT count(*) AS used, current_setting('max_connections') AS max
FROM pg_stat_activity WHERE backend_type = 'client backend';`,
	Recipe: "pool", Threads: scene.Threads("debusine#795"),
	Slots: 22, Load: scene.Load{Requests: 120, Burst: 40, Every: time.Second, Patience: 6 * time.Second},
	Fails: tooMuchAtOnceFails, Works: tooMuchAtOnceWorks,
})

func tooMuchAtOnceFails(s *scene.Stage) scene.Request {
	return func(ctx context.Context, _ int) error {
		conn, err := s.Connect(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close(ctx) }()
		return slowly(ctx, conn, 400*time.Millisecond)
	}
}

func tooMuchAtOnceWorks(s *scene.Stage) scene.Request {
	d := s.DB(func(c *config.Database) {
		c.Strategy, c.Pool.MaxSize, c.Pool.Timeout = "pool", 18, 5*time.Second
	})
	return func(ctx context.Context, _ int) error {
		_, err := d.Exec(ctx, "SELECT pg_sleep(0.4)") // waits for one of 18 connections
		return err
	}
}
