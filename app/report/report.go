// Package report tells the people in charge that requests fail, without making it worse: two hundred failing
// requests are one mail and one Sentry event, at once, then at most one a window with the number of the rest, at
// most so many an hour over all, and one when requests succeed again.
//
// It promises that
//
//   - Report costs a failing request microseconds, whatever the mail server and Sentry do. It blocks on neither,
//     and needs neither a connection to the database nor a file;
//   - every failure is counted, however many come at once, and every count is told: of what is told in a mail,
//     and of what is held back by the limit in the next one;
//   - memory, goroutines and the state file are bounded: a thousand kinds of failure are told apart, the rest are
//     counted together; 64 mails and 100 events wait to be sent;
//   - no secret is told: no header but the user agent, no form, of the query only short numbers; and texts are
//     searched for what is or looks like a secret;
//   - the processes of one host share one limit, through a file under Options.StateDir.
//
// How it goes: Report counts the incident by its kind (cause, route and line of code) in pending, which the
// keeper drains. The keeper enters the counts in the ledger, whose rules say what is due, and hands what is due
// to the courier, which sends mails one after another, and to Sentry's client, which has a queue of its own.
//
// It must not know HTTP frameworks, the pages, or how to query: what was known of the database comes with the
// Incident.
package report

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"ddtb/config"
	"ddtb/db"
)

// Options are what New needs. The zero value of each field but Mail and Sentry is fine.
type Options struct {
	Mail     config.Mail
	Sentry   config.Sentry
	BaseURL  string          // where the application is found, for links
	Hostname string          // "": the machine's
	Release  string          // of the application, for Sentry; "": "ddtb"
	StateDir string          // a folder that the host's processes share; "": each has its own limit
	Secrets  []config.Secret // more of what must never be told; those in Mail and Sentry are known
	Console  io.Writer       // of the mail backend "console"; nil: standard output
	Log      *slog.Logger    // nil: slog's default
}

// Reporter tells of incidents. It is safe for concurrent use; a nil Reporter tells nothing.
type Reporter struct {
	keeper  *keeper
	courier *courier // nil: no mail
	sentry  *SentryClient
	cancel  context.CancelFunc // cuts every connection

	closing  sync.Once
	closeErr error
}

// New starts the reporter, which is to be closed. With neither mail nor Sentry set, it counts and tells nothing.
func New(o Options) (*Reporter, error) {
	o = o.withDefaults()
	mails, err := newBackend(o.Mail, o.Console)
	if err != nil {
		return nil, err
	}
	d := o.desk()
	s, err := openSentry(o, d.scrub)
	if err != nil {
		return nil, err
	}
	if mails == nil && s == nil {
		o.StateDir = ""
	}
	ctx, cancel := context.WithCancel(context.Background())
	k := &keeper{
		pending: newPending(), state: newState(o.StateDir), desk: d, log: o.Log, sentry: s,
		limit:   limit{window: o.Mail.Limit.Window, perHour: max(1, o.Mail.Limit.PerHour)},
		samples: map[fingerprint]*sample{}, shared: true, stop: make(chan struct{}), done: make(chan struct{}),
	}
	r := &Reporter{keeper: k, sentry: s, cancel: cancel}
	if mails != nil {
		r.courier = newCourier(mails, o.Log, k.stop, r.lost, &k.tally)
		k.courier = r.courier
		k.write = o.writer(d, k)
		go r.courier.run(ctx)
	}
	go k.run(ctx)
	return r, nil
}

func (o Options) withDefaults() Options {
	if o.Hostname == "" {
		o.Hostname, _ = os.Hostname()
	}
	if o.Release == "" {
		o.Release = "ddtb"
	}
	if o.Console == nil {
		o.Console = os.Stdout
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return o
}

func (o Options) desk() desk {
	secrets := append([]config.Secret{o.Mail.Password, o.Sentry.DSN}, o.Secrets...)
	return desk{prefix: o.Mail.SubjectPrefix, hostname: line(o.Hostname), baseURL: o.BaseURL, scrub: newScrubber(secrets)}
}

// writer makes the mails of the keeper. One that can't be made is a bug of the templates: the log has it.
func (o Options) writer(d desk, k *keeper) func(notice) *message {
	return func(n notice) *message {
		var l letter
		if n.recovered {
			l = d.recovery(n)
		} else {
			l = d.failure(n, k.samples[n.fingerprint])
		}
		m, err := newMessage(o.Mail, d.hostname, l)
		if err != nil {
			o.Log.Error(err.Error(), "subject", l.Subject)
			return nil
		}
		return m
	}
}

// Hide has secrets taken out of whatever is told from now on, as those of Options are.
func (r *Reporter) Hide(secrets ...config.Secret) {
	if r != nil {
		r.keeper.desk.scrub.hide(secrets...)
	}
}

// Report counts one failed request, and sees to it that it is told.
func (r *Reporter) Report(in Incident) {
	if r.off() {
		return
	}
	in.complete()
	f := in.fingerprint()
	noConn := db.CauseOf(in.Err) != ""
	var s *sample
	if !r.keeper.pending.known(f) {
		s = sampleOf(&in)
	}
	r.keeper.pending.add(f, in.At, noConn, s)
	if noConn {
		r.keeper.open.Store(true)
	}
}

// Healthy is to be called when a request got a connection and was answered: that is how the end of an outage is
// seen. While there is none it costs one atomic load.
func (r *Reporter) Healthy() {
	if r == nil || !r.keeper.open.Load() {
		return
	}
	if r.keeper.served.Swap(time.Now().UnixNano()) == 0 {
		r.keeper.pending.rouse()
	}
}

func (r *Reporter) off() bool { return r == nil || r.courier == nil && r.sentry == nil }

// lost has the failures counted again of which a mail was to tell. It is the keeper that decides when.
func (r *Reporter) lost(n notice) {
	if !n.recovered {
		r.keeper.pending.addUntold(n.fingerprint, n.count, n.since, n.last)
	}
}

// Close tells what is due and sends what waits, until ctx ends: then it cuts the connections, and returns within
// a second or two. No goroutine is left, and it may be called again. The error tells how much was not sent.
func (r *Reporter) Close(ctx context.Context) error {
	if r == nil {
		return nil
	}
	r.closing.Do(func() { r.closeErr = r.close(ctx) })
	return r.closeErr
}

// afterCut is how long a goroutine whose connection was cut may take to notice.
const afterCut = time.Second

func (r *Reporter) close(ctx context.Context) error {
	defer r.cancel()
	close(r.keeper.stop)
	<-r.keeper.done // soon: it waits for nobody but the lock of the state file, and not long
	var wg sync.WaitGroup
	var mailErr, sentryErr error
	if r.courier != nil {
		close(r.courier.mails)
		wg.Go(func() { mailErr = r.closeMail(ctx) })
	}
	if r.sentry != nil {
		wg.Go(func() { sentryErr = r.sentry.Close(ctx) })
	}
	wg.Wait()
	r.keeper.settleUp(ctx)
	return errors.Join(mailErr, sentryErr)
}

func (r *Reporter) closeMail(ctx context.Context) error {
	select {
	case <-r.courier.done:
		return nil
	case <-ctx.Done():
	}
	left := len(r.courier.mails) + 1 // and the one under way
	r.cancel()
	select {
	case <-r.courier.done:
	case <-time.After(afterCut): // a console that takes nothing can't be cut
	}
	return fmt.Errorf("%d mails were not sent before the stop: %w", left, ctx.Err())
}

// SendTest sends a mail to every admin, over the backend of the configuration, and returns when it is sent. The
// error tells what to do.
func SendTest(ctx context.Context, o Options) error {
	o = o.withDefaults()
	b, err := newBackend(o.Mail, o.Console)
	if err != nil {
		return err
	}
	if b == nil {
		return errors.New("no mail is sent: mail.backend is \"none\". Set it to \"smtp\", \"file\" or \"console\"")
	}
	if len(o.Mail.Admins) == 0 {
		return errors.New("there is nobody to send a mail to: set mail.admins")
	}
	d := o.desk()
	m, err := newMessage(o.Mail, d.hostname, d.test())
	if err != nil {
		return err
	}
	if err := b.send(ctx, m); err != nil {
		if _, smtp := b.(smtpBackend); smtp {
			return explain(o.Mail, err)
		}
		return err
	}
	return nil
}
