package report

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/getsentry/sentry-go"
	"github.com/jackc/pgx/v5"

	"ddtb/config"
)

const (
	sentryTimeout = 5 * time.Second // of one request to Sentry
	sentryQueue   = 100             // waiting events; more are dropped, and Sentry gets their number
)

// spotlightDSN leads to Spotlight, the local viewer, which accepts any project.
const spotlightDSN = "http://spotlight@localhost:8969/0"

// SentryOptions configure a separate client. The application's reporter needs none.
type SentryOptions struct {
	DSN         config.Secret
	Environment string
	Release     string // "": "ddtb"
	Spotlight   bool   // also send to Spotlight; without a DSN, only to it

	// Sync makes each capture wait for Sentry's response, for at most Timeout (0: 5 s). Requests should not use it.
	Sync    bool
	Timeout time.Duration

	// TracesSampleRate is the fraction of requests that are traced, 0 to 1.
	TracesSampleRate float64

	// Hook runs in each capture, in the capturing goroutine and with the capture's context, before the event is
	// queued. This is sentry-go's BeforeSend.
	Hook func(context.Context)

	// Secrets are removed from everything sent, as are likely secrets.
	Secrets []config.Secret
}

// SentryClient sends events. Unless it is Sync, a capture takes microseconds even when Sentry hangs: the event goes
// to a bounded queue, and one goroutine sends.
type SentryClient struct {
	client *sentry.Client
	rate   float64
	cancel context.CancelFunc // closes its connections
}

// NewSentryClient makes a client with its own connection and queue, for experiments and tests. Close it.
func NewSentryClient(o SentryOptions) (*SentryClient, error) {
	return newSentryClient(o, newScrubber(append([]config.Secret{o.DSN}, o.Secrets...)))
}

func newSentryClient(o SentryOptions, scrub *scrubber) (*SentryClient, error) {
	dsn := o.DSN.Reveal()
	if dsn == "" && o.Spotlight {
		dsn = spotlightDSN
	}
	if _, err := sentry.NewDsn(dsn); err != nil { // its error would quote the DSN, which contains a key
		return nil, errors.New("sentry.dsn can't be used: it must look like https://KEY@HOST/PROJECT")
	}
	ctx, cancel := context.WithCancel(context.Background())
	client, err := sentry.NewClient(sentry.ClientOptions{
		Dsn: dsn, Transport: o.transport(), HTTPClient: o.httpClient(ctx), Environment: o.Environment,
		Release:       cmp.Or(o.Release, "ddtb"), // without one the library asks the environment, and then git
		EnableTracing: o.TracesSampleRate > 0, TracesSampleRate: o.TracesSampleRate,
		BeforeSend: func(e *sentry.Event, hint *sentry.EventHint) *sentry.Event {
			if o.Hook != nil {
				o.Hook(hint.Context)
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

func (o SentryOptions) transport() sentry.Transport {
	if o.Sync {
		return sentry.NewHTTPSyncTransport()
	}
	t := sentry.NewHTTPTransport()
	t.BufferSize = sentryQueue
	return t
}

// httpClient sends to the DSN, and to Spotlight if it is on. Its connections are closed when ends is done.
func (o SentryOptions) httpClient(ends context.Context) *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext, t.MaxIdleConnsPerHost, t.MaxResponseHeaderBytes = dialUntil(ends, 0), 1, 64<<10
	client := &http.Client{Transport: t, Timeout: cmp.Or(o.Timeout, sentryTimeout)}
	if o.Spotlight {
		client.Transport = spotlight{t, o.DSN == ""}
	}
	return client
}

// Capture sends err with tags, and returns the event's id. The Hook gets the context.
func (c *SentryClient) Capture(ctx context.Context, err error, tags map[string]string) string {
	e := sentry.NewEvent()
	e.Level, e.Tags = sentry.LevelError, tags
	e.Exception = []sentry.Exception{{Type: fmt.Sprintf("%T", innermost(err)), Value: cut(err.Error(), maxText)}}
	if id := c.client.CaptureEvent(e, &sentry.EventHint{Context: ctx}, nil); id != nil {
		return string(*id)
	}
	return ""
}

// captureNotice queues the event of a notice. An outage is grouped by its cause; route and strategy are tags.
func (c *SentryClient) captureNotice(hostname string, n *notice) {
	e := sentry.NewEvent()
	e.Level, e.ServerName, e.Transaction, e.Timestamp = sentry.LevelError, hostname, n.Route, n.Last
	e.Fingerprint = []string{n.Cause}
	if n.key != outageKey {
		e.Fingerprint = []string{n.Cause, n.Route, n.Origin}
	}
	e.Tags = map[string]string{"cause": n.Cause, "route": n.Route, "origin": n.Origin}
	e.Contexts["failures"] = sentry.Context{
		"requests": n.Pending, "first": n.First.Format(time.RFC3339), "last": n.Last.Format(time.RFC3339),
	}
	e.Exception = []sentry.Exception{{Type: n.Cause}}
	if f := n.Example; f != nil {
		e.Tags["strategy"], e.Tags["request_id"] = f.Strategy, f.ID
		e.Request = &sentry.Request{
			Method: f.Method, URL: f.Path, QueryString: f.Query, Headers: map[string]string{"User-Agent": f.UserAgent},
		}
		e.Contexts["database"] = sentry.Context{
			"strategy": f.Strategy, "slots": f.Slots, "waiting": f.Waiting, "holders": strings.Join(f.Holders, "\n"), "sqlstate": f.SQLState,
		}
		e.Contexts["error"] = sentry.Context{"type": f.Type}
		e.Exception[0].Value, e.Exception[0].Stacktrace = f.Text, f.sentryStack()
	}
	c.client.CaptureEvent(e, &sentry.EventHint{Context: context.Background()}, nil)
}

// sentryStack is outermost first, as Sentry expects, with our own lines marked.
func (f *failure) sentryStack() *sentry.Stacktrace {
	all := f.frames()
	if len(all) == 0 {
		return nil
	}
	out := make([]sentry.Frame, len(all))
	for i, frame := range all {
		s := sentry.NewFrame(frame)
		s.InApp = ours(frame)
		out[len(all)-1-i] = s
	}
	return &sentry.Stacktrace{Frames: out}
}

// Close sends what is queued until ctx ends, then closes the connections.
func (c *SentryClient) Close(ctx context.Context) error {
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

// StartRequest starts the trace of a request if tracing is on and the request is sampled; otherwise it takes
// nanoseconds. Call finish with the response's status after the request has released its lease: it queues the trace.
func (r *Reporter) StartRequest(ctx context.Context, method, route string) (_ context.Context, finish func(status int)) {
	if r == nil || r.sentry == nil || r.sentry.rate <= 0 || rand.Float64() >= r.sentry.rate { //nolint:gosec // sampling is no secret
		return ctx, func(int) {}
	}
	ctx = sentry.SetHubOnContext(ctx, sentry.NewHub(r.sentry.client, sentry.NewScope()))
	span := sentry.StartTransaction(ctx, method+" "+route, sentry.WithOpName("http.server"),
		sentry.WithTransactionSource(sentry.SourceRoute), sentry.WithSpanSampled(sentry.SampledTrue))
	return span.Context(), func(code int) {
		span.Status = sentry.HTTPtoSpanStatus(code)
		span.SetData("http.response.status_code", code)
		span.Finish()
	}
}

// Tracer makes a span of each wait for a lease and of each query, in requests that are traced. The zero value is ready
// for use, and is a pgx.QueryTracer.
type Tracer struct{}

// TraceAcquire starts the span of a wait for a lease. end ends it.
func (Tracer) TraceAcquire(ctx context.Context, strategy string) (end func(error)) {
	if sentry.SpanFromContext(ctx) == nil {
		return func(error) {}
	}
	span := sentry.StartSpan(ctx, "db.acquire", sentry.WithDescription("a connection by "+strategy))
	span.SetTag("strategy", strategy)
	return func(err error) { finish(span, err) }
}

// querySpan is the key of the span that TraceQueryStart began, since pgx hands its context to TraceQueryEnd.
type querySpan struct{}

// TraceQueryStart starts the span of a query. Its description is the SQL text, which contains no parameters.
func (Tracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if sentry.SpanFromContext(ctx) == nil {
		return ctx
	}
	span := sentry.StartSpan(ctx, "db.sql.query", sentry.WithDescription(cut(data.SQL, maxText)))
	span.SetData("db.system", "postgresql")
	return context.WithValue(span.Context(), querySpan{}, span)
}

// TraceQueryEnd ends the span of a query.
func (Tracer) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryEndData) {
	if span, ok := ctx.Value(querySpan{}).(*sentry.Span); ok {
		finish(span, data.Err)
	}
}

func finish(span *sentry.Span, err error) {
	span.Status = sentry.SpanStatusOK
	if err != nil {
		span.Status = sentry.SpanStatusInternalError
	}
	span.Finish()
}
