package scenarios

import (
	"context"
	"time"

	"ddtb/app/lab/scene"
)

var _ = add(scene.Scenario{
	Number: 25, Name: "noisy-neighbour", Title: "another application on the server takes the slots",
	Family: scene.TooMany, Message: "FATAL: remaining connection slots are reserved for non-replication superuser connections",
	Why: "Slots belong to the server, not to a database or a user. " +
		"Another application leaks, or runs a batch, and takes all that is left. " +
		"Yours has done nothing wrong, and its requests are refused.",
	Figure: "requests refused", FixedBy: "a CONNECTION LIMIT for the neighbour's role",
	Note: "Wrong advice: terminating every session of the server also ends other people's work. Limit the role that takes too much.",
	SQL: `SELECT usename, datname, count(*), r.rolconnlimit FROM pg_stat_activity a
JOIN pg_roles r ON r.rolname = a.usename GROUP BY 1, 2, 4 ORDER BY 3 DESC;`,
	Recipe: "neighbour", Threads: []scene.Link{{Text: "createmod#1482", URL: ""}},
	Load:  scene.Load{Requests: 80, Burst: 4, Every: 50 * time.Millisecond, Patience: 3 * time.Second},
	Fails: noisyNeighbourFails, Works: noisyNeighbourWorks,
})

func noisyNeighbourFails(s *scene.Stage) scene.Request {
	s.Operate("ALTER ROLE neighbour CONNECTION LIMIT -1") // PostgreSQL's default: no limit
	s.Fill(2 * s.Slots())                                 // the neighbour takes what it can get
	return connectAndVote(s)
}

func noisyNeighbourWorks(s *scene.Stage) scene.Request {
	s.Operate("ALTER ROLE neighbour CONNECTION LIMIT 10")
	s.Fill(2 * s.Slots()) // the neighbour takes what it can get
	return connectAndVote(s)
}

// connectAndVote is our application: a small pool that connects on demand.
func connectAndVote(s *scene.Stage) scene.Request {
	pool := s.Pool(8)
	return func(ctx context.Context, n int) error {
		return vote(ctx, pool, n+1)
	}
}
