package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"

	"ddtb/db"
	"ddtb/db/activity"
	"ddtb/db/dbtest"
)

func TestMain(m *testing.M) { dbtest.Run(m) }

// told returns the metrics of a snapshot.
func told(t *testing.T, s activity.Snapshot) string {
	t.Helper()
	m := New("test")
	m.registry.MustRegister(collector(func(out chan<- prometheus.Metric) { sendSnapshot(out, s) }))
	return scrape(t, m)
}

func scrape(t testing.TB, m *Metrics) string {
	t.Helper()
	return scrapeBy(t, m.Handler(slog.New(slog.NewTextHandler(t.Output(), nil))))
}

func scrapeBy(t testing.TB, handler echo.HandlerFunc) string {
	t.Helper()
	answer := httptest.NewRecorder()
	c := echo.New().NewContext(httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil), answer)
	if err := handler(c); err != nil || answer.Code != http.StatusOK {
		t.Errorf("%v, %d\n%s", err, answer.Code, answer.Body)
	}
	return answer.Body.String()
}

func mustHave(t *testing.T, text string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("%q is not in\n%s", line, text)
		}
	}
}

func TestTenThousandApplicationsAreTwentyAndTheOthers(t *testing.T) {
	var s activity.Snapshot
	add := func(n int, application string) {
		for range n {
			s.Sessions = append(s.Sessions, activity.Session{Kind: activity.ClientBackend, State: activity.Idle, Application: application})
		}
	}
	add(50, "shop")
	add(40, "")
	add(30, "other")
	add(20, "evil\"} 1\nddtb_slots_used 7\xff\\")
	for i := range 10_000 {
		add(1, fmt.Sprintf("hostile-%d", i))
	}
	text := told(t, s)
	if n := strings.Count(text, "\nddtb_application_sessions{"); n != 20 {
		t.Errorf("%d series", n)
	}
	// 4 names and 16 of the hostile are exported; the 9984 others are counted with the one of their name.
	mustHave(t, text, `ddtb_application_sessions{application="shop"} 50`, `ddtb_application_sessions{application="unnamed"} 40`,
		`ddtb_application_sessions{application="other"} 10014`, `ddtb_application_sessions{application="evil\"} 1\nddtb_slots_used 7?\\"} 20`,
		`ddtb_sessions{state="idle"} 10140`)
	if strings.Contains(text, "\nddtb_slots_used 7") {
		t.Error("an application made up a series")
	}
}

func TestAnEmptyStateIsAlsoExported(t *testing.T) {
	mustHave(t, told(t, activity.Snapshot{Sessions: []activity.Session{{Kind: activity.ClientBackend, Hidden: true}, {Kind: "walsender"}}}),
		`ddtb_sessions{state="active"} 0`, `ddtb_sessions{state="idle"} 0`, `ddtb_sessions{state="idle in transaction"} 0`,
		`ddtb_sessions{state="idle in transaction (aborted)"} 0`, `ddtb_sessions{state="not visible"} 1`,
		`ddtb_oldest_idle_in_transaction_seconds 0`, `ddtb_sessions_waiting_for_lock 0`)
}

func TestFailuresAreCountedByCause(t *testing.T) {
	m := New("test")
	for _, c := range db.Causes {
		m.Failed(fmt.Errorf("latest polls: %w", &db.ConnError{Cause: c.Cause}))
	}
	m.Failed(errors.New("a bug"))
	m.Failed(errors.New("another"))
	m.Failed(fmt.Errorf("vote: %w", &pgconn.PgError{Code: "53100"}))
	m.Failed(fmt.Errorf("watch: %w", context.DeadlineExceeded))
	text := scrape(t, m)
	mustHave(t, text, `ddtb_failures_total{cause="disk full"} 1`, `ddtb_failures_total{cause="deadline exceeded"} 1`,
		`ddtb_failures_total{cause="lock timeout"} 0`)
	for _, c := range db.Causes {
		mustHave(t, text, fmt.Sprintf("ddtb_failures_total{cause=%q} 1", c.Cause))
	}
	mustHave(t, text, `ddtb_failures_total{cause="internal error"} 2`)
}

func TestTheEndOfAnAcquireIsCountedByCause(t *testing.T) {
	m := New("test")
	for _, err := range []error{
		nil, nil, &db.ConnError{Cause: db.PoolTimeout}, &db.ConnError{Cause: db.ServerUnavailable, Err: context.DeadlineExceeded},
		fmt.Errorf("gave up: %w", context.Canceled), fmt.Errorf("gave up: %w", context.DeadlineExceeded), errors.New("?"),
	} {
		m.Acquires().Ended("pool", time.Millisecond, err)
	}
	mustHave(t, scrape(t, m), `pgxpool_acquire_count{strategy="pool"} 2`, `pgxpool_canceled_acquire_count{strategy="pool"} 3`,
		`ddtb_acquire_seconds_count{strategy="pool"} 7`, `ddtb_acquire_failures_total{cause="pool timeout",strategy="pool"} 1`,
		`ddtb_acquire_failures_total{cause="server unavailable",strategy="pool"} 1`, `ddtb_acquire_failures_total{cause="gave up",strategy="pool"} 2`,
		`ddtb_acquire_failures_total{cause="internal error",strategy="pool"} 1`)
}

func TestAnAcquireOfAnUnknownStrategyOrCauseIsCountedToo(t *testing.T) {
	m := New("test")
	for _, err := range []error{nil, &db.ConnError{Cause: db.QueueFull}, &db.ConnError{Cause: "of tomorrow"}} {
		m.Acquires().Ended("new", time.Millisecond, err)
	}
	mustHave(t, scrape(t, m), `pgxpool_acquire_count{strategy="new"} 1`, `ddtb_acquire_failures_total{cause="queue full",strategy="new"} 1`,
		`ddtb_acquire_failures_total{cause="of tomorrow",strategy="new"} 1`)
}

func TestTheServerIsReportedAsSoonAsItIsSeen(t *testing.T) {
	o, err := activity.NewObserver(dbtest.Config(t))
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	s := activity.StartSampler(o, 1, func() activity.Thresholds { return activity.Thresholds{} })
	defer s.Stop()
	m := New("test")
	m.FollowServer(s)
	dbtest.Eventually(t, "it has seen the server", func() bool { return strings.Contains(scrape(t, m), "\nddtb_monitor_up 1\n") })
}

func TestScrapesThatWaitShareARenderingThatBeginsAfterThem(t *testing.T) {
	m := New("test")
	var renderings, asked atomic.Int64
	m.registry.MustRegister(collector(func(out chan<- prometheus.Metric) {
		renderings.Add(1)
		d := prometheus.NewDesc("asked", "Scrapes so far.", nil, nil)
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(asked.Load()))
	}))
	handler := m.Handler(slog.New(slog.NewTextHandler(t.Output(), nil)))
	began := time.Now()
	var crowd sync.WaitGroup
	for range 500 {
		crowd.Go(func() {
			mine := asked.Add(1)
			_, figure, _ := strings.Cut(scrapeBy(t, handler), "\nasked ")
			figure, _, _ = strings.Cut(figure, "\n")
			if n, err := strconv.ParseInt(figure, 10, 64); err != nil || n < mine {
				t.Errorf("the figure is %q, and it was scrape %d", figure, mine)
			}
		})
	}
	crowd.Wait()
	if n, most := renderings.Load(), 2+int64(time.Since(began)/renderEvery); n > most || n > 250 {
		t.Errorf("%d renderings for 500 scrapes, want at most %d", n, most)
	}
}

func BenchmarkRequest(b *testing.B) {
	m := New("test")
	for name, handler := range map[string]echo.HandlerFunc{
		"alone":   func(echo.Context) error { return nil },
		"counted": func(c echo.Context) error { m.Answered(c, c.Path(), http.StatusOK, time.Millisecond); return nil },
	} {
		b.Run(name, func(b *testing.B) {
			e := echo.New()
			e.GET("/polls/", handler)
			w, r := httptest.NewRecorder(), httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/polls/", nil)
			b.ReportAllocs()
			for b.Loop() {
				e.ServeHTTP(w, r)
			}
		})
	}
}

func BenchmarkAcquire(b *testing.B) {
	for name, count := range map[string]func(string, time.Duration, error){"alone": nil, "counted": New("test").Acquires().Ended} {
		b.Run(name, func(b *testing.B) {
			cfg := dbtest.Config(b)
			d, err := db.OpenWith(cfg, db.Options{OnAcquire: count})
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = d.Close(context.Background()) }()
			b.ReportAllocs()
			for b.Loop() {
				l, err := d.Acquire(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				l.Release()
			}
		})
	}
}

func TestAStreamIsCountedAndNotTimed(t *testing.T) {
	m := New("test")
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/live", nil)
	c := echo.New().NewContext(r, httptest.NewRecorder())
	c.Response().Header().Set(echo.HeaderContentType, stream)
	m.Answered(c, "/live", http.StatusOK, time.Hour)
	text := scrape(t, m)
	mustHave(t, text, `http_requests_total{code="200",method="GET",route="/live"} 1`)
	if strings.Contains(text, "http_request_duration_seconds") {
		t.Errorf("it was timed:\n%s", text)
	}
}
