package scenarios

import (
	"context"
	"sync"
	"time"

	"ddtb/app/lab/scene"
)

var _ = add(scene.Scenario{
	Number: 1, Name: "thread-leak", Title: "a connection per thread, and threads come and go",
	Family:  scene.Leaks,
	Message: "FATAL: remaining connection slots are reserved for non-replication superuser connections",
	Why: "A persistent connection belongs to the thread that opened it, and only that thread checks its age. " +
		"A threaded server starts a thread for each client connection, and something keeps the connection of each finished thread: here a registry by thread, like that of a debug toolbar. " +
		"Connections add up, and once the slots are used up every further request fails, although hardly any connection is in use.",
	Figure: "requests refused", FixedBy: "closing a worker's connection with the worker",
	Note: "A real Django 3.2 (ab -n 200 -c 1, max_connections = 100, CONN_MAX_AGE = 600) loses none of 200 requests by itself, with a peak of 19 backends: " +
		"Python's garbage collector closes the connection of a finished thread when it next runs. " +
		"With django-debug-toolbar, which keeps an object of each thread for ever, it loses 105 to 107 of 200, with a peak of 94 to 96. " +
		"Wrong advice: CONN_MAX_AGE = 0 stops this accumulation, but it costs a login for each request, and more requests at once than free slots still fail.",
	SQL: `SELECT application_name, client_addr, count(*), min(state_change) AS idle_since
FROM pg_stat_activity WHERE state = 'idle' GROUP BY 1, 2 ORDER BY 3 DESC;`,
	Recipe: "leaks", Threads: scene.Threads("django-commons/django-debug-toolbar#1799", "wagtail/wagtail#1242"),
	Slots: 97, Load: scene.Load{Requests: 200, Every: 25 * time.Millisecond, Patience: 10 * time.Second},
	Fails: threadLeakFails, Works: threadLeakWorks,
})

func threadLeakFails(s *scene.Stage) scene.Request {
	var kept sync.Map // the connection of each thread; none is ever removed
	return func(ctx context.Context, thread int) error {
		conn, err := s.Connect(ctx) // kept for the thread's next request
		if err != nil {
			return err
		}
		kept.Store(thread, conn)
		return latestPolls(ctx, conn)
	} // the thread ends, its connection stays open
}

func threadLeakWorks(s *scene.Stage) scene.Request {
	var kept sync.Map
	return func(ctx context.Context, thread int) error {
		conn, err := s.Connect(ctx)
		if err != nil {
			return err
		}
		kept.Store(thread, conn)
		defer func() { // the connection ends with its thread
			kept.Delete(thread)
			_ = conn.Close(ctx)
		}()
		return latestPolls(ctx, conn)
	}
}
