package scenarios

import (
	"context"
	"time"

	"ddtb/app/lab/scene"
)

var threadLeak = scene.Scenario{
	Number: 1, Name: "thread-leak", Title: "a connection per thread, and threads come and go",
	Family:  scene.Leaks,
	Message: "FATAL: remaining connection slots are reserved for non-replication superuser connections",
	Why: "A persistent connection belongs to the thread that opened it, and only that thread checks its age. " +
		"A threaded server starts a thread for each client connection, and something keeps what a finished thread had: here a registry by thread, as a debug toolbar has one. " +
		"So connections only add up, and when the slots are used up every further request fails, although hardly any connection is in use.",
	Figure: "requests refused", FixedBy: "closing a worker's connection with the worker",
	Note: "Plain Django loses no request here: it drops a finished thread's connection at the next garbage collection. So look for what keeps it. " +
		"A real Django 3.2 with django-debug-toolbar and `ab -n 200 -c 1` at max_connections = 100 loses 105 of 200 requests, with a peak of 96 backends. " +
		"Wrong advice: CONN_MAX_AGE = 0 does stop this accumulation, but not too many requests at once, and it pays a login for every request.",
	SQL: `SELECT application_name, client_addr, count(*), min(state_change) AS idle_since
FROM pg_stat_activity WHERE state = 'idle' GROUP BY 1, 2 ORDER BY 3 DESC;`,
	Recipe: "leaks", Threads: scene.Threads("django-commons/django-debug-toolbar#1799", "wagtail/wagtail#1242"),
	Slots: 97, Load: scene.Load{Requests: 200, Every: 10 * time.Millisecond, Patience: 5 * time.Second},
	Fails: threadLeakFails, Works: threadLeakWorks,
}

func threadLeakFails(s *scene.Stage) scene.Request {
	var kept registry // the connection of each thread; none is ever removed
	return func(ctx context.Context, thread int) error {
		conn, err := s.Connect(ctx) // kept for the thread's next request
		if err != nil {
			return err
		}
		kept.put(thread, conn)
		return latestPolls(ctx, conn)
	} // the thread ends, its connection stays open
}

func threadLeakWorks(s *scene.Stage) scene.Request {
	var kept registry
	return func(ctx context.Context, thread int) error {
		conn, err := s.Connect(ctx)
		if err != nil {
			return err
		}
		kept.put(thread, conn)
		defer kept.close(thread) // the connection ends with its thread
		return latestPolls(ctx, conn)
	}
}
