package report

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/getsentry/sentry-go"

	"ddtb/config"
)

const (
	sentryTimeout = 5 * time.Second // of one request to Sentry
	sentryQueue   = 100             // events that wait to be sent; more are dropped, and Sentry is told how many
)

// spotlightDSN leads to Spotlight, the local viewer. It takes any project, and its own path: see destination.
const spotlightDSN = "http://spotlight@localhost:8969/0"

// SentryOptions are for a client of one's own. The application's reporter needs none.
type SentryOptions struct {
	DSN         config.Secret
	Environment string
	Release     string // "": "ddtb"
	Spotlight   bool   // send to Spotlight too; without a DSN, to it alone

	// Sync has each capture wait for Sentry's answer, at most for Timeout (0: 5 s). No request should.
	Sync    bool
	Timeout time.Duration

	// TracesSampleRate is the part of requests that are traced, 0 to 1.
	TracesSampleRate float64

	// Hook runs in each capture, in the capturing goroutine, with the context of the capture: before anything is
	// queued, and while the caller holds whatever it holds. This is sentry-go's BeforeSend.
	Hook func(context.Context)

	// Secrets are taken out of whatever is sent, as is what looks like one.
	Secrets []config.Secret
}

// SentryClient sends events. Unless it is Sync, a capture costs microseconds even when Sentry is dead or hangs:
// the event goes to a bounded queue, and one goroutine sends.
type SentryClient struct {
	client *sentry.Client
	rate   float64
	cancel context.CancelFunc // cuts its connections
}

// NewSentryClient makes a client with a connection and a queue of its own, for experiments and tests. Close it.
func NewSentryClient(o SentryOptions) (*SentryClient, error) {
	return newSentryClient(o, newScrubber(append([]config.Secret{o.DSN}, o.Secrets...)))
}

// openSentry is the client of the application, or nil when it is off.
func openSentry(o Options, scrub *scrubber) (*SentryClient, error) {
	if o.Sentry.DSN == "" && !o.Sentry.Spotlight {
		return nil, nil
	}
	return newSentryClient(SentryOptions{
		DSN: o.Sentry.DSN, Environment: o.Sentry.Environment, Release: o.Release, Spotlight: o.Sentry.Spotlight,
		TracesSampleRate: o.Sentry.TracesSampleRate,
	}, scrub)
}

func newSentryClient(o SentryOptions, scrub *scrubber) (*SentryClient, error) {
	ctx, cancel := context.WithCancel(context.Background())
	to, err := o.destinations(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	if o.Release == "" {
		o.Release = "ddtb" // else the library asks the environment, and then git
	}
	client, err := sentry.NewClient(sentry.ClientOptions{
		Dsn: to[0].dsn, Transport: to, Environment: o.Environment, Release: o.Release,
		EnableTracing: o.TracesSampleRate > 0, TracesSampleRate: o.TracesSampleRate,
		BeforeSend: func(e *sentry.Event, hint *sentry.EventHint) *sentry.Event {
			if o.Hook != nil {
				o.Hook(contextOf(hint))
			}
			return scrub.event(e)
		},
		BeforeSendTransaction: func(e *sentry.Event, _ *sentry.EventHint) *sentry.Event { return scrub.event(e) },
	})
	if err != nil {
		cancel()
		return nil, fmt.Errorf("sentry: %w", err)
	}
	return &SentryClient{client: client, rate: o.TracesSampleRate, cancel: cancel}, nil
}

func contextOf(hint *sentry.EventHint) context.Context {
	if hint != nil && hint.Context != nil {
		return hint.Context
	}
	return context.Background()
}

// Capture sends err with tags, and returns the event's id. The context reaches the Hook.
func (c *SentryClient) Capture(ctx context.Context, err error, tags map[string]string) string {
	e := sentry.NewEvent()
	e.Level, e.Tags = sentry.LevelError, tags
	e.Exception = []sentry.Exception{{Type: fmt.Sprintf("%T", innermost(err)), Value: cut(err.Error(), maxText)}}
	if id := c.client.CaptureEvent(e, &sentry.EventHint{Context: ctx}, nil); id != nil {
		return string(*id)
	}
	return ""
}

func (c *SentryClient) capture(e *sentry.Event) {
	c.client.CaptureEvent(e, &sentry.EventHint{}, nil)
}

// Close sends what is queued until ctx ends, then cuts the connections.
func (c *SentryClient) Close(ctx context.Context) error {
	sent := c.client.FlushWithContext(ctx)
	c.cancel() // first: the library's Close would wait for a request under way
	c.client.Close()
	if !sent {
		return errors.New("sentry did not take all events before the stop")
	}
	return nil
}

// event is the notice for Sentry. Failures to connect are grouped by their cause; route and strategy are tags.
func (d desk) event(n notice, s *sample) *sentry.Event {
	e := sentry.NewEvent()
	e.Level, e.ServerName, e.Transaction, e.Timestamp = sentry.LevelError, d.hostname, n.Route, n.last
	e.Fingerprint = []string{n.Cause}
	if !n.noConn {
		e.Fingerprint = []string{n.Cause, n.Route, n.Origin}
	}
	e.Tags = map[string]string{"cause": n.Cause, "route": n.Route, "origin": n.Origin}
	e.Contexts["failures"] = sentry.Context{
		"requests": n.count, "first": n.since.Format(time.RFC3339), "last": n.last.Format(time.RFC3339),
	}
	e.Exception = []sentry.Exception{{Type: n.Cause, Value: n.errText}}
	if s != nil {
		s.describe(e)
	}
	return e
}

// describe adds what is known of one incident.
func (s *sample) describe(e *sentry.Event) {
	e.Tags["strategy"], e.Tags["request_id"] = s.strategy, s.request.ID
	e.Request = &sentry.Request{
		Method: s.request.Method, URL: s.request.Path, QueryString: s.request.Query,
		Headers: map[string]string{"User-Agent": s.request.UserAgent},
	}
	e.Contexts["database"] = sentry.Context{
		"strategy": s.strategy, "slots": s.slots, "waiting": s.waiters, "holders": strings.Join(s.holders, "\n"),
		"sqlstate": s.sqlstate,
	}
	e.Exception[0].Value = s.errText
	e.Exception[0].Stacktrace = sentryStack(s.stack)
	e.Contexts["error"] = sentry.Context{"type": s.errType}
}

// sentryStack is outermost first, as Sentry wants it, with our own lines marked.
func sentryStack(pcs []uintptr) *sentry.Stacktrace {
	all := frames(pcs)
	if len(all) == 0 {
		return nil
	}
	out := make([]sentry.Frame, len(all))
	for i, f := range all {
		frame := sentry.NewFrame(f)
		frame.InApp = ours(f)
		out[len(all)-1-i] = frame
	}
	return &sentry.Stacktrace{Frames: out}
}

// event takes the secrets out of an event or a transaction, and whatever a library may have put in of a person.
func (s *scrubber) event(e *sentry.Event) *sentry.Event {
	e.User = sentry.User{}
	e.Message = s.clean(e.Message)
	for i := range e.Exception {
		e.Exception[i].Value = s.clean(e.Exception[i].Value)
	}
	for name, value := range e.Tags {
		e.Tags[name] = s.clean(value)
	}
	for _, c := range e.Contexts {
		for name, value := range c {
			if text, ok := value.(string); ok {
				c[name] = s.clean(text)
			}
		}
	}
	if r := e.Request; r != nil {
		r.Cookies, r.Data = "", ""
		r.URL, r.QueryString = s.clean(r.URL), s.clean(r.QueryString)
		r.Headers = map[string]string{"User-Agent": s.clean(r.Headers["User-Agent"])}
	}
	for _, span := range e.Spans {
		span.Description = s.clean(span.Description)
	}
	return e
}

// destinations is where the events of one client go.
type destinations []destination

type destination struct {
	dsn string
	sentry.Transport
}

func (o SentryOptions) destinations(ends context.Context) (destinations, error) {
	var all destinations
	if o.DSN != "" {
		if _, err := sentry.NewDsn(o.DSN.Reveal()); err != nil {
			return nil, fmt.Errorf("sentry.dsn can't be used: %w. It looks like https://KEY@HOST/PROJECT", dsnError(err))
		}
		all = append(all, destination{o.DSN.Reveal(), o.transport()})
	}
	if o.Spotlight {
		all = append(all, destination{spotlightDSN, o.transport()})
	}
	if len(all) == 0 {
		return nil, errors.New("a Sentry client needs a DSN, as https://KEY@HOST/PROJECT")
	}
	o.connect(ends, all)
	return all, nil
}

// dsnError drops what url.Parse quotes: the DSN holds a key.
func dsnError(err error) error {
	if parse, ok := errors.AsType[*url.Error](err); ok {
		return parse.Err
	}
	if msg, _, quoted := strings.Cut(err.Error(), "parse "); quoted {
		return errors.New(strings.TrimSuffix(msg, ": "))
	}
	return err
}

func (o SentryOptions) timeout() time.Duration {
	if o.Timeout > 0 {
		return o.Timeout
	}
	return sentryTimeout
}

func (o SentryOptions) transport() sentry.Transport {
	if o.Sync {
		return sentry.NewHTTPSyncTransport()
	}
	t := sentry.NewHTTPTransport()
	t.BufferSize = sentryQueue
	return t
}

// connect configures the transports. Their connections are cut when ends is done.
func (o SentryOptions) connect(ends context.Context, all destinations) {
	for _, d := range all {
		tr := http.DefaultTransport.(*http.Transport).Clone()
		tr.DialContext, tr.MaxIdleConnsPerHost = dialUntil(ends), 1
		var round http.RoundTripper = tr
		if d.dsn == spotlightDSN {
			round = toStream{tr}
		}
		d.Transport.Configure(sentry.ClientOptions{
			Dsn: d.dsn, HTTPClient: &http.Client{Transport: round, Timeout: o.timeout()},
		})
	}
}

// toStream posts to the one path that every version of Spotlight takes.
type toStream struct{ http.RoundTripper }

func (t toStream) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Path = "/stream"
	return t.RoundTripper.RoundTrip(r)
}

// Configure does nothing: connect did.
func (all destinations) Configure(sentry.ClientOptions) {}

// SendEvent sends to each.
func (all destinations) SendEvent(e *sentry.Event) {
	for _, d := range all {
		d.SendEvent(e)
	}
}

// Flush waits for each.
func (all destinations) Flush(timeout time.Duration) bool {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return all.FlushWithContext(ctx)
}

// FlushWithContext waits for each.
func (all destinations) FlushWithContext(ctx context.Context) bool {
	ok := true
	for _, d := range all {
		ok = d.FlushWithContext(ctx) && ok
	}
	return ok
}

// Close closes each.
func (all destinations) Close() {
	for _, d := range all {
		d.Transport.Close()
	}
}
