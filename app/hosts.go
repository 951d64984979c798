package app

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"ddtb/db"
	"ddtb/db/activity"
)

// hostWatch checks whether all hosts of the configuration are one database: after a failover there may be a second
// primary. A check costs a login to each host, so there is one for hostPolls polls of the monitor.
type hostWatch struct {
	log    *slog.Logger
	mu     sync.Mutex
	logged string // the problem that was logged last

	stop    context.CancelFunc // nil: not started
	stopped sync.WaitGroup
}

const hostPolls = 30

// check logs a problem that was not there at the last check, and its end.
func (w *hostWatch) check(ctx context.Context, s db.Settings) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all, err := db.CheckHosts(ctx, s)                             // bounded by itself, for each host
	if ctx.Err() != nil || err == nil && !all && w.logged != "" { // a host that does not answer may still be a second primary
		return
	}
	text := ""
	if err != nil {
		text = err.Error()
	}
	switch {
	case text == w.logged:
	case text != "":
		w.log.ErrorContext(ctx, "the hosts of [databases.default] are not one database", "error", err)
	default:
		w.log.InfoContext(ctx, "the hosts of [databases.default] are one database again")
	}
	w.logged = text
}

// start repeats the check until close. It does not share the monitor's goroutine: a host that does not answer must not
// hold up the polls.
func (w *hostWatch) start(settings func() db.Settings, interval time.Duration) {
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	w.stopped.Go(func() { activity.Every(ctx, hostPolls*interval, func() { w.check(ctx, settings()) }) })
}

func (w *hostWatch) close() {
	if w.stop != nil {
		w.stop()
	}
	w.stopped.Wait()
}
