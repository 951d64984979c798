// Package report notifies the people in charge when requests fail: one mail and one Sentry event per outage. A new
// group of failures is reported at once, then at most once per window with the number of failures since. All groups
// together send at most so many mails per hour, and one mail reports the recovery.
//
// What callers can rely on:
//
//   - Report and Healthy cost a request microseconds and never block, whatever the mail server, Sentry or the disk
//     do. Neither uses the database. When the queue is full, a failure is dropped, and the next mail says how many.
//   - All failures to get a connection are one group, the outage, whatever their cause and route. Other failures are
//     grouped by cause, route and line of code.
//   - Memory, goroutines, the state file and what is read from a mail server are bounded.
//   - No secret is sent or logged: of a request's headers only the user agent, no form, of the query only short
//     numbers. Texts are searched for known secrets and for what looks like one.
//   - Limits are per process. Two processes that fail at the same moment each send a mail. The state file in
//     Options.StateDir carries the limits over a restart: a process that crashes in a loop does not send a mail each
//     time. A file that can't be read or written costs only that.
//
// How it works: Report puts a copy of a failure into a queue (failure.go). One goroutine counts it in its group
// (group.go), checks every second what else is due, and passes notices to Sentry's queue and to mails, each of which is
// tried until it is sent or given up (run.go). The package does not depend on the HTTP framework, the pages or any
// query.
package report

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/getsentry/sentry-go"

	"ddtb/config"
)

// Options are what New needs. The zero value of each field but Mail and Sentry is fine.
type Options struct {
	Mail     config.Mail
	Sentry   config.Sentry
	BaseURL  string          // the application's address, for links
	Hostname string          // "": the machine's
	Release  string          // of the application, for Sentry; "": "ddtb"
	StateDir string          // the directory of the state file; "": a restart forgets what was reported
	Secrets  []config.Secret // never sent or logged; those in Mail and Sentry are known
	Console  io.Writer       // of the mail backend "console"; nil: standard output
	Log      *slog.Logger    // nil: slog's default

	// Complete completes the commands that mails advise, so that they reach this server; nil: they stay as they are.
	Complete func(text string) string
}

// Reporter reports failures. It is safe for concurrent use; a nil Reporter does nothing.
type Reporter struct {
	o      Options
	scrub  *scrubber
	send   sender        // nil: no mail
	sentry *SentryClient // nil: no events

	queue   chan *failure
	served  chan time.Time // a request succeeded during an outage
	open    atomic.Bool    // an outage waits for its first success
	dropped atomic.Int64   // failures that found the queue full, and that no mail has counted yet
	stat    struct{ sent, failed, events, suppressed atomic.Int64 }

	// Of the goroutine of run alone.
	state   *state
	file    *stateFile
	unsaved bool
	mails   int // that are neither sent nor given up: at most one a group, and what the limits allow

	oneMail         sync.Mutex
	ended           chan *mail      // sent, or given up
	hurried, cut    context.Context // done: mails are tried only once more; their connections are closed
	hurry, cutMails context.CancelFunc

	closing  sync.Once
	closeErr error
	stop     chan context.Context
	done     chan error
}

// queueSize bounds the failures that wait to be counted, which takes microseconds for each.
const queueSize = 1024

// New starts a reporter. The caller must Close it. It is nil if neither mail nor Sentry is configured.
func New(o Options) (*Reporter, error) {
	r := newReporter(o)
	if o.Sentry.DSN != "" || o.Sentry.Spotlight {
		var err error
		if r.sentry, err = newSentryClient(o.Sentry, func(c *sentry.ClientOptions) { c.Release = cmp.Or(o.Release, c.Release) }, r.scrub); err != nil {
			return nil, err
		}
	}
	if r.send == nil && r.sentry == nil {
		return nil, nil
	}
	go func() { r.done <- r.run() }()
	return r, nil
}

var notHostname = regexp.MustCompile(`[^A-Za-z0-9.-]`)

// newReporter sets the defaults, and starts nothing.
func newReporter(o Options) *Reporter {
	if o.Hostname == "" {
		o.Hostname, _ = os.Hostname()
	}
	o.Hostname = notHostname.ReplaceAllString(o.Hostname, "-") // it gets into headers
	o.Console, o.Log = cmp.Or[io.Writer](o.Console, os.Stdout), cmp.Or(o.Log, slog.Default())
	if o.Complete == nil {
		o.Complete = func(text string) string { return text }
	}
	o.Mail.Limit.PerHour = max(1, o.Mail.Limit.PerHour)
	r := &Reporter{
		o: o, send: newSender(o.Mail, o.Console), scrub: newScrubber(append([]config.Secret{o.Mail.Password, o.Sentry.DSN}, o.Secrets...)),
		queue: make(chan *failure, queueSize), served: make(chan time.Time, 1), file: newStateFile(o.StateDir, o.Log),
		ended: make(chan *mail), stop: make(chan context.Context, 1), done: make(chan error, 1),
	}
	r.hurried, r.hurry = context.WithCancel(context.Background())
	r.cut, r.cutMails = context.WithCancel(context.Background())
	return r
}

// Hide removes more secrets from whatever is sent from now on.
func (r *Reporter) Hide(secrets ...config.Secret) {
	if r != nil {
		r.scrub.hide(secrets...)
	}
}

// Report counts one failed request, and sends reports within the limits.
func (r *Reporter) Report(in Incident) {
	if r == nil {
		return
	}
	select {
	case r.queue <- newFailure(in):
	default:
		r.dropped.Add(1)
		r.stat.suppressed.Add(1)
	}
}

// Healthy must be called when a request got a connection and was answered: this is how the end of an outage is
// seen. Outside of an outage it costs one atomic load.
func (r *Reporter) Healthy() {
	if r == nil || !r.open.Load() {
		return
	}
	select {
	case r.served <- time.Now():
	default:
	}
}

// Stat counts what happened to the failures since the start.
type Stat struct {
	MailsSent   int64
	MailsFailed int64 // given up; their failures are pending again
	Events      int64 // queued for Sentry
	Suppressed  int64 // failures without a notice of their own: counted in a later one, or dropped
}

// Stat is a snapshot. That of a nil Reporter is zero.
func (r *Reporter) Stat() Stat {
	if r == nil {
		return Stat{}
	}
	return Stat{r.stat.sent.Load(), r.stat.failed.Load(), r.stat.events.Load(), r.stat.suppressed.Load()}
}

// Close sends what is due or queued, closes all connections, and returns at the latest when ctx ends. Its error says
// what was not sent. It may be called again.
func (r *Reporter) Close(ctx context.Context) error {
	if r == nil {
		return nil
	}
	r.closing.Do(func() { r.closeErr = r.close(ctx) })
	return r.closeErr
}

func (r *Reporter) close(ctx context.Context) error {
	early, cancel := context.WithCancel(ctx)
	if end, ok := ctx.Deadline(); ok { // leaves time to close the connections and to save the state
		early, cancel = context.WithDeadline(ctx, end.Add(-min(time.Until(end)/4, fileWait)))
	}
	defer cancel()
	r.stop <- early
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("the stop did not wait until all failures were reported: %w", ctx.Err())
	}
}

// SendTest sends a mail to every admin with the configured backend, and returns when it was sent. The error says
// what to do.
func SendTest(ctx context.Context, o Options) error {
	r := newReporter(o)
	switch {
	case r.send == nil:
		return errors.New("no mail is sent: mail.backend is \"none\". Set it to \"smtp\", \"file\" or \"console\"")
	case len(o.Mail.Admins) == 0:
		return errors.New("no mail is sent: mail.admins is empty. Set it to the recipients")
	}
	err := r.send(ctx, r.testMail())
	if err != nil && o.Mail.Backend == "smtp" {
		return explain(o.Mail, r.scrub, err)
	}
	return err
}
