package site

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"
	"go.uber.org/goleak"

	"ddtb/app/lab/scenarios"
	"ddtb/app/lab/scene"
	"ddtb/app/web"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// running returns the pages while a run of the scenario never ends: nothing takes it from the queue.
func running(t *testing.T) (*Site, *scene.Scenario) {
	t.Helper()
	s := New(func() bool { return true }, func(command string) string { return command }, slog.New(slog.DiscardHandler))
	t.Cleanup(s.Close)
	x := scenarios.All()[0]
	s.runner.mu.Lock()
	defer s.runner.mu.Unlock()
	s.runner.jobs = []*job{{scenario: x, samples: map[string][]scene.Sample{}}}
	s.runner.notify()
	return s, x
}

func handler(s *Site) http.Handler {
	e := echo.New()
	e.HTTPErrorHandler = web.HandleErrors(slog.New(slog.DiscardHandler), nil)
	for _, r := range s.Routes() {
		e.Add(r.Method, r.Path, r.Handler)
	}
	return e
}

func TestARunIsDrawnOnceForAllViewers(t *testing.T) {
	s, x := running(t)
	s.runner.observe(s.runner.jobs[0], scene.Failure, scene.Sample{Backends: 7})
	first, _ := s.runner.picture(x.Name)
	if !strings.Contains(string(first), "7 backends") {
		t.Fatalf("it lacks the sample: %s", first)
	}
	if allocated := testing.AllocsPerRun(10, func() { s.runner.picture(x.Name) }); allocated > 1 {
		t.Errorf("a further viewer costs %.0f allocations", allocated)
	}
}

func TestTheNumberOfViewersIsLimited(t *testing.T) {
	s, x := running(t)
	server := httptest.NewServer(handler(s))
	defer server.Close()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	view := func() (status int, body io.Reader) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+Path+x.Name+"/live", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = resp.Body.Close() })
		return resp.StatusCode, resp.Body
	}
	for i := range maxViewers {
		if status, _ := view(); status != http.StatusOK {
			t.Fatalf("viewer %d: %d", i, status)
		}
	}
	status, body := view()
	if status != http.StatusServiceUnavailable {
		t.Fatalf("one more: %d", status)
	}
	if text, err := io.ReadAll(body); err != nil || !strings.Contains(string(text), "Load the page again") {
		t.Errorf("%v\n%s", err, text)
	}
}

func TestTheReportNamesTheServerOfTheRunsThatHadOne(t *testing.T) {
	failed, good := scene.NewResult(scenarios.All()[0]), scene.NewResult(scenarios.All()[1])
	failed.Error, good.Server = "HAProxy is not installed", "17.2"
	for want, results := range map[string][]*scene.Result{"get the same load, on PostgreSQL 17.2.": {failed, good}, "get the same load, on PostgreSQL.": {failed}} {
		var page strings.Builder
		if err := WriteReport(&page, results); err != nil || !strings.Contains(page.String(), want) {
			t.Errorf("without %q: %v", want, err)
		}
	}
}

func TestARunThatFailsKeepsTheEarlierResults(t *testing.T) {
	s, x := running(t)
	s.runner.jobs = nil
	good := scene.NewResult(x)
	good.Failure, good.Reproduced, good.Server = &scene.Outcome{Value: 8}, true, "17.2"
	good.Fix, good.Fixed = &scene.Outcome{}, true
	s.runner.keep(good)
	failed := scene.NewResult(x)
	failed.Error = "no PostgreSQL on this machine"
	s.runner.keep(failed)
	t.Run("with the error", func(t *testing.T) {
		now := s.runner.results()[x.Name]
		if now.OK() || now.Failure != good.Failure || now.Fix != good.Fix || now.Server != "17.2" {
			t.Errorf("%s: %+v", now.Verdict(), now)
		}
	})
	t.Run("and the page says so", func(t *testing.T) {
		page := httptest.NewRecorder()
		handler(s).ServeHTTP(page, httptest.NewRequestWithContext(t.Context(), http.MethodGet, Path+x.Name+"/", nil))
		for _, text := range []string{"could not be run: " + failed.Error, "The figures are those of the last run of each half that ended.", "on PostgreSQL 17.2"} {
			if !strings.Contains(page.Body.String(), text) {
				t.Errorf("%d, without %q:\n%s", page.Code, text, page.Body)
			}
		}
	})
	half := scene.NewResult(x)
	half.Fix, half.Fixed = &scene.Outcome{}, true
	s.runner.keep(half)
	t.Run("and the next run of one half completes them", func(t *testing.T) {
		if now := s.runner.results()[x.Name]; !now.OK() || now.Failure != good.Failure || now.Fix != half.Fix {
			t.Errorf("%s: %+v", now.Verdict(), now)
		}
	})
}
