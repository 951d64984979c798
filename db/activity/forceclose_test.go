package activity

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"ddtb/db"
)

func TestAnApplicationOutlivesForceCloseAndLosesNoMoreThanIsOnTheWire(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		const workers = 4
		cfg := s.config(app, "wall")
		cfg.Pool.MaxSize, cfg.Pool.MaxWaiting = workers, 100
		cfg.Pool.Timeout, cfg.Pool.MaxLifetime, cfg.Pool.MaxIdle, cfg.Pool.HealthCheckPeriod = 10e9, 3600e9, 1800e9, 60e9
		cfg.Pool.Hold = "query"
		d, err := db.Open(t.Context(), cfg)
		must(t, err)
		defer func() { _ = d.Close(context.Background()) }()
		o := s.observer(t, app)

		var served, failed atomic.Int64
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					var one int
					if err := d.QueryRow(context.Background(), "SELECT 1").Scan(&one); err != nil {
						failed.Add(1)
					} else {
						served.Add(1)
					}
				}
			})
		}
		eventually(t, "it serves", func() bool { return served.Load() > 1000 })
		f := Filter{Application: "shop", AnyState: true}
		got, err := End(t.Context(), o, Plan(snapshot(t, o), f), f)
		must(t, err)
		after := served.Load()
		eventually(t, "it serves again", func() bool { return served.Load() > after+1000 })
		close(stop)
		wg.Wait()
		if ended := int64(got.Count(Closed)); ended == 0 || failed.Load() > ended {
			t.Errorf("%d sessions were ended, %d requests of %d failed", ended, failed.Load(), served.Load())
		}
		t.Logf("%d sessions were ended, %d requests of %d failed", got.Count(Closed), failed.Load(), served.Load())
	})
}
