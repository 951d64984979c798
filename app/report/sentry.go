package report

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/getsentry/sentry-go"

	"ddtb/config"
)

const (
	sentryTimeout = 5 * time.Second // of one request to Sentry
	// spotlightDSN leads to Spotlight, the local viewer, which accepts any project.
	spotlightDSN = "http://spotlight@localhost:8969/0"
)

// SentryClient sends events. A capture takes microseconds even when Sentry hangs: the event goes to the library's
// bounded queue, and one goroutine sends.
type SentryClient struct {
	client *sentry.Client
	rate   float64
	cancel context.CancelFunc // closes its connections
}

// NewSentryClient makes a client with its own connection and queue. Close it. Secrets are removed from everything sent,
// as are likely secrets. change may change the library's options.
func NewSentryClient(cfg config.Sentry, change func(*sentry.ClientOptions), secrets ...config.Secret) (*SentryClient, error) {
	return newSentryClient(cfg, change, newScrubber(append(secrets, cfg.DSN)))
}

func newSentryClient(cfg config.Sentry, change func(*sentry.ClientOptions), scrub *scrubber) (*SentryClient, error) {
	dsn := cfg.DSN.Reveal()
	if dsn == "" && cfg.Spotlight {
		dsn = spotlightDSN
	}
	if _, err := sentry.NewDsn(dsn); err != nil { // its error would quote the DSN, which contains a key
		return nil, errors.New("sentry.dsn can't be used: it must look like https://KEY@HOST/PROJECT")
	}
	ctx, cancel := context.WithCancel(context.Background())
	clean := func(e *sentry.Event, _ *sentry.EventHint) *sentry.Event { return scrub.event(e) }
	o := sentry.ClientOptions{
		Dsn: dsn, Transport: sentry.NewHTTPTransport(), HTTPClient: sentryHTTP(ctx, cfg), Environment: cfg.Environment,
		Release:       "ddtb", // without one the library asks the environment, and then git
		EnableTracing: cfg.TracesSampleRate > 0, TracesSampleRate: cfg.TracesSampleRate,
		BeforeSend: clean, BeforeSendTransaction: clean,
	}
	change(&o)
	client, err := sentry.NewClient(o)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("sentry: %w", err)
	}
	return &SentryClient{client: client, rate: cfg.TracesSampleRate, cancel: cancel}, nil
}

// sentryHTTP sends to the DSN, and to Spotlight if it is on. Its connections are closed when ends is done.
func sentryHTTP(ends context.Context, cfg config.Sentry) *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext, t.MaxIdleConnsPerHost, t.MaxResponseHeaderBytes = dialUntil(ends, math.MaxInt), 1, 64<<10
	client := &http.Client{Transport: t, Timeout: sentryTimeout}
	if cfg.Spotlight {
		client.Transport = spotlight{t, cfg.DSN == ""}
	}
	return client
}

// Capture sends err with tags, and returns the event's id. BeforeSend's hint has the context.
func (c *SentryClient) Capture(ctx context.Context, err error, tags map[string]string) string {
	e := sentry.NewEvent()
	e.Level, e.Tags = sentry.LevelError, tags
	e.Exception = []sentry.Exception{{Type: fmt.Sprintf("%T", innermost(err)), Value: cut(err.Error(), maxText)}}
	if id := c.client.CaptureEvent(e, &sentry.EventHint{Context: ctx}, nil); id != nil {
		return string(*id)
	}
	return ""
}

// captureNotice queues the event of a notice, for the failures that no earlier event counted. An outage is grouped by its
// cause; route and strategy are tags.
func (c *SentryClient) captureNotice(hostname string, n *notice) {
	e := sentry.NewEvent()
	e.Level, e.ServerName, e.Transaction, e.Timestamp = sentry.LevelError, hostname, n.Route, n.Last
	e.Fingerprint = []string{n.Cause}
	if n.key != outageKey {
		e.Fingerprint = []string{n.Cause, n.Route, n.Origin}
	}
	e.Tags = map[string]string{"cause": n.Cause, "route": n.Route, "origin": n.Origin}
	e.Contexts["failures"] = sentry.Context{
		"requests": n.Pending - n.Captured, "first": n.First.Format(time.RFC3339), "last": n.Last.Format(time.RFC3339),
	}
	e.Exception = []sentry.Exception{{Type: n.Cause}}
	if f := n.Example; f != nil {
		e.Tags["strategy"], e.Tags["request_id"] = f.Strategy, f.ID
		e.Request = &sentry.Request{
			Method: f.Method, URL: f.Path, QueryString: f.Query, Headers: map[string]string{"User-Agent": f.UserAgent},
		}
		e.Contexts["database"] = f.database()
		e.Contexts["error"] = sentry.Context{"type": f.Type}
		e.Exception[0].Value, e.Exception[0].Stacktrace = f.Text, f.sentryStack()
	}
	c.client.CaptureEvent(e, &sentry.EventHint{Context: context.Background()}, nil)
}

// database is what is known of the database.
func (f *failure) database() sentry.Context {
	known := sentry.Context{}
	for name, value := range map[string]string{
		"server": f.Server, "strategy": f.Strategy, "slots": f.Slots, "waiting": f.Waiting,
		"holders": strings.Join(f.Holders, "\n"), "sqlstate": f.SQLState,
	} {
		if value != "" {
			known[name] = value
		}
	}
	return known
}

// sentryStack is outermost first, as Sentry expects, with our own lines marked.
func (f *failure) sentryStack() *sentry.Stacktrace {
	out := &sentry.Stacktrace{}
	for _, frame := range f.frames() {
		s := sentry.NewFrame(frame)
		s.InApp = ours(frame)
		out.Frames = append(out.Frames, s)
	}
	if out.Frames == nil {
		return nil
	}
	slices.Reverse(out.Frames)
	return out
}

// Close sends what is queued until ctx ends, then closes the connections. That of a nil client does nothing.
func (c *SentryClient) Close(ctx context.Context) error {
	if c == nil {
		return nil
	}
	sent := c.client.FlushWithContext(ctx)
	c.cancel() // first: the library's Close would wait for a running request
	c.client.Close()
	if !sent {
		return errors.New("sentry did not accept all events before the stop")
	}
	return nil
}

// event removes secrets and personal data added by a library from an event or a transaction.
func (s *scrubber) event(e *sentry.Event) *sentry.Event {
	e.User, e.Message = sentry.User{}, s.clean(e.Message)
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

// spotlight sends each event to Spotlight first, at the one path that every version accepts.
type spotlight struct {
	http.RoundTripper
	alone bool
}

func (s spotlight) RoundTrip(r *http.Request) (*http.Response, error) {
	to := r.Clone(r.Context())
	to.URL.Scheme, to.URL.Host, to.URL.Path, to.Host = "http", "localhost:8969", "/stream", ""
	if s.alone {
		return s.RoundTripper.RoundTrip(to)
	}
	var err error
	if to.Body, err = r.GetBody(); err != nil {
		return nil, err
	}
	if answer, err := s.RoundTripper.RoundTrip(to); err == nil {
		_ = answer.Body.Close()
	}
	return s.RoundTripper.RoundTrip(r)
}
