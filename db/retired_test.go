package db_test

import (
	"testing"
	"time"

	"ddtb/config"
	"ddtb/db/dbtest"
)

func TestAPoolThatWasReplacedKeepsNoLeastSize(t *testing.T) {
	const period = 100 * time.Millisecond
	dbtest.NoLeaks(t)
	d, control, cfg := open(t, func(c *config.Database) {
		pool(c)
		c.Pool.MinSize, c.Pool.HealthCheckPeriod = 3, period
	})
	first, end := d.Begin(t.Context())
	defer end()
	one(t, d, first)
	release := held(t, d, 1)
	defer release()
	backends := func() int { return dbtest.Backends(t, control, cfg.ApplicationName+"/pool") }
	dbtest.Eventually(t, "it has its least size", func() bool { return d.Stat().Idle == 2 })
	perRequest(&cfg)
	must(t, d.Switch(t.Context(), cfg))
	dbtest.Eventually(t, "that of the lease is left", func() bool { return backends() == 1 })
	for range 10 {
		<-time.After(period)
		if n := backends(); n != 1 {
			t.Fatalf("%d connections, want that of the lease", n)
		}
	}
	one(t, d, first) // a request that began before the switch still gets a connection of the old pool
}
