package app_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"ddtb/app/report/envelope"
	"ddtb/app/trace/tracetest"
	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

// tracedSite is the application with a collector and a Sentry that get every trace.
func tracedSite(t *testing.T, set func(*config.Database)) (*site, *tracetest.Collector, *envelope.Sink) {
	t.Helper()
	collector, sink := tracetest.New(t), &envelope.Sink{}
	sentry := httptest.NewServer(sink)
	t.Cleanup(sentry.Close)
	s := newSite(t, func(c *config.Config) {
		setDatabase(c, set)
		c.Tracing.Endpoint = collector.URL
		c.Sentry.DSN = config.Secret(strings.Replace(sentry.URL, "://", "://thekey@", 1) + "/7")
		c.Sentry.TracesSampleRate = 1
	})
	return s, collector, sink
}

// transaction is a trace as Sentry gets it.
type transaction struct {
	Name     string `json:"transaction"`
	Contexts struct {
		Trace struct {
			ID     string `json:"span_id"`
			Status string `json:"status"`
		} `json:"trace"`
	} `json:"contexts"`
	Spans []struct {
		Op          string `json:"op"`
		Description string `json:"description"`
		Parent      string `json:"parent_span_id"`
	} `json:"spans"`
}

func transactions(t *testing.T, sink *envelope.Sink) (all []transaction) {
	t.Helper()
	for _, item := range sink.Items("transaction") {
		var one transaction
		if err := json.Unmarshal(item.Payload, &one); err != nil {
			t.Fatal(err)
		}
		all = append(all, one)
	}
	return all
}

func TestARequestIsTracedWithItsAcquiresAndQueries(t *testing.T) {
	for _, strategy := range strategies {
		t.Run(strategy.name, func(t *testing.T) {
			t.Parallel()
			s, collector, sink := tracedSite(t, strategy.set)
			const parent = "4bf92f3577b34da6a3ce929d0e0e4736"
			mustContain(t, s.get("/polls/1/", "Traceparent", "00-"+parent+"-00f067aa0ba902b7-01"), http.StatusOK, "poll")
			mustContain(t, s.get("/error/"), http.StatusInternalServerError, "wrong")
			if err := s.stop(); err != nil {
				t.Error(err)
			}
			requests := collector.Named("GET /polls/:id/")
			if len(requests) != 1 || requests[0].Trace != parent || requests[0].Parent != "00f067aa0ba902b7" {
				t.Fatalf("%+v", collector.Spans())
			}
			acquires, queries := 0, 0
			for _, span := range collector.Spans() {
				switch {
				case span.Trace != parent || span.ID == requests[0].ID:
				case span.Name == "db.connect":
					if len(collector.Named("db.acquire")) == 0 || span.Parent != collector.Named("db.acquire")[0].ID {
						t.Errorf("%+v is not in the acquire", span)
					}
				case span.Parent != requests[0].ID:
					t.Errorf("%+v is not in the request", span)
				case span.Name == "db.acquire":
					acquires++
				case strings.Contains(span.Attributes["db.query.text"], "polls_question"):
					queries++
				}
			}
			holds := s.DB().Config().Strategy != db.Pool || s.DB().Config().Pool.Hold == db.HoldRequest
			if queries == 0 || acquires == 0 || holds && acquires != 1 {
				t.Errorf("%d acquires, %d queries: %+v", acquires, queries, collector.Spans())
			}
			if failed := collector.Named("GET /error/"); len(failed) != 1 || !failed[0].Failed || failed[0].Attributes["http.response.status_code"] != "500" {
				t.Errorf("%+v", failed)
			}
			mustBeInSentry(t, sink, acquires)
		})
	}
}

func mustBeInSentry(t *testing.T, sink *envelope.Sink, acquires int) {
	t.Helper()
	for _, tr := range transactions(t, sink) {
		if tr.Name != "GET /polls/:id/" {
			continue
		}
		var ops []string
		for _, span := range tr.Spans {
			ops = append(ops, span.Op)
			if span.Parent != tr.Contexts.Trace.ID {
				t.Errorf("%+v is not in the request", span)
			}
		}
		ofAcquire := len(slices.DeleteFunc(slices.Clone(ops), func(op string) bool { return op != "db.acquire" }))
		if ofAcquire != acquires || len(ops) == ofAcquire || ops[0] != "db.acquire" || ops[1] != "db.sql.query" {
			t.Errorf("%q for %d acquires", ops, acquires)
		}
		return
	}
	t.Errorf("Sentry has no such request: %+v", transactions(t, sink))
}

func TestProbesFilesAndStreamsAreNotTraced(t *testing.T) {
	t.Parallel()
	s, collector, sink := tracedSite(t, pool)
	s.AddPage("/stream/", func(c echo.Context) error { return c.NoContent(http.StatusOK) })
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/static/polls/style.css", "/favicon.ico", "/nothing", "/%0a"} {
		s.get(path)
	}
	s.get("/stream/", "Accept", "text/event-stream")
	s.do("BREW", "/polls/", nil)
	s.get("/")
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	var names []string
	for _, span := range collector.Spans() {
		names = append(names, span.Name)
	}
	var sentry []string
	for _, tr := range transactions(t, sink) {
		sentry = append(sentry, tr.Name)
	}
	if want := []string{"other /polls/", "GET /"}; !slices.Equal(names, want) || !slices.Equal(sentry, want) {
		t.Errorf("the collector has %q, Sentry %q, want %q", names, sentry, want)
	}
}

func TestAChangeOfTheCollectorNeedsARestart(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	cfg := *s.cfg
	cfg.Tracing.Endpoint = "http://127.0.0.1:4318"
	if restart, err := s.Reconfigure(t.Context(), &cfg); err != nil || !slices.Equal(restart, []string{"tracing"}) {
		t.Errorf("%q, %v", restart, err)
	}
}

func TestAMissingCollectorAndSentryDelayNoRequest(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *config.Config) {
		c.Tracing.Endpoint, c.Sentry.DSN, c.Sentry.TracesSampleRate = "http://127.0.0.1:1", "http://thekey@127.0.0.1:1/7", 1
	})
	for range 200 {
		mustContain(t, s.get("/polls/"), http.StatusOK, "poll")
	}
	dbtest.Eventually(t, "the log reports it", func() bool { return s.log.Count("traces can't be sent", "tracing.endpoint") == 1 })
	s.expectCut = true
}

func TestAnAnswerThatWasCutIsTracedAsAFailure(t *testing.T) {
	t.Parallel()
	s, collector, sink := tracedSite(t, pool)
	s.AddPage("/begins", func(c echo.Context) error {
		if err := c.String(http.StatusOK, strings.Repeat("half", 10_000)); err != nil {
			return err
		}
		return errors.New("the other half is missing")
	})
	if _, err := s.send(t.Context(), fresh, http.MethodGet, "/begins", nil); err == nil {
		t.Error("the cut answer looks whole")
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	if cut := collector.Named("GET /begins"); len(cut) != 1 || !cut[0].Failed || cut[0].Attributes["http.response.status_code"] != "500" {
		t.Errorf("%+v", cut)
	}
	if all := transactions(t, sink); len(all) != 1 || all[0].Contexts.Trace.Status != "internal_error" {
		t.Errorf("%+v", all)
	}
}
