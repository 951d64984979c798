package db_test

import (
	"context"
	"testing"
	"time"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

// TestTheWaitForALeaseIsBoundedWhileIdleConnectionsDoNotAnswer has a server that goes silent while connections are idle,
// and a caller without a deadline.
func TestTheWaitForALeaseIsBoundedWhileIdleConnectionsDoNotAnswer(t *testing.T) {
	const size, rest = 4, 1100 * time.Millisecond // rest: after that, a connection is checked
	for name, c := range map[string]struct {
		set  func(*config.Database)
		most time.Duration
	}{
		"pool": {func(c *config.Database) {
			c.Strategy, c.Pool.MaxSize, c.Pool.Timeout, c.ConnectTimeout = db.Pool, size, time.Second, 5*time.Second
		}, 4 * time.Second},
		"persistent, which tries until the circuit opens": {func(c *config.Database) {
			c.Strategy, c.Persistent.Workers, c.ConnectTimeout = db.Persistent, size, 200*time.Millisecond
		}, 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := dbtest.NewServer(t, dbtest.Options{})
			cfg := server.Config(t)
			c.set(&cfg)
			d := openAgain(t, cfg, db.Options{})
			held(t, d, size)()
			<-time.After(rest)
			defer held(t, d, 1)() // the latest that was used is no measure of the others
			server.Pause(t)
			defer server.Resume(t)
			ctx, cancel := context.WithCancel(t.Context()) // without a deadline
			defer cancel()
			defer time.AfterFunc(time.Minute, cancel).Stop()
			began := time.Now()
			_, err := d.Acquire(ctx)
			if took := time.Since(began); db.CauseOf(err) == "" || took > c.most {
				t.Errorf("after %v: %v", took, err)
			}
		})
	}
}
