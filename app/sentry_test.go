package app_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"ddtb/app/lab"
	"ddtb/app/report/envelope"
	"ddtb/config"
	"ddtb/db/dbtest"
)

const interaction = "/test/sentry-db-interaction"

// interact runs the experiment, whose answer has no field that lab.Sentry lacks.
func (s *site) interact(query string) (r lab.Sentry) {
	s.t.Helper()
	a := s.get(interaction+query, "Accept", "application/json")
	decoder := json.NewDecoder(strings.NewReader(a.body))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&r)
	want := http.StatusOK
	if r.Error != "" { // as an exception's in Django
		want = http.StatusInternalServerError
	}
	if err != nil || a.StatusCode != want || r.Test != "sentry-db-interaction" || r.Explanation == "" {
		s.t.Fatalf("%s: %s, %v\n%s", query, a.Status, err, a.body)
	}
	s.mustBeIdle()
	return r
}

// mustCapture looks at the three steps.
func mustCapture(t *testing.T, r lab.Sentry, took [3]int64, errs [3]string) {
	t.Helper()
	if len(r.Steps) != 3 {
		t.Fatalf("%+v", r)
	}
	for i, name := range []string{"capture while a lease is held", "capture in a transaction", "capture after a failed query"} {
		s := r.Steps[i]
		if s.Step != name || s.HoldsLease != (i < 2) || len(s.EventID) != 32 || s.ConnectionsTaken != took[i] || s.Error != errs[i] {
			t.Errorf("step %d: %+v", i, s)
		}
	}
	if sum := took[0] + took[1] + took[2]; r.ConnectionsTaken != sum {
		t.Errorf("%d connections taken by captures, want %d", r.ConnectionsTaken, sum)
	}
}

func TestNoCaptureNeedsAConnection(t *testing.T) {
	underEachStrategy(t, []promise{
		{"nor takes one from the application's strategy", func(t *testing.T, s *site) {
			for _, address := range []string{"", "/"} {
				r := s.interact(address)
				mustCapture(t, r, [3]int64{}, [3]string{})
				if r.Strategy != s.DB().Config().Strategy || r.Private || r.Hook != "none" || r.Transport != "async" || r.Error != "" ||
					r.DeliveryError != "" || !strings.Contains(r.Explanation, "No capture took a connection") {
					t.Errorf("%+v", r)
				}
			}
			if n := s.DB().Stat().Acquired; n != 6 {
				t.Errorf("%d leases for two runs of three steps", n)
			}
		}},
		{"nor from a private one", func(t *testing.T, s *site) {
			for _, strategy := range []string{"pool", "persistent", "per-request"} {
				before := s.DB().Stat().Acquired
				r := s.interact("?max_size=1&strategy=" + strategy)
				mustCapture(t, r, [3]int64{}, [3]string{})
				if !r.Private || r.Strategy != strategy || s.DB().Stat().Acquired != before {
					t.Errorf("%+v", r)
				}
			}
		}},
	})
}

func TestAHookThatQueriesDeadlocksASmallPool(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	control := dbtest.Control(t, s.cfg.Databases["default"])
	const words = "couldn't get a connection after 0.20 sec"
	for _, strategy := range []string{"pool", "persistent", "per-request"} {
		t.Run(strategy, func(t *testing.T) {
			s := s.in(t)
			r := s.interact("?hook=queries&max_size=1&timeout=200ms&strategy=" + strategy)
			mustCapture(t, r, [3]int64{0, 0, 1}, [3]string{words, words, ""}) // the last has given its lease back
			if r.Error != words || !r.Private || r.Hook != "queries" || !strings.Contains(r.Explanation, "deadlock") ||
				r.Steps[0].TookMS < 200 || r.Steps[0].LeaseHeldMS < r.Steps[0].TookMS {
				t.Errorf("%+v", r)
			}
			mustNameTheLines(t, s, r, strategy == "pool") // the others don't lease for each query
			r = s.interact("?hook=queries&max_size=2&timeout=10s&strategy=" + strategy)
			mustCapture(t, r, [3]int64{1, 1, 1}, [3]string{})
			if r.Error != "" || strings.Contains(r.Explanation, "deadlock") ||
				!strings.Contains(r.Explanation, "2 requests that fail at once on 2 connections") {
				t.Errorf("%+v", r)
			}
			dbtest.Eventually(t, "no private backend is left", func() bool {
				return dbtest.Backends(t, control, s.DB().Config().ApplicationName+"-stress/"+strategy) == 0
			})
		})
	}
	if r := s.interact("?hook=queries&timeout=1ms"); r.Settings["max_size"] != 1.0 || !r.Private {
		t.Errorf("by default: %+v", r)
	}
	if n := s.DB().Stat().Acquired; n != 0 {
		t.Errorf("the application's strategy gave out %d leases", n)
	}
}

// mustNameTheLines looks for who holds and who asks, in the answer and in the log.
func mustNameTheLines(t *testing.T, s *site, r lab.Sentry, noticed bool) {
	t.Helper()
	if !noticed {
		if r.NestedAcquires != 0 || len(r.Nested) != 0 {
			t.Errorf("%+v", r)
		}
		return
	}
	if r.NestedAcquires != 2 || len(r.Nested) != 2 {
		t.Fatalf("%+v", r)
	}
	for i, holder := range []string{"whileHolding", "inTransaction"} {
		n := r.Nested[i]
		if !strings.Contains(n.First, "sentry.go:") || !strings.Contains(n.First, holder) || !strings.Contains(n.Second, "sentry.go:") ||
			!strings.Contains(n.Second, "(*sentryRun).query") || !strings.Contains(r.Explanation, n.First) || !strings.Contains(r.Explanation, n.Second) {
			t.Errorf("%+v", r)
		}
		if s.log.Count("level=WARN", "asks for a second one", n.First, n.Second) != 1 {
			t.Errorf("the log does not tell:\n%s", s.log)
		}
	}
}

func TestASynchronousTransportHoldsTheLeaseWhileSentryAnswers(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	r := s.interact("?transport=sync&delay=300ms")
	mustCapture(t, r, [3]int64{}, [3]string{})
	for i, step := range r.Steps {
		if step.TookMS < 300 || (step.LeaseHeldMS >= step.TookMS) != step.HoldsLease {
			t.Errorf("step %d: %+v", i, step)
		}
	}
	if r.Transport != "sync" || !r.Private || r.DeliveryError != "" || !strings.Contains(r.SentTo, "answers after 300ms") ||
		!strings.Contains(r.Explanation, "the lease was out for") {
		t.Errorf("%+v", r)
	}
	r = s.interact("?transport=async&delay=1s") // of which no capture waits for any
	mustCapture(t, r, [3]int64{}, [3]string{})
	for i, step := range r.Steps {
		if step.TookMS >= 1000 || step.LeaseHeldMS >= 1000 {
			t.Errorf("step %d: %+v", i, step)
		}
	}
	if r.Transport != "async" || r.DeliveryError != "" || strings.Contains(r.Explanation, "synchronous") {
		t.Errorf("%+v", r)
	}
}

func TestASentryThatHangsIsNotWaitedForLongerThanTheLimits(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *config.Config) { c.Test.MaxHold = 900 * time.Millisecond })
	r := s.interact("?transport=sync&delay=900ms")
	if r.DeliveryError == "" || r.Steps[0].TookMS < 300 || r.Steps[0].TookMS >= 900 {
		t.Errorf("%+v", r)
	}
}

func TestEventsOfTheExperimentGoToTheSentryThatIsConfigured(t *testing.T) {
	t.Parallel()
	sink := &envelope.Sink{}
	server := httptest.NewServer(sink)
	t.Cleanup(server.Close)
	s := newSite(t, func(c *config.Config) {
		c.Sentry.DSN = config.Secret(strings.Replace(server.URL, "://", "://thekey@", 1) + "/7")
	})
	r := s.interact("?transport=sync")
	if events := sink.Items("event"); len(events) != 3 || !strings.Contains(r.SentTo, "configured") {
		t.Errorf("%d events came, of %+v", len(events), r)
	}
	s.interact("?delay=1ms")
	if n := len(sink.Items("event")); n != 3 {
		t.Errorf("%d events: a Sentry that takes its time is not the configured one", n)
	}
	a := s.get("/error/", "Accept", "text/html")
	mustContain(t, a, 500, "Something went wrong on our side")
	dbtest.Eventually(t, "Sentry has the event of /error/", func() bool {
		events := sink.Items("event")
		return len(events) == 4 && strings.Contains(string(events[3].Payload), "fails on purpose")
	})
}

func TestErrorFailsAsABugDoes(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	a := s.get("/error/", "Accept", "text/html")
	mustContain(t, a, 500, "Something went wrong on our side")
	if strings.Contains(a.body, "on purpose") || a.header("Content-Type") != htmlType {
		t.Errorf("%v\n%s", a.Header, a.body)
	}
	if lines := s.log.Lines("level=ERROR"); len(lines) != 1 || !strings.Contains(lines[0], "path=/error/") ||
		!strings.Contains(lines[0], "request_id="+a.header("X-Request-Id")) || !strings.Contains(lines[0], "fails on purpose") {
		t.Errorf("the log: %q", lines)
	}
	mustContain(t, s.get("/error/", "Accept", "application/json"), 500, `"status":500`)
	mustContain(t, s.post("/error/", nil), 405)
}

func TestTheSentryExperimentAndTheErrorAreThereOnlyWhenTurnedOn(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *config.Config) { c.Test.Enabled = false })
	for _, path := range []string{interaction, interaction + "/", "/error/"} {
		mustContain(t, s.get(path), 404, "The test endpoints are off.")
	}
	if lines := s.log.Lines("level=ERROR"); len(lines) != 0 {
		t.Error(lines)
	}
}

func TestAParameterOfTheSentryExperimentThatCanNotBeReadIsNamed(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	for query, words := range map[string]string{
		"hook=x": "none, queries", "transport=x": "async, sync", "hook=none&hook=none": "give it once",
		"hook=queries&max_size=4": "from 1 to 3", "max_size=0": "from 1 to 3",
		"timeout=0": "from 1ms to 20s", "timeout=21s": "from 1ms to 20s", "delay=61s": "from 0s to 1m0s", "delay=-1s": "from 0s to 1m0s",
		"strategy=x": "multiplex, per-request, persistent, pool", "threads=3": "There is no parameter",
	} {
		mustContain(t, s.get(interaction+"?"+query), 400, words)
	}
	if n := s.DB().Stat().Acquired; n != 0 {
		t.Errorf("something ran: %d leases", n)
	}
}

func TestTheSentryExperimentEndsWithItsClientAndLeavesNothing(t *testing.T) {
	dbtest.NoLeaks(t)
	s := newSite(t, nil)
	s.interact("?transport=sync&delay=1ms&hook=queries&timeout=1s")
	ctx, leave := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := s.send(ctx, fresh, http.MethodGet, interaction+"?hook=queries&timeout=20s", nil)
		done <- err
	}()
	control := dbtest.Control(t, s.cfg.Databases["default"])
	private := s.DB().Config().ApplicationName + "-stress/pool"
	dbtest.Eventually(t, "it holds its lease", func() bool { return dbtest.Backends(t, control, private) == 1 })
	mustContain(t, s.get(interaction), 409, "under way")
	leave()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	dbtest.Eventually(t, "its lease is back", func() bool { return dbtest.Backends(t, control, private) == 0 })
	dbtest.Eventually(t, "the turn is free", func() bool { return s.get(interaction).StatusCode == http.StatusOK })
}

func TestTheTestsAnswerWithTheStatusOfTheirOriginals(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	for path, want := range map[string]int{ // there an exception of the view is 500, and one of a thread or an attempt is a line
		"/error/": 500,
		"/test/pool-stress?threads=2&strategy=pool&max_size=1&timeout=10ms": 200,
		"/test/connection-leak?count=11&timeout=10ms&reclaim=200ms":         200,
		interaction: 200,
		interaction + "?hook=queries&max_size=1&timeout=10ms": 500,
	} {
		t.Run(path, func(t *testing.T) {
			if a := s.in(t).get(path, "Accept", "application/json"); a.StatusCode != want {
				t.Errorf("%s\n%s", a.Status, a.body)
			}
		})
	}
}
