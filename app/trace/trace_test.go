package trace_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"ddtb/app/trace"
	"ddtb/app/trace/tracetest"
	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
	"ddtb/db/logtest"
)

func TestMain(m *testing.M) { dbtest.Run(m) }

func begin(t testing.TB, endpoint string, rate float64) (*trace.Tracing, *logtest.Log) {
	t.Helper()
	log := &logtest.Log{}
	x, err := trace.New(config.Tracing{Endpoint: endpoint, SampleRate: rate, Headers: "api-key=hunter2"}, "1.2.3", slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(t, x) })
	return x, log
}

func end(t testing.TB, x *trace.Tracing) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := x.Close(ctx); err != nil {
		t.Error(err)
	}
}

// request traces what fn does as a request.
func request(ctx context.Context, x *trace.Tracing, status int, header http.Header, fn func(context.Context)) {
	ctx, finish := x.StartRequest(ctx, header, http.MethodGet, "/polls/")
	fn(ctx)
	finish(status)
}

func TestSpansOfARequestNestAsItsWorkDoes(t *testing.T) {
	for _, strategy := range []string{db.Pool, db.Persistent, db.PerRequest} {
		t.Run(strategy, func(t *testing.T) {
			dbtest.NoLeaks(t)
			c := tracetest.New(t)
			x, _ := begin(t, c.URL+"/", 1)
			cfg := dbtest.Config(t)
			cfg.Strategy = strategy
			d, err := db.OpenWith(cfg, db.Options{Tracer: x})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = d.Close(context.Background()) }()
			request(t.Context(), x, http.StatusOK, nil, func(ctx context.Context) {
				ctx, end := d.Begin(ctx)
				defer end()
				if _, err := d.Exec(ctx, "\n  SELECT $1::text", "my secret argument"); err != nil {
					t.Error(err)
				}
				if _, err := d.Exec(ctx, "SELECT $1::text::int", "my secret argument"); err == nil {
					t.Error("text is a number")
				}
			})
			if _, err := d.Exec(t.Context(), "SELECT 'of no request'"); err != nil {
				t.Error(err)
			}
			end(t, x)
			mustNest(t, c)
			for name, want := range map[string]string{"service.name": "ddtb", "service.version": "1.2.3"} {
				if got := c.Service()[name]; got != want {
					t.Errorf("%s is %q", name, got)
				}
			}
			if key := c.Header().Get("Api-Key"); key != "hunter2" {
				t.Errorf("the key is %q", key)
			}
			for _, secret := range []string{"my secret argument", cfg.Password.Reveal(), "of no request"} {
				if strings.Contains(c.Raw(), secret) {
					t.Errorf("%q is in the traces", secret)
				}
			}
		})
	}
}

func mustNest(t *testing.T, c *tracetest.Collector) {
	t.Helper()
	requests, acquires, connects, queries := c.Named("GET /polls/"), c.Named("db.acquire"), c.Named("db.connect"), c.Named("SELECT")
	if len(requests) != 1 || len(acquires) == 0 || len(connects) == 0 || len(queries) != 2 {
		t.Fatalf("%+v", c.Spans())
	}
	r := requests[0]
	if r.Parent != "" || r.Failed || r.Attributes["http.route"] != "/polls/" || r.Attributes["http.response.status_code"] != "200" {
		t.Errorf("%+v", r)
	}
	for _, s := range append(acquires, queries...) {
		if s.Parent != r.ID || s.Trace != r.Trace || s.Begin < r.Begin || s.End > r.End {
			t.Errorf("%+v is not in %+v", s, r)
		}
	}
	for _, s := range connects {
		if s.Parent != acquires[0].ID || s.Trace != r.Trace || s.Begin < acquires[0].Begin {
			t.Errorf("%+v is not in %+v", s, acquires[0])
		}
	}
	if q := queries[0]; q.Failed || q.Attributes["db.query.text"] != "SELECT $1::text" || q.Begin < acquires[0].End {
		t.Errorf("%+v", q)
	}
	if q := queries[1]; !q.Failed || q.Attributes["error.type"] != "22P02" {
		t.Errorf("%+v", q)
	}
}

func TestTheSpanOfAFailedAcquireHasItsCause(t *testing.T) {
	c := tracetest.New(t)
	x, _ := begin(t, c.URL, 1)
	request(t.Context(), x, http.StatusServiceUnavailable, nil, func(ctx context.Context) {
		for _, err := range []error{
			&db.ConnError{Cause: db.PoolTimeout}, context.Canceled, context.DeadlineExceeded, errors.New("secret"), &pgconn.PgError{Code: "42P01"},
		} {
			acquire(ctx, x, err)
		}
		q := x.TraceQueryStart(ctx, nil, pgx.TraceQueryStartData{SQL: "  "})
		x.TraceQueryEnd(q, nil, pgx.TraceQueryEndData{})
	})
	end(t, x)
	var kinds []string
	for _, s := range c.Named("db.acquire") {
		kinds = append(kinds, s.Attributes["error.type"])
	}
	if got := strings.Join(kinds, ", "); got != "pool timeout, canceled, timeout, error, 42P01" || strings.Contains(c.Raw(), "secret") {
		t.Error(got)
	}
	if r := c.Named("GET /polls/"); len(r) != 1 || !r[0].Failed {
		t.Errorf("%+v", r)
	}
	if len(c.Named("query")) != 1 {
		t.Errorf("%+v", c.Spans())
	}
}

func TestATraceparentIsFollowed(t *testing.T) {
	const id, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	parent := func(flags string) http.Header {
		return http.Header{"Traceparent": {"00-" + id + "-" + span + "-" + flags}}
	}
	for name, tt := range map[string]struct {
		rate   float64
		header http.Header
		traced bool
		parent string
	}{
		"a sampled one is sampled here, whatever the rate": {0, parent("01"), true, span},
		"one that is not is not":                           {1, parent("00"), false, ""},
		"without one the rate decides, for":                {1, nil, true, ""},
		"without one the rate decides, against":            {0, nil, false, ""},
		"one that can't be read is none":                   {1, http.Header{"Traceparent": {"00-zz-\r\n-01"}}, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := tracetest.New(t)
			x, _ := begin(t, c.URL, tt.rate)
			request(t.Context(), x, http.StatusOK, tt.header, func(ctx context.Context) { acquire(ctx, x, nil) })
			end(t, x)
			spans := c.Named("GET /polls/")
			if (len(spans) == 1) != tt.traced || len(c.Spans()) != 2*len(spans) {
				t.Fatalf("%+v", c.Spans())
			}
			if tt.traced && (spans[0].Parent != tt.parent || (spans[0].Trace == id) != (tt.parent != "")) {
				t.Errorf("%+v", spans[0])
			}
		})
	}
}

// hung is a collector that takes connections and says nothing.
func hung(t testing.TB) string {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return "http://" + l.Addr().String()
}

func TestACollectorThatHangsHoldsUpNeitherRequestsNorTheEnd(t *testing.T) {
	dbtest.NoLeaks(t)
	x, _ := begin(t, hung(t), 1)
	for range 10_000 { // five times what the queue takes
		request(t.Context(), x, http.StatusOK, nil, func(ctx context.Context) { acquire(ctx, x, nil) })
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := x.Close(ctx); err == nil || !strings.Contains(err.Error(), "not all traces were sent") {
		t.Error(err)
	}
	if err := x.Close(t.Context()); err != nil {
		t.Errorf("the second Close: %v", err)
	}
}

func TestACollectorThatRefusesIsLoggedOnceWithoutTheKey(t *testing.T) {
	c := tracetest.New(t)
	c.Status.Store(http.StatusForbidden)
	x, log := begin(t, c.URL, 1)
	one := func() { request(t.Context(), x, http.StatusOK, nil, func(context.Context) {}) }
	one()
	dbtest.Eventually(t, "it is told", func() bool { return strings.Contains(log.String(), "traces can't be sent") })
	c.Status.Store(0)
	dbtest.Eventually(t, "it is told that it is over", func() bool {
		one()
		return strings.Contains(log.String(), "traces are sent again")
	})
	end(t, x)
	if text := log.String(); strings.Count(text, "\n") != 2 || strings.Contains(text, "hunter2") || !strings.Contains(text, "403") {
		t.Error(text)
	}
}

func TestWithoutAnEndpointNothingIsTraced(t *testing.T) {
	x, err := trace.New(config.Tracing{SampleRate: 1}, "", nil)
	if err != nil || x != nil {
		t.Fatal(x, err)
	}
	ctx, finish := x.StartRequest(t.Context(), http.Header{}, "GET", "/")
	finish(http.StatusOK)
	if ctx != t.Context() {
		t.Error("the context is another")
	}
	end(t, x)
}

func BenchmarkRequest(b *testing.B) {
	off, _ := trace.New(config.Tracing{}, "", nil)
	unsampled, _ := begin(b, hung(b), 0)
	sampled, _ := begin(b, hung(b), 1)
	for name, x := range map[string]*trace.Tracing{"off": off, "not sampled": unsampled, "sampled, with a hung collector": sampled} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				request(b.Context(), x, http.StatusOK, http.Header{}, func(context.Context) {})
			}
		})
	}
	ctx, cancel := context.WithCancel(b.Context())
	cancel()
	_ = sampled.Close(ctx)
}

func acquire(ctx context.Context, x *trace.Tracing, err error) {
	_, end := x.TraceAcquire(ctx, "pool")
	end(err)
}
