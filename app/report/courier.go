package report

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"
)

const (
	maxMails = 64 // that wait to be sent; the keeper holds back what is more
	maxTries = 6
)

// firstPause doubles twice from try to try: 2 s, 8 s, 32 s, 2 min, 9 min. Greylisting lets pass after five.
const firstPause = 2 * time.Second

// courier sends the mails, one after another.
type courier struct {
	backend backend
	log     *slog.Logger
	lost    func(notice) // the mail about it can't be sent
	tally   *tally
	mails   chan errand
	stop    <-chan struct{} // no more pauses from here on
	done    chan struct{}
}

type errand struct {
	notice  notice
	message *message
}

func newCourier(b backend, log *slog.Logger, stop <-chan struct{}, lost func(notice), t *tally) *courier {
	return &courier{
		backend: b, log: log, lost: lost, tally: t, mails: make(chan errand, maxMails), stop: stop, done: make(chan struct{}),
	}
}

func (c *courier) room() int { return cap(c.mails) - len(c.mails) }

// run ends when mails is closed and empty. When ctx ends, what is left fails at once.
func (c *courier) run(ctx context.Context) {
	defer close(c.done)
	for e := range c.mails {
		if err := c.deliver(ctx, e.message); err != nil {
			c.log.ErrorContext(ctx, "a mail about failures was not sent: the failures will be counted in the next one",
				"subject", e.message.subject, "to", strings.Join(e.message.to, ", "), "error", err)
			c.tally.mailsFailed.Add(1)
			c.lost(e.notice)
			continue
		}
		c.tally.mailsSent.Add(1)
	}
}

// deliver tries until the mail is sent, or can't be.
func (c *courier) deliver(ctx context.Context, m *message) error {
	pause := firstPause
	for try := 1; ; try++ {
		err := c.backend.send(ctx, m)
		if err == nil || try == maxTries || ctx.Err() != nil || !temporary(err) {
			return err
		}
		c.log.WarnContext(ctx, "a mail was not taken, it will be tried again", "subject", m.subject, "try", try, "error", err)
		if !c.wait(ctx, pause) {
			return c.backend.send(ctx, m) // the last chance before the stop
		}
		pause *= 4
	}
}

// wait pauses for d, more or less, and tells whether there is time for more.
func (c *courier) wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))) //nolint:gosec // jitter is no secret
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.stop:
	case <-ctx.Done():
	}
	return false
}
