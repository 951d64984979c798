package report

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/getsentry/sentry-go"
	"github.com/jackc/pgx/v5"

	"ddtb/app/report/envelope"
	"ddtb/config"
	"ddtb/db"
)

// sentryAt is a real endpoint that answers after delay.
func sentryAt(t testing.TB, delay time.Duration) (*envelope.Sink, config.Sentry) {
	sink := &envelope.Sink{Delay: delay}
	srv := httptest.NewServer(sink)
	t.Cleanup(srv.Close)
	return sink, config.Sentry{DSN: config.Secret(strings.Replace(srv.URL, "://", "://thekey@", 1) + "/7"), Environment: "test"}
}

// event is what of an event these tests look at.
type event struct {
	Level       string            `json:"level"`
	Environment string            `json:"environment"`
	Release     string            `json:"release"`
	Server      string            `json:"server_name"`
	Transaction string            `json:"transaction"`
	Fingerprint []string          `json:"fingerprint"`
	Tags        map[string]string `json:"tags"`
	Request     struct {
		Method string `json:"method"`
		URL    string `json:"url"`
		Query  string `json:"query_string"`
	} `json:"request"`
	Exception []struct {
		Type       string `json:"type"`
		Value      string `json:"value"`
		Stacktrace struct {
			Frames []struct {
				Function string `json:"function"`
				InApp    bool   `json:"in_app"`
			} `json:"frames"`
		} `json:"stacktrace"`
	} `json:"exception"`
	Contexts map[string]map[string]any `json:"contexts"`
	Spans    []struct {
		Op          string            `json:"op"`
		Description string            `json:"description"`
		Status      string            `json:"status"`
		Tags        map[string]string `json:"tags"`
	} `json:"spans"`
}

func one(t *testing.T, sink *envelope.Sink, kind string) (event, string) {
	t.Helper()
	items := sink.Items(kind)
	if len(items) != 1 {
		t.Fatalf("%d %ss came", len(items), kind)
	}
	var e event
	if err := json.Unmarshal(items[0].Payload, &e); err != nil {
		t.Fatal(err)
	}
	return e, string(items[0].Payload)
}

func TestTwoHundredFailuresAreOneEvent(t *testing.T) {
	sink, cfg := sentryAt(t, 0)
	r := open(t, Options{Mail: mailTo("none"), Sentry: cfg})
	in := busy("/polls/")
	concurrently(200, func(int) { r.Report(in) })
	shut(t, r)
	e, _ := one(t, sink, "event")
	equal(t, "grouped by", strings.Join(e.Fingerprint, ","), "pool timeout")
	equal(t, "title", e.Exception[0].Type, "pool timeout")
	equal(t, "subtitle", e.Exception[0].Value, "latest polls: couldn't get a connection after 10.00 sec")
	equal(t, "level", e.Level, "error")
	equal(t, "environment", e.Environment, "test")
	equal(t, "release", e.Release, "ddtb")
	equal(t, "server", e.Server, "web1")
	equal(t, "request", e.Request.Method+" "+e.Request.URL, "GET /polls/")
	for tag, want := range map[string]string{"cause": "pool timeout", "route": "/polls/", "strategy": "pool"} {
		equal(t, "tag "+tag, e.Tags[tag], want)
	}
	contains(t, "holders", fmt.Sprint(e.Contexts["database"]), "12.3 s  handlers.go:7")
	innermost := e.Exception[0].Stacktrace.Frames[len(e.Exception[0].Stacktrace.Frames)-1]
	equal(t, "innermost frame", innermost.Function, "unreachable")
	equal(t, "in the application", innermost.InApp, true)
}

func TestMailAndEventHaveTheSameLimitAndTheEventHasTheNumber(t *testing.T) {
	sink, cfg := sentryAt(t, 0)
	var out console
	m := mailTo("console")
	m.Limit.Window = time.Second
	r := open(t, Options{Mail: m, Sentry: cfg, Console: &out})
	concurrently(200, func(int) { r.Report(busy("/polls/")) })
	eventually(t, "the second mail", func() bool { return len(out.subjects()) == 2 })
	shut(t, r)
	items := sink.Items("event")
	equal(t, "events", len(items), 2)
	contains(t, "the second event", string(items[1].Payload), `"requests":199`)
}

func TestWhileMailFailsSentryGetsEachFailureOnce(t *testing.T) {
	sink, cfg := sentryAt(t, 0)
	server := startMailServer(t, &mailServer{refuse: func(string, string) error {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 7, 1}, Message: "not here"}
	}}, nil)
	m := server.config()
	m.Limit.Window = time.Second / 2
	r := open(t, Options{Mail: m, Sentry: cfg})
	r.Report(bug(1))
	eventually(t, "the mail failed twice", func() bool { return r.Stat().MailsFailed >= 2 })
	r.Report(bug(1))
	r.Report(bug(1))
	eventually(t, "the mail failed again", func() bool { return r.Stat().MailsFailed >= 4 })
	shut(t, r)
	total := 0
	for _, item := range sink.Items("event") {
		var e struct {
			Contexts struct{ Failures struct{ Requests int } }
		}
		if err := json.Unmarshal(item.Payload, &e); err != nil {
			t.Fatal(err)
		}
		total += e.Contexts.Failures.Requests
	}
	equal(t, "failures in all events", total, 3)
}

func TestBugsAreGroupedByTheirLine(t *testing.T) {
	sink, cfg := sentryAt(t, 0)
	r := open(t, Options{Mail: mailTo("none"), Sentry: cfg})
	r.Report(bug(7))
	shut(t, r)
	e, _ := one(t, sink, "event")
	equal(t, "grouped by", strings.Join(e.Fingerprint, ","), "internal error,/polls/7/,"+e.Tags["origin"])
	contains(t, "the line", e.Tags["origin"], "main_test.go:", "report.bug")
}

func TestASentryThatHangsDelaysNeitherReportNorClose(t *testing.T) {
	sink, cfg := sentryAt(t, time.Hour)
	r, err := New(Options{Mail: mailTo("none"), Sentry: cfg, Log: logTo(io.Discard)})
	if err != nil {
		t.Fatal(err)
	}
	concurrently(1000, func(i int) { r.Report(bug(i % 50)) })
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := r.Close(ctx); err == nil || !strings.Contains(err.Error(), "sentry did not accept all events") {
		t.Errorf("got %v", err)
	}
	if ctx.Err() != nil {
		t.Error("it took longer than it may")
	}
	equal(t, "taken", len(sink.Items("")), 0)
}

func TestASentryThatIsDeadLosesNoMail(t *testing.T) {
	var out console
	cfg := config.Sentry{DSN: config.Secret(fmt.Sprintf("http://key@127.0.0.1:%d/7", closedPort(t)))}
	r := open(t, Options{Mail: mailTo("console"), Sentry: cfg, Console: &out})
	r.Report(busy("/polls/"))
	shut(t, r)
	equal(t, "mails", len(out.subjects()), 1)
}

func TestAnInvalidDSNIsRefusedWithoutQuotingIt(t *testing.T) {
	for _, dsn := range []string{"https://thekey@", "thekey", "https://thekey@host:port/1", "ftp://thekey@host/1", "https://host/1", "https://the key@host/1%"} {
		_, err := New(Options{Sentry: config.Sentry{DSN: config.Secret(dsn)}})
		if err == nil {
			t.Errorf("%q was taken", dsn)
			continue
		}
		contains(t, "the error", err.Error(), "sentry.dsn can't be used", "https://KEY@HOST/PROJECT")
		lacks(t, "the error", err.Error(), "thekey", "the key")
	}
}

func TestSpotlightGetsTheEventToo(t *testing.T) {
	for name, c := range map[string]struct {
		alone bool
		want  string
	}{
		"beside Sentry": {false, "localhost:8969/stream, 127.0.0.1:1/api/0/envelope/"},
		"alone":         {true, "localhost:8969/stream"},
	} {
		t.Run(name, func(t *testing.T) {
			var to, bodies []string
			s := spotlight{roundTrip(func(r *http.Request) (*http.Response, error) {
				body, err := io.ReadAll(r.Body)
				to, bodies = append(to, r.URL.Host+r.URL.Path), append(bodies, string(body))
				return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, err
			}), c.alone}
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://127.0.0.1:1/api/0/envelope/", strings.NewReader("{}\n"))
			if err != nil {
				t.Fatal(err)
			}
			answer, err := s.RoundTrip(request)
			if err != nil {
				t.Fatal(err)
			}
			_ = answer.Body.Close()
			equal(t, "sent to", strings.Join(to, ", "), c.want)
			equal(t, "the last body", bodies[len(bodies)-1], "{}\n")
			equal(t, "the first body", bodies[0], "{}\n")
		})
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestAHookRunsInTheCaptureWithItsContext(t *testing.T) {
	for _, sync := range []bool{false, true} {
		sink, cfg := sentryAt(t, 0)
		type key struct{}
		var got any
		c, err := NewSentryClient(cfg, func(o *sentry.ClientOptions) {
			if sync {
				o.Transport = sentry.NewHTTPSyncTransport()
			}
			clean := o.BeforeSend
			o.BeforeSend = func(e *sentry.Event, hint *sentry.EventHint) *sentry.Event {
				got = hint.Context.Value(key{})
				return clean(e, hint)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		id := c.Capture(context.WithValue(t.Context(), key{}, "the holder"), errors.New("x"), map[string]string{"while": "holding a lease"})
		equal(t, "what the hook saw before Capture returned", got, any("the holder"))
		if sync {
			equal(t, "sent when Capture returned", len(sink.Items("")), 1)
		}
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
		e, raw := one(t, sink, "event")
		equal(t, "tag", e.Tags["while"], "holding a lease")
		contains(t, "the event", raw, id)
	}
}

func TestASyncCaptureWaitsForItsTimeout(t *testing.T) {
	_, cfg := sentryAt(t, time.Hour)
	c, err := NewSentryClient(cfg, func(o *sentry.ClientOptions) {
		o.Transport, o.HTTPClient.Timeout = sentry.NewHTTPSyncTransport(), 50*time.Millisecond
	})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	c.Capture(t.Context(), errors.New("x"), nil)
	if waited := time.Since(began); waited < 50*time.Millisecond {
		t.Errorf("waited only %v", waited)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestATraceHasSpansOfAcquireAndQuery(t *testing.T) {
	sink, cfg := sentryAt(t, 0)
	cfg.TracesSampleRate = 1
	r := open(t, Options{Mail: mailTo("none"), Sentry: cfg})
	ctx, finish := r.StartRequest(t.Context(), "GET", "/polls/")
	var tracer pgx.QueryTracer = Tracer{}
	_, end := Tracer{}.TraceAcquire(ctx, "pool")
	end(nil)
	q := tracer.TraceQueryStart(ctx, nil, pgx.TraceQueryStartData{SQL: "SELECT 1 WHERE $1", Args: []any{"my secret argument"}})
	tracer.TraceQueryEnd(q, nil, pgx.TraceQueryEndData{Err: errors.New("x")})
	finish(http.StatusServiceUnavailable)
	shut(t, r)
	e, raw := one(t, sink, "transaction")
	equal(t, "name", e.Transaction, "GET /polls/")
	equal(t, "spans", len(e.Spans), 2)
	equal(t, "first", e.Spans[0].Op+" "+e.Spans[0].Description+" "+e.Spans[0].Status, "db.acquire a connection by pool ok")
	equal(t, "second", e.Spans[1].Op+" "+e.Spans[1].Description+" "+e.Spans[1].Status, "db.sql.query SELECT 1 WHERE $1 internal_error")
	lacks(t, "the trace", raw, "my secret argument")
}

func TestWithoutTracingNothingIsTraced(t *testing.T) {
	sink, cfg := sentryAt(t, 0)
	r := open(t, Options{Mail: mailTo("none"), Sentry: cfg})
	ctx, finish := r.StartRequest(t.Context(), "GET", "/polls/")
	equal(t, "the context", ctx, t.Context())
	_, end := Tracer{}.TraceAcquire(ctx, "pool")
	end(nil)
	equal(t, "the query's context", Tracer{}.TraceQueryStart(ctx, nil, pgx.TraceQueryStartData{}), ctx)
	Tracer{}.TraceQueryEnd(ctx, nil, pgx.TraceQueryEndData{})
	finish(200)
	shut(t, r)
	equal(t, "items", len(sink.Items("")), 0)
}

func TestNoSecretIsSent(t *testing.T) {
	sink, cfg := sentryAt(t, 0)
	server := startMailServer(t, &mailServer{}, nil)
	m := server.config()
	m.Password = "mail-pass-1"
	r := open(t, Options{Mail: m, Sentry: cfg, Secrets: []config.Secret{"db/pass word"}})
	r.Hide("later", "db/pass word", "")
	r.Hide("later-pass-17")
	form := url.Values{"username": {"mallory-0"}, "password": {"form-pass-2"}}
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost,
		"/admin/login/?next=/admin/&token=query-tok-3&page=2&pin=4711", strings.NewReader(form.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Authorization", "Bearer header-tok-4")
	req.Header.Set("Cookie", "sessionid=cookie-5; csrftoken=cookie-6")
	req.Header.Set("User-Agent", "curl/8 mail-pass-1")
	if err := req.ParseForm(); err != nil {
		t.Fatal(err)
	}
	r.Report(Incident{
		Err: fmt.Errorf("opening postgres://www:url-pass-7@db/ddtb and http://x:db%%2Fpass%%20word@y, db/pass word, "+
			"password=kv-pass-8 user=www, {\"secret\": \"json 9\"} Set-Cookie: a=cookie-10; b=cookie-11\nAuthorization: Basic basic-12 rest-13\n"+
			"api_key: 'quoted key 14', later-pass-17, %w", &db.ConnError{Cause: db.LoginRejected, Err: errors.New("mail-pass-1")}),
		Request: RequestOf(req, "/admin/login/", "192.0.2.1", "id-1"),
		Slots:   "password=slot-pass-15", Holders: []string{"token=holder-tok-16"},
	})
	shut(t, r)
	_, payload := one(t, sink, "event")
	mail := server.latest(t)
	for what, told := range map[string]string{"the event": payload, "the text": mail.text, "the HTML": mail.html} {
		lacks(t, what, told, "mail-pass-1", "form-pass-2", "mallory-0", "query-tok-3", "4711", "header-tok-4", "cookie-", "url-pass-7", "pass word", "%2Fpass",
			"kv-pass-8", "json 9", "basic-12", "rest-13", "quoted key 14", "slot-pass-15", "holder-tok-16", "later-pass", "thekey")
		contains(t, what, told, "page=2", "/admin/login/", "user=www")
	}
	lacks(t, "the event", payload, "192.0.2.1")
}

func TestNothingThatIsTypedChangesAMail(t *testing.T) {
	server := startMailServer(t, &mailServer{}, nil)
	r := open(t, Options{Mail: server.config()})
	in := bug(1)
	in.Err = errors.New("<script>alert(1)</script>\r\n.\r\nMAIL FROM:<x@example.org>")
	in.Request.Route = "/x\r\nBcc: eve@example.org\r\n\r\n<b>"
	in.Request.UserAgent = "<img src=x onerror=alert(1)>\x1b[31m"
	r.Report(in)
	shut(t, r)
	m := server.latest(t)
	equal(t, "subject", m.subject, "[ddtb] internal error on /x  Bcc: eve@example.org    <b> (web1)")
	equal(t, "header", m.header.Get("Bcc"), "")
	equal(t, "recipients", strings.Join(server.rcpts, " "), "ops@example.org")
	lacks(t, "text", m.text, "\x1b")
}

func BenchmarkReportWithAHungSentryAndAHungMailServer(b *testing.B) {
	_, cfg := sentryAt(b, time.Hour)
	stuck := make(blocked)
	r, err := New(Options{Mail: mailTo("console"), Console: stuck, Sentry: cfg, Log: logTo(io.Discard)})
	if err != nil {
		b.Fatal(err)
	}
	in := busy("/polls/")
	b.ReportAllocs()
	for b.Loop() {
		r.Report(in)
	}
	b.StopTimer()
	ctx, cancel := context.WithCancel(b.Context())
	cancel()
	_ = r.Close(ctx)
	close(stuck)
}
