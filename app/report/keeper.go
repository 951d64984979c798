package report

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// gather is how long after a look at the ledger the keeper rests: what fails meanwhile is counted together.
const gather = 250 * time.Millisecond

// keeper decides what is told. It is the one goroutine that touches the ledger, in no request's way.
type keeper struct {
	pending *pending
	state   *state
	limit   limit
	desk    desk
	log     *slog.Logger
	courier *courier                // nil: no mail
	sentry  *SentryClient           // nil: no events
	write   func(notice) *message   // makes the mail
	samples map[fingerprint]*sample // the latest of each kind that has a mark
	shared  bool                    // the last update reached the other processes
	open    atomic.Bool             // an outage is open: successes are wanted
	served  atomic.Int64            // the time of the last success, in Unix nanoseconds; 0: none since the last look
	tally   tally
	stop    chan struct{}
	done    chan struct{}
}

// run looks at the ledger whenever something was added and whenever something falls due, and once more at the end.
func (k *keeper) run(ctx context.Context) {
	defer close(k.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-k.pending.wake:
		case <-timer.C:
		case <-k.stop:
			k.look(ctx)
			return
		}
		next := k.look(ctx)
		if !k.rest() {
			k.look(ctx)
			return
		}
		timer.Stop()
		if !next.IsZero() {
			timer.Reset(time.Until(next))
		}
	}
}

// rest gathers, and tells whether to go on.
func (k *keeper) rest() bool {
	timer := time.NewTimer(gather)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-k.stop:
		return false
	}
}

// look brings what was counted into the ledger, tells what is due, and returns when to look again.
func (k *keeper) look(ctx context.Context) (next time.Time) {
	kinds := k.pending.drain()
	served := k.served.Swap(0)
	var due []notice
	err := k.state.update(func(l *ledger) {
		now := time.Now()
		l.tidy(now, k.limit)
		for _, kind := range kinds {
			k.enter(l, kind)
		}
		if served != 0 {
			l.served(time.Unix(0, served))
		}
		due = l.take(now, k.limit, k.room())
		next = l.next(k.limit)
		k.open.Store(l.Outage != nil || !k.pending.empty())
		k.forget(l)
	})
	k.complain(ctx, err)
	k.tally.decided(kinds, due)
	for _, n := range due {
		k.tell(n)
	}
	return next
}

func (k *keeper) enter(l *ledger, kind *kind) {
	m := l.failed(kind)
	if kind.sample == nil {
		return
	}
	k.samples[m.fingerprint] = kind.sample
	if m.Error == "" {
		m.Error = k.desk.scrub.clean(line(kind.sample.errText))
	}
}

// settleUp leaves to the other processes, and to the next one, what this one counted and did not tell.
func (k *keeper) settleUp(ctx context.Context) {
	untold := 0
	err := k.state.update(func(l *ledger) {
		for _, kind := range k.pending.drain() {
			k.enter(l, kind)
		}
		for _, m := range l.Marks {
			untold += m.Untold
		}
	})
	k.complain(ctx, err)
	if untold > 0 && (err != nil || k.state.file == "") {
		k.log.WarnContext(ctx, "failures were counted of which nobody was told: the process stops before they were due", "count", untold)
	}
}

// forget drops the samples of kinds that are no longer in the ledger.
func (k *keeper) forget(l *ledger) {
	for f := range k.samples {
		if l.Marks[f.key()] == nil {
			delete(k.samples, f)
		}
	}
}

// room is how many notices can be told now.
func (k *keeper) room() int {
	if k.courier == nil {
		return maxMails
	}
	return k.courier.room()
}

func (k *keeper) tell(n notice) {
	s := k.samples[n.fingerprint]
	if k.sentry != nil && !n.recovered {
		k.sentry.capture(k.desk.event(n, s))
		k.tally.events.Add(1)
	}
	if k.courier == nil {
		return
	}
	if m := k.write(n); m != nil {
		k.courier.mails <- errand{n, m} // has room: take was told how much
	}
}

// complain logs once that the state is not shared, and once that it is again.
func (k *keeper) complain(ctx context.Context, err error) {
	if err != nil && k.shared {
		k.log.WarnContext(ctx, "the limit on mails is not shared with other processes: each may send its own", "error", err)
	}
	if err == nil && !k.shared {
		k.log.InfoContext(ctx, "the limit on mails is shared with other processes again")
	}
	k.shared = err == nil
}
