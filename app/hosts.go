package app

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"ddtb/db"
)

// hostWatch looks for hosts of the configuration that are not one database, such as a second primary after a failover.
// Each look costs a login to each host, so there is one for hostPolls polls of the monitor.
type hostWatch struct {
	log  *slog.Logger
	mu   sync.Mutex
	said string // the problem that was logged last

	stop    context.CancelFunc // nil: not started
	stopped sync.WaitGroup
}

const hostPolls = 30

// look logs a problem that was not there at the last look, and its end.
func (w *hostWatch) look(ctx context.Context, s db.Settings) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all, err := db.CheckHosts(ctx, s)                           // bounded by itself, for each host
	if ctx.Err() != nil || err == nil && !all && w.said != "" { // a host that does not answer may still be a second primary
		return
	}
	text := ""
	if err != nil {
		text = err.Error()
	}
	switch {
	case text == w.said:
	case text != "":
		w.log.ErrorContext(ctx, "the hosts of [databases.default] are not one database", "error", err)
	default:
		w.log.InfoContext(ctx, "the hosts of [databases.default] are one database again")
	}
	w.said = text
}

// start looks again and again, until close.
func (w *hostWatch) start(settings func() db.Settings, interval time.Duration) {
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	w.stopped.Go(func() {
		tick := time.NewTicker(hostPolls * interval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				w.look(ctx, settings())
			}
		}
	})
}

func (w *hostWatch) close() {
	if w.stop != nil {
		w.stop()
	}
	w.stopped.Wait()
}
