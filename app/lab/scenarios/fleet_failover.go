package scenarios

import (
	"context"
	"sync/atomic"
	"time"

	"ddtb/app/lab/scene"
	"ddtb/config"
	"ddtb/db"
)

var _ = add(scene.Scenario{
	Number: 30, Name: "fleet-failover", Title: "after a failover, the pool keeps the old primary",
	Family: scene.Recovery, Message: "connection refused",
	Why: "The primary is lost, and its standby is promoted within a second. " +
		"The application knows one address, the lost primary's, so every attempt to connect fails. " +
		"It keeps failing until an administrator changes its configuration and restarts it.",
	Figure: "votes failed or lost", FixedBy: "the hosts of both servers, and target_session_attrs=read-write, which finds the new primary",
	Note: "A real primary and a synchronous streaming standby; the primary crashes after one second of four. “Fixed” is at most one second of votes. " +
		"A vote that was acknowledged but is not on the new primary counts too: with a synchronous standby there is none; with an asynchronous one, the votes of the last moment can be lost.",
	SQL:    `SELECT pg_is_in_recovery() AS standby, current_setting('transaction_read_only') AS read_only;`,
	Recipe: "recovery", Threads: scene.Threads("gpustack/gpustack#6107", "brettwooldridge/HikariCP#1802", "npgsql/efcore.pg#1306"),
	Load:      scene.Load{Requests: 200, Every: 20 * time.Millisecond, Patience: 5 * time.Second},
	Tolerated: 50, Value: scene.Counted, Fails: fleetFailoverFails, Works: fleetFailoverWorks,
})

func fleetFailoverFails(s *scene.Stage) scene.Request {
	standby := s.Standby()
	d := s.DB(func(c *config.Database) {
		c.Pool.MaxSize = 5 // host and port are the primary's
	})
	return votesThrough(s, standby, d)
}

func fleetFailoverWorks(s *scene.Stage) scene.Request {
	standby := s.Standby()
	d := s.DB(func(c *config.Database) {
		c.Pool.MaxSize = 5
		standby.Hosts(c) // hosts = [primary, standby], target_session_attrs = "read-write"
	})
	return votesThrough(s, standby, d)
}

// votesThrough votes, with a failover after a second. It counts the votes that fail, and the acknowledged
// votes that are missing afterwards.
func votesThrough(s *scene.Stage, standby *scene.Standby, d *db.DB) scene.Request {
	var acknowledged atomic.Int64
	s.BeforeCounting(func() {
		s.Count(max(0, int(acknowledged.Load())-s.Int("SELECT sum(votes) FROM polls")))
	})
	return func(ctx context.Context, n int) error {
		if n == 50 {
			s.Go(func(context.Context) { standby.Failover() })
		}
		err := vote(ctx, d, 1+n%100)
		if err != nil {
			s.Count(1)
			return err
		}
		acknowledged.Add(1)
		return nil
	}
}
