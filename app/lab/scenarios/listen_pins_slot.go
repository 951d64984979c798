package scenarios

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"ddtb/app/lab/scene"
)

const modules = 18 // of the application that listen for changes

var _ = add(scene.Scenario{
	Number: 22, Name: "listen-pins-slot", Title: "each module that listens keeps a connection",
	Family: scene.TooLong, Message: "FATAL: sorry, too many clients already",
	Why: "LISTEN belongs to a session, so a listener can't release its connection. " +
		"Each module of the application listens on its own connection. " +
		"These connections are idle all day, and hold most of the slots.",
	Figure: "page views refused", FixedBy: "one connection that listens for all modules, and passes the notifications on",
	SQL: `SELECT pid, application_name, query, now() - state_change AS since
FROM pg_stat_activity WHERE query ILIKE 'listen%';`,
	Recipe: "listen", Threads: scene.Threads("supabase/supavisor#85"), Of: 60,
	Load:  scene.Load{Requests: modules + 60, Burst: 6, Every: 100 * time.Millisecond},
	Value: scene.FailedFrom(modules), Fails: listenPinsSlotFails, Works: listenPinsSlotWorks,
})

func listenPinsSlotFails(s *scene.Stage) scene.Request {
	return siteWithModules(s, func(ctx context.Context, module int) error {
		conn, err := s.Connect(ctx) // kept open
		if err != nil {
			return err
		}
		_, err = conn.Exec(ctx, "LISTEN polls")
		return err
	})
}

func listenPinsSlotWorks(s *scene.Stage) scene.Request {
	listener := s.Pool(1, func(c *pgxpool.Config) { c.MinConns = 1 })
	return siteWithModules(s, func(ctx context.Context, module int) error {
		_, err := listener.Exec(ctx, "LISTEN polls") // the single session; it notifies the modules
		return err
	})
}

// siteWithModules starts the modules, and then serves pages, each on a connection from a pool that grows on demand.
func siteWithModules(s *scene.Stage, listen func(context.Context, int) error) scene.Request {
	pool := s.Pool(6)
	return func(ctx context.Context, n int) error {
		if n < modules {
			return listen(ctx, n)
		}
		return slowly(ctx, pool, 30*time.Millisecond)
	}
}
