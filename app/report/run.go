package report

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"
)

// aggregator is what only the goroutine of run uses, but for what ends the mails.
type aggregator struct {
	state   *state
	file    *stateFile
	unsaved bool
	mails   int // that are neither sent nor given up: at most one a group, and what the limits allow
	ended   chan ending

	turn           chan struct{}   // held while a mail is sent: one at a time
	soon, now      context.Context // ended: mails are tried only once more; their connections are closed
	hurry, closeIt context.CancelFunc
}

// ending is a mail that was sent, or given up with an error.
type ending struct {
	*mail
	err error
}

const (
	look     = time.Second // how often it looks what is due, and saves the state
	maxTries = 6
	// firstPause is quadrupled after each try: 2 s, 8 s, 32 s, 2 min, 9 min. Greylisting accepts after five minutes.
	firstPause = 2 * time.Second
)

func newAggregator(o Options) aggregator {
	a := aggregator{
		file: newStateFile(o.StateDir, o.Log), ended: make(chan ending), turn: make(chan struct{}, 1),
	}
	a.soon, a.hurry = context.WithCancel(context.Background())
	a.now, a.closeIt = context.WithCancel(context.Background())
	return a
}

// run counts failures and reports them until the stop. It only ever waits for the state file, for a limited time.
func (r *Reporter) run() error {
	defer r.closeIt()
	r.state = r.file.load(time.Now())
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		r.open.Store(r.state.waits())
		select {
		case f := <-r.queue:
			r.count(f)
		case at := <-r.served:
			r.state.served(at)
			r.unsaved = true
		case e := <-r.ended:
			r.finish(e)
		case <-tick.C:
			r.reportAll()
			r.save()
		case ctx := <-r.stop:
			return r.flush(ctx)
		}
	}
}

// count adds a failure to its group. What can be reported is reported at once, before the next failure is counted.
func (r *Reporter) count(f *failure) {
	f.Origin = f.origin()
	key := r.state.add(f)
	r.unsaved = true
	if !r.report(key) {
		r.stat.suppressed.Add(1)
	}
}

func (r *Reporter) reportAll() {
	for _, key := range slices.Sorted(maps.Keys(r.state.Groups)) {
		r.report(key)
	}
}

// report passes what is due of a group to Sentry and to a mail. It reports whether something was.
func (r *Reporter) report(key string) bool {
	n := r.state.due(key, time.Now(), r.o.Mail.Limit)
	if n == nil {
		return false
	}
	r.unsaved = true
	r.save() // before the mail: a process that crashes while sending must not send it again after a restart
	if r.sentry != nil && !n.Over {
		r.sentry.captureNotice(r.o.Hostname, n)
		r.stat.events.Add(1)
	}
	if r.send == nil {
		r.state.Groups[key].done(true)
		return true
	}
	n.Dropped = int(r.dropped.Swap(0))
	r.mails++
	go r.deliver(r.newMail(n))
	return true
}

func (r *Reporter) save() {
	if r.unsaved {
		r.unsaved = !r.file.save(r.state)
	}
}

// deliver sends a mail. A temporary failure is tried again after a pause, and when the process stops.
func (r *Reporter) deliver(m *mail) {
	pause := firstPause
	for try := 1; ; try++ {
		last := try == maxTries || r.soon.Err() != nil
		err := r.sendNow(m)
		if err == nil || last || r.now.Err() != nil || !temporary(err) {
			select {
			case r.ended <- ending{m, err}:
			case <-r.now.Done():
			}
			return
		}
		r.o.Log.WarnContext(r.now, "a mail was not accepted and will be sent again", "subject", m.subject, "try", try, "error", r.said(err))
		select {
		case <-time.After(time.Duration(float64(pause) * (0.8 + 0.4*rand.Float64()))): //nolint:gosec // jitter is no secret
		case <-r.soon.Done():
		}
		pause *= 4
	}
}

func (r *Reporter) sendNow(m *mail) error {
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
		return r.send(r.now, m)
	case <-r.now.Done():
		return r.now.Err()
	}
}

// said returns an error's text for the log. A mail server may have written it.
func (r *Reporter) said(err error) string { return r.scrub.clean(cut(err.Error(), maxText)) }

// finish counts a mail. The failures of one that was given up are pending again.
func (r *Reporter) finish(e ending) {
	r.mails--
	r.state.Groups[e.key].done(e.err == nil)
	if e.err == nil {
		r.stat.sent.Add(1)
		return
	}
	r.unsaved = true
	r.dropped.Add(int64(e.Dropped))
	r.stat.failed.Add(1)
	r.o.Log.ErrorContext(r.now, "a mail about failures was not sent: the next one will count them", "subject", e.subject, "error", r.said(e.err))
}

// flush reports what is due, and sends every mail that waits once more, until ctx ends.
func (r *Reporter) flush(ctx context.Context) error {
	for len(r.queue) > 0 {
		r.count(<-r.queue)
	}
	r.reportAll()
	r.save()
	sentry := make(chan error, 1)
	go func() { sentry <- r.sentry.Close(ctx) }()
	r.hurry()
	err := r.drain(ctx)
	r.save()
	pending := int(r.dropped.Load())
	for _, g := range r.state.Groups {
		pending += g.Pending
	}
	if pending > 0 && !r.file.ok {
		r.o.Log.WarnContext(ctx, "the process stops before these failures were due to be reported", "count", pending)
	}
	return errors.Join(err, <-sentry)
}

// drain waits for the mails. When ctx ends, it gives up the rest.
func (r *Reporter) drain(ctx context.Context) error {
	for r.mails > 0 {
		select {
		case e := <-r.ended:
			r.finish(e)
		case <-ctx.Done():
			for _, g := range r.state.Groups {
				g.done(false)
			}
			r.unsaved = true
			return fmt.Errorf("%d mails were not sent before the stop: %w", r.mails, ctx.Err())
		}
	}
	return nil
}
