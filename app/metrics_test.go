package app_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

// series are the values of /metrics, by name and labels as they are written there.
type series map[string]float64

func (s *site) metrics() series {
	s.t.Helper()
	a := s.get("/metrics")
	mustContain(s.t, a, http.StatusOK, "ddtb_build_info")
	all := series{}
	for line := range strings.Lines(a.body) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		i := strings.LastIndexByte(line, ' ')
		value, err := strconv.ParseFloat(strings.TrimSpace(line[i+1:]), 64)
		if err != nil {
			s.t.Fatalf("%q: %v", line, err)
		}
		all[line[:i]] = value
	}
	return all
}

func (m series) must(t testing.TB, name string, want float64) {
	t.Helper()
	if got, there := m[name]; !there || got != want {
		t.Errorf("%s is %v (there: %v), want %v", name, got, there, want)
	}
}

// eventually waits until a scrape says so.
func (s *site) eventually(name string, ok func(float64) bool) {
	s.t.Helper()
	dbtest.Eventually(s.t, name, func() bool {
		value, there := s.metrics()[name]
		return there && ok(value)
	})
}

func is(want float64) func(float64) bool { return func(got float64) bool { return got == want } }

func TestMetricsCountEachRequestByItsPattern(t *testing.T) {
	underEachStrategy(t, []promise{{"once, with the code that the client got", func(t *testing.T, s *site) {
		for range 3 {
			s.get("/polls/1/")
		}
		s.get("/polls/99999/")
		s.get("/polls")
		s.get("/nothing")
		s.do(http.MethodHead, "/polls/", nil)
		s.post("/polls/1/results/", nil)
		s.get("/error/")
		m := s.metrics()
		for labels, want := range map[string]float64{
			`code="200",method="GET",route="/polls/:id/"`: 3, `code="404",method="GET",route="/polls/:id/"`: 1,
			`code="301",method="GET",route="/polls"`: 1, `code="404",method="GET",route="other"`: 1,
			`code="200",method="HEAD",route="/polls/"`: 1, `code="405",method="POST",route="/polls/:id/results/"`: 1,
			`code="500",method="GET",route="/error/"`: 1,
		} {
			m.must(t, "http_requests_total{"+labels+"}", want)
		}
		m.must(t, `http_request_duration_seconds_count{method="GET",route="/polls/:id/"}`, 4)
		m.must(t, `ddtb_failures_total{cause="internal error"}`, 1)
		strategy := fmt.Sprintf("{strategy=%q}", s.DB().Config().Strategy)
		stat := s.DB().Stat()
		m.must(t, "pgxpool_acquire_count"+strategy, float64(stat.Acquired))
		m.must(t, "ddtb_acquire_seconds_count"+strategy, float64(stat.Acquired))
		m.must(t, "ddtb_connects_total"+strategy, float64(stat.Connects))
		m.must(t, "pgxpool_new_conns_count"+strategy, float64(stat.Connected))
		for _, none := range []string{"constructing_conns", "max_lifetime_destroy_count", "max_idle_destroy_count"} {
			m.must(t, "pgxpool_"+none+strategy, 0)
		}
		if size, there := m["pgxpool_max_conns"+strategy]; there != (stat.Size > 0) || size != float64(stat.Size) {
			t.Errorf("pgxpool_max_conns is %v (there: %v) for a bound of %d", size, there, stat.Size)
		}
	}}})
}

func TestNothingThatAClientMakesUpIsASeries(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	h := s.Handler()
	ask := func(method, path string, i int) {
		r := httptest.NewRequestWithContext(t.Context(), method, path, nil)
		r.Host = fmt.Sprintf("host-%d.example", i)
		r.Header.Set("User-Agent", fmt.Sprintf("agent-%d", i))
		r.Header.Set("X-Request-Id", fmt.Sprintf("id-%d", i))
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
	hostile := func(from, to int) {
		for i := from; i < to; i++ {
			ask(http.MethodGet, fmt.Sprintf("/x%d/%%22%%0a%%ff?q=%d", i, i), i)
			ask(http.MethodGet, fmt.Sprintf("/polls/x%d/", i), i)
			ask(http.MethodGet, fmt.Sprintf("/static/x%d", i), i)
			ask(fmt.Sprintf("METHOD%d", i), "/polls/", i)
		}
	}
	hostile(0, 10)
	s.eventually("ddtb_monitor_up", is(1)) // and with it the server's figures; each asking is a request too
	ours := func(m series) (n int) {
		for name := range m {
			if !strings.Contains(name, "sessions{") { // those of the server are other tests' too
				n++
			}
		}
		return n
	}
	before := ours(s.metrics())
	hostile(10, 10_000)
	m := s.metrics()
	if n := ours(m); n != before {
		t.Errorf("%d series became %d", before, n)
	}
	for name := range m {
		if strings.Contains(name, "x99") || strings.Contains(name, "METHOD") || strings.Contains(name, "host-") {
			t.Errorf("%s is what a client made up", name)
		}
	}
	m.must(t, `http_requests_total{code="404",method="GET",route="other"}`, 10_000)
	m.must(t, `http_requests_total{code="405",method="other",route="/polls/"}`, 10_000)
	m.must(t, `http_requests_total{code="404",method="GET",route="/polls/:id/"}`, 10_000)
}

func TestMetricsAnswerWhileEverySlotIsTaken(t *testing.T) {
	t.Parallel()
	server := dbtest.NewServer(t, dbtest.Options{MaxConnections: smallSlots})
	s, control := smallSite(t, server, persistent)
	_, failed := s.oneByOne(2 * smallSlots)
	s.eventually("ddtb_slots_used", is(smallSlots-3))
	m := s.metrics()
	m.must(t, "ddtb_slots_max", smallSlots)
	m.must(t, "ddtb_slots_reserved", 3)
	m.must(t, "ddtb_slots_usable", smallSlots-3)
	m.must(t, "ddtb_monitor_up", 1)
	m.must(t, `ddtb_application_sessions{application="ddtb/persistent"}`, smallFree)
	m.must(t, `ddtb_failures_total{cause="slots exhausted"}`, float64(len(failed)))
	m.must(t, `ddtb_acquire_failures_total{cause="slots exhausted",strategy="persistent"}`, float64(len(failed)))
	m.must(t, `pgxpool_idle_conns{strategy="persistent"}`, smallFree)
	if n := dbtest.Backends(t, control, "ddtb/monitor"); n != 1 || len(failed) == 0 {
		t.Errorf("%d backends look, %d requests failed", n, len(failed))
	}
}

func TestMetricsReportThatTheServerCanNotBePolled(t *testing.T) {
	t.Parallel()
	server := dbtest.NewServer(t, dbtest.Options{})
	s := siteOn(t, server.Config(t), func(c *config.Config) { c.Monitor.Interval = 100 * time.Millisecond })
	s.eventually("ddtb_monitor_up", is(1))
	server.Stop(t, "immediate")
	s.eventually("ddtb_monitor_up", is(0))
	s.eventually("ddtb_monitor_age_seconds", func(age float64) bool { return age > 0.5 })
	if _, there := s.metrics()["ddtb_slots_used"]; there {
		t.Error("a figure of a server that can't be seen")
	}
	if r := s.ready(); r.Ready || r.Cause != db.ServerUnavailable {
		t.Errorf("/readyz: %+v", r)
	}
	server.Start(t)
	s.eventually("ddtb_monitor_up", is(1))
	s.eventually("ddtb_monitor_age_seconds", func(age float64) bool { return age < 0.5 })
}

func TestMetricsCountSessionsByWhatTheyDo(t *testing.T) {
	t.Parallel()
	s := siteOn(t, dbtest.Config(t), func(c *config.Config) { c.Monitor.Interval = 100 * time.Millisecond })
	dbtest.Control(t, s.cfg.Databases["default"]) // a superuser's, of which the application's role sees little
	cc, err := db.ConnConfig(s.cfg.Databases["default"], "idle")
	if err != nil {
		t.Fatal(err)
	}
	idle, err := db.Connect(t.Context(), cc)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = idle.Close(context.Background()) }()
	if _, err := idle.Exec(t.Context(), `SET application_name = 'say "hi"\'; BEGIN`); err != nil {
		t.Fatal(err)
	}
	s.eventually("ddtb_oldest_idle_in_transaction_seconds", func(age float64) bool { return age > 0.5 })
	s.eventually(`ddtb_application_sessions{application="say \"hi\"\\"}`, is(1))
	for _, state := range []string{"idle in transaction", "not visible"} {
		if n := s.metrics()[fmt.Sprintf("ddtb_sessions{state=%q}", state)]; n < 1 {
			t.Errorf("%v sessions are %s", n, state)
		}
	}
	if _, err := idle.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	s.eventually("ddtb_oldest_idle_in_transaction_seconds", func(age float64) bool { return age < 0.5 })
}

func TestMetricsCountWaitsLeaksAndRefusals(t *testing.T) {
	t.Parallel()
	s := siteOn(t, dbtest.Config(t), func(c *config.Config) {
		setDatabase(c, func(d *config.Database) {
			d.Pool.MaxSize, d.Pool.MaxWaiting, d.Pool.Timeout = 1, 1, time.Minute
			d.Pool.LeakAfter, d.Pool.ReclaimAfter = 100*time.Millisecond, 0
		})
	})
	lease, err := s.DB().Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	waiter, give := context.WithCancel(t.Context())
	waits := make(chan error, 1)
	go func() {
		_, err := s.DB().Acquire(waiter)
		waits <- err
	}()
	s.eventually(`ddtb_waiting_requests{strategy="pool"}`, is(1))
	s.eventually(`ddtb_oldest_wait_seconds{strategy="pool"}`, func(wait float64) bool { return wait > 0 })
	a := s.get("/polls/", "Accept", "application/json")
	mustContain(t, a, http.StatusServiceUnavailable, "queue full")
	s.eventually(`ddtb_leaked_leases_total{strategy="pool"}`, is(1))
	give()
	if err := <-waits; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	m := s.metrics()
	m.must(t, `pgxpool_acquired_conns{strategy="pool"}`, 1)
	m.must(t, `pgxpool_canceled_acquire_count{strategy="pool"}`, 1)
	m.must(t, `ddtb_acquire_failures_total{cause="gave up",strategy="pool"}`, 1)
	m.must(t, `ddtb_acquire_failures_total{cause="queue full",strategy="pool"}`, 1)
	m.must(t, `ddtb_failures_total{cause="queue full"}`, 1)
	lease.Release()
	s.get("/polls/")
	s.metrics().must(t, `ddtb_acquire_seconds_count{strategy="pool"}`, 4)
}

func TestACounterNeverGoesBackwards(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *config.Config) { setDatabase(c, pool) })
	before, asked := s.metrics(), 0.0
	for i, set := range []func(*config.Database){
		perRequest, pool, func(c *config.Database) { pool(c); c.Pool.MaxSize = 7 }, persistent, pool, perRequest,
	} {
		for range 3 - i%3 { // fewer under the second than under the first
			mustContain(t, s.get("/polls/"), http.StatusOK, "poll")
			asked++
		}
		if i%2 == 0 { // also without a scrape in between
			before = s.mustNotGoBackwards(before)
		}
		s.reconfigure(set)
		before = s.mustNotGoBackwards(before)
	}
	var acquired, connects, backends float64
	for _, strategy := range []string{"pool", "persistent", "per-request"} {
		acquired += before[fmt.Sprintf("pgxpool_acquire_count{strategy=%q}", strategy)]
		connects += before[fmt.Sprintf("ddtb_connects_total{strategy=%q}", strategy)]
		backends += before[fmt.Sprintf("pgxpool_new_conns_count{strategy=%q}", strategy)]
	}
	if acquired != asked || connects != backends || connects < 6 {
		t.Errorf("%v leases for %v requests, %v of %v attempts to connect succeeded", acquired, asked, backends, connects)
	}
}

func (s *site) mustNotGoBackwards(before series) series {
	s.t.Helper()
	now := s.metrics()
	for name, was := range before {
		family, _, _ := strings.Cut(name, "{")
		counter := strings.HasSuffix(family, "_total") || strings.HasSuffix(family, "_count") || strings.HasSuffix(family, "_ns") ||
			strings.HasSuffix(family, "_bucket") || family == "pgxpool_empty_acquire"
		if value, there := now[name]; counter && (!there || value < was) {
			s.t.Errorf("%s was %v, and is %v (there: %v)", name, was, value, there)
		}
	}
	return now
}

func TestMetricsDistinguishACutAnswerFromAClientThatLeft(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	s.AddPage("/begins", func(c echo.Context) error {
		if err := c.String(http.StatusOK, strings.Repeat("half", 10_000)); err != nil {
			return err
		}
		return errors.New("the other half is missing")
	})
	entered := make(chan struct{})
	s.AddPage("/waits", func(c echo.Context) error {
		close(entered)
		<-c.Request().Context().Done()
		return c.Request().Context().Err()
	})
	if _, err := s.send(t.Context(), fresh, http.MethodGet, "/begins", nil); err == nil {
		t.Error("the cut answer looks whole")
	}
	s.eventually(`http_requests_total{code="500",method="GET",route="/begins"}`, is(1))
	ctx, leave := context.WithCancel(t.Context())
	go func() {
		<-entered
		leave()
	}()
	if _, err := s.send(ctx, fresh, http.MethodGet, "/waits", nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	s.eventually(`http_requests_total{code="499",method="GET",route="/waits"}`, is(1))
	s.metrics().must(t, `ddtb_failures_total{cause="internal error"}`, 1)
}

func TestNoSecretIsInTheMetricsAndMailsAreCounted(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *config.Config) {
		c.Sentry.DSN, c.Sentry.TracesSampleRate = "http://sentry-key@127.0.0.1:1/7", 1
		c.Tracing.Endpoint, c.Tracing.Headers = "http://127.0.0.1:1", "api-key=tracing-key"
		c.Mail.Backend, c.Mail.Dir, c.Mail.Admins, c.Mail.Password = "file", t.TempDir(), []string{"ops@example.org"}, "mail-key"
	})
	for range 3 {
		s.get("/error/?token=query-key", "Authorization", "Bearer header-key", "Cookie", "session=cookie-key")
	}
	s.eventually(`ddtb_mails_total{outcome="sent"}`, is(1))
	s.eventually("ddtb_suppressed_notices_total", is(2))
	s.metrics().must(t, "ddtb_sentry_events_total", 1)
	body := s.get("/metrics").body
	for _, secret := range []string{
		"sentry-key", "tracing-key", "mail-key", "query-key", "header-key", "cookie-key", s.cfg.Databases["default"].Password.Reveal(),
		"ops@example.org", os.TempDir(),
	} {
		if strings.Contains(body, secret) {
			t.Errorf("%q is in the metrics", secret)
		}
	}
	s.expectCut = true // Sentry and the collector are not there
}
