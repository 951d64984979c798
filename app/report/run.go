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

const (
	dueEvery = time.Second // how often it checks what is due, and saves the state
	maxTries = 6
	// firstPause is quadrupled after each try: 2 s, 8 s, 32 s, 2 min, 9 min. Greylisting accepts after five minutes.
	firstPause = 2 * time.Second
)

// run counts failures and reports them until the stop. It only ever waits for the state file, for a limited time.
func (r *Reporter) run() error {
	defer r.cutMails()
	r.state = r.file.load(time.Now())
	tick := time.NewTicker(dueEvery)
	defer tick.Stop()
	for {
		r.open.Store(r.state.waits())
		select {
		case f := <-r.queue:
			r.count(f)
		case at := <-r.served:
			r.state.served(at)
			r.unsaved = true
		case m := <-r.ended:
			r.finish(m)
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
	if r.sentry != nil && !n.Over && n.Pending > n.Captured {
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
	for try, pause := 1, firstPause; ; try, pause = try+1, 4*pause {
		last := try == maxTries || r.hurried.Err() != nil
		r.oneMail.Lock()
		m.err = r.send(r.cut, m)
		r.oneMail.Unlock()
		if m.err == nil || last || r.cut.Err() != nil || !temporary(m.err) {
			break
		}
		r.o.Log.WarnContext(r.cut, "a mail was not accepted and will be sent again", "subject", m.subject, "try", try, "error", r.said(m.err))
		select {
		case <-time.After(pause*4/5 + rand.N(pause*2/5)): //nolint:gosec // jitter is no secret
		case <-r.hurried.Done():
		}
	}
	select {
	case r.ended <- m:
	case <-r.cut.Done():
	}
}

// said returns an error's text for the log. A mail server may have written it.
func (r *Reporter) said(err error) string { return r.scrub.clean(cut(err.Error(), maxText)) }

// finish counts a mail. If no recipient got it, its failures are pending again.
func (r *Reporter) finish(m *mail) {
	r.mails--
	sent := m.err == nil || m.reached
	r.state.Groups[m.key].done(sent)
	if sent {
		r.stat.sent.Add(1)
	} else {
		r.unsaved = true
		r.dropped.Add(int64(m.Dropped))
		r.stat.failed.Add(1)
	}
	if m.err != nil {
		r.o.Log.ErrorContext(r.cut, m.loss(), "subject", m.subject, "error", r.said(m.err))
	}
}

// loss describes for the log what became of a mail that was given up.
func (m *mail) loss() string {
	switch {
	case m.reached:
		return "a mail did not reach all recipients"
	case m.Over:
		return "the mail about the end of an outage was not sent"
	}
	return "a mail about failures was not sent: the next one will count them"
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
		case m := <-r.ended:
			r.finish(m)
		case <-ctx.Done():
			for _, g := range r.state.Groups {
				g.done(false)
			}
			r.unsaved = true
			if r.mails == 1 {
				return fmt.Errorf("1 mail was not sent before the stop: %w", ctx.Err())
			}
			return fmt.Errorf("%d mails were not sent before the stop: %w", r.mails, ctx.Err())
		}
	}
	return nil
}
