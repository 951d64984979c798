package app_test

import (
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

// BenchmarkSlots serves /polls/ under each strategy, with its default settings, to 500 clients that ask again after
// each response. The server has 22 slots for them, as small managed servers have. It prints the pages per second, the
// percentage of requests that got another response, and the most backends on the server, which is polled every 10 ms.
func BenchmarkSlots(b *testing.B) {
	const slots, reserved, clients = 22, 3, 500
	server := dbtest.NewServer(b, dbtest.Options{MaxConnections: slots + reserved})
	for _, strategy := range []string{db.PerRequest, db.Persistent, db.Pool, db.Multiplex} {
		b.Run(strategy, func(b *testing.B) {
			cfg := server.Config(b)
			s := siteOn(b, cfg, func(c *config.Config) {
				setDatabase(c, func(d *config.Database) { byDefault(d); d.Strategy = strategy })
			})
			s.loadDemo()
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
			defer client.CloseIdleConnections()
			peak := countPeak(b, cfg, cfg.ApplicationName+"/"+strategy)
			var asked, refused atomic.Int64
			var served float64
			for b.Loop() {
				served += closedLoop(func() db.Cause {
					asked.Add(1)
					cause := askOnce(b, client, s.url+"/polls/")
					if cause != "" {
						refused.Add(1)
					}
					return cause
				}, clients, 3*time.Second)
			}
			b.ReportMetric(served/float64(b.N), "pages/s")
			b.ReportMetric(100*float64(refused.Load())/float64(asked.Load()), "refused-%")
			b.ReportMetric(float64(peak()), "backends")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// countPeak counts an application's backends until peak is called.
func countPeak(b *testing.B, cfg config.Database, application string) (peak func() int) {
	control, most, done := dbtest.Control(b, cfg), 0, make(chan struct{})
	var counting sync.WaitGroup
	counting.Go(func() {
		for {
			most = max(most, dbtest.Backends(b, control, application))
			select {
			case <-done:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	})
	return func() int { close(done); counting.Wait(); return most }
}
