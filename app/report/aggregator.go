package report

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// aggregator is the state that only its goroutine uses.
type aggregator struct {
	state    *state
	file     *stateFile
	unsaved  bool
	saveAt   time.Time // when the state may be saved again; a notice saves it at once
	outbox   []*mail   // bounded by the cap per hour
	sending  *mail     // the conversation under way; nil: none
	sent     chan error
	stopping bool
	ctx      context.Context // closes the connections of mails
	cancel   context.CancelFunc
	last     chan struct{} // closed when the last event was queued
}

const (
	maxTries = 6
	// firstPause is quadrupled after each try: 2 s, 8 s, 32 s, 2 min, 9 min. Greylisting accepts after five minutes.
	firstPause = 2 * time.Second
	savePause  = time.Second
)

func newAggregator(stateDir string) aggregator {
	ctx, cancel := context.WithCancel(context.Background())
	return aggregator{
		file: newStateFile(stateDir), sent: make(chan error, 1), last: make(chan struct{}), ctx: ctx, cancel: cancel,
	}
}

// run counts failures and reports them until the stop. It only ever waits for the state file, for a limited time.
func (r *Reporter) run() error {
	defer r.cancel()
	var err error
	r.state, err = r.file.load(time.Now())
	r.complain(err)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case f := <-r.queue:
			r.count(f)
		case at := <-r.served:
			r.state.served(at)
			r.unsaved = true
		case err := <-r.sent:
			r.finish(err)
		case <-timer.C:
		case ctx := <-r.stop:
			return r.flush(ctx)
		}
		timer.Reset(r.step())
	}
}

// count adds a failure to its group. What can be reported is reported at once, before the next failure is counted.
func (r *Reporter) count(f *failure) {
	f.Origin = f.origin()
	g := r.state.add(f)
	r.unsaved = true
	r.report()
	if g.Pending > 0 {
		r.stat.suppressed.Add(1)
	}
}

// report passes the due notices to Sentry and the outbox.
func (r *Reporter) report() {
	now := time.Now()
	if next := r.state.next(r.o.Mail.Limit); next.IsZero() || now.Before(next) {
		return
	}
	for _, n := range r.state.take(now, r.o.Mail.Limit) {
		if r.sentry != nil && !n.Over {
			r.sentry.captureNotice(r.o.Hostname, n)
			r.stat.events.Add(1)
		}
		if r.backend != nil {
			n.Dropped = int(r.dropped.Swap(0))
			r.outbox = append(r.outbox, r.newMail(n))
		}
		r.unsaved, r.saveAt = true, now
	}
}

// step does everything that is due, and returns the time until the next step.
func (r *Reporter) step() time.Duration {
	r.report()
	r.open.Store(r.state.waits())
	now := time.Now()
	r.save(now) // before the mail: a process that crashes while sending must not send it again after a restart
	r.send(now)
	next := r.state.next(r.o.Mail.Limit)
	if r.unsaved {
		next = sooner(next, r.saveAt)
	}
	for _, m := range r.outbox {
		if r.sending == nil {
			next = sooner(next, m.next)
		}
	}
	if next.IsZero() {
		return time.Hour
	}
	return time.Until(next)
}

func (r *Reporter) save(now time.Time) {
	if r.unsaved && !now.Before(r.saveAt) {
		err := r.file.save(r.state)
		r.complain(err)
		r.unsaved, r.saveAt = err != nil, now.Add(savePause)
	}
}

// send begins the next conversation unless one is under way.
func (r *Reporter) send(now time.Time) {
	due := func(m *mail) bool { return r.stopping || !m.next.After(now) }
	i := slices.IndexFunc(r.outbox, due)
	if r.sending != nil || i < 0 {
		return
	}
	m := r.outbox[i]
	r.outbox, r.sending = slices.Delete(r.outbox, i, i+1), m
	m.tries++
	m.last = r.stopping || m.tries == maxTries
	go func() { r.sent <- r.backend.send(r.ctx, m) }()
}

// finish ends an attempt: the mail was sent, waits for its next attempt, or is given up.
func (r *Reporter) finish(err error) {
	m := r.sending
	r.sending = nil
	switch {
	case err == nil:
		r.stat.sent.Add(1)
	case temporary(err) && !m.last:
		pause := firstPause << (2 * (m.tries - 1))
		m.next = time.Now().Add(time.Duration(float64(pause) * (0.8 + 0.4*rand.Float64()))) //nolint:gosec // jitter is no secret
		r.outbox = append(r.outbox, m)
		r.o.Log.WarnContext(r.ctx, "a mail was not accepted and will be sent again", "subject", m.subject, "try", m.tries, "error", r.said(err))
	default:
		r.giveUp(m, err)
	}
}

// said returns an error's text for the log. A mail server may have written it.
func (r *Reporter) said(err error) string { return r.scrub.clean(cut(err.Error(), maxText)) }

func (r *Reporter) giveUp(m *mail, err error) {
	r.state.restore(m.notice)
	r.dropped.Add(int64(m.notice.Dropped))
	r.unsaved = true
	r.stat.failed.Add(1)
	r.o.Log.ErrorContext(r.ctx, "a mail about failures was not sent: the next one will count them", "subject", m.subject, "error", r.said(err))
}

// flush reports what is due and sends every mail that waits once more, until ctx ends.
func (r *Reporter) flush(ctx context.Context) error {
	for len(r.queue) > 0 {
		r.count(<-r.queue)
	}
	r.stopping = true
	r.step()
	close(r.last)
	err := r.drain(ctx)
	r.saveAt = time.Time{}
	r.save(time.Now())
	pending := int(r.dropped.Load())
	for _, g := range r.state.Groups {
		pending += g.Pending
	}
	if pending > 0 && (r.file.path == "" || !r.file.ok) {
		r.o.Log.WarnContext(ctx, "the process stops before these failures were due to be reported", "count", pending)
	}
	return err
}

// drain ends when the outbox is empty, or ctx ends: then it closes the connection, and gives the rest up.
func (r *Reporter) drain(ctx context.Context) error {
	for r.sending != nil {
		select {
		case err := <-r.sent:
			r.finish(err)
			r.send(time.Now())
		case <-ctx.Done():
			left := append(r.outbox, r.sending)
			for _, m := range left {
				r.giveUp(m, ctx.Err())
			}
			return fmt.Errorf("%d mails were not sent before the stop: %w", len(left), ctx.Err())
		}
	}
	return nil
}
