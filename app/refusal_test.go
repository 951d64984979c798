package app_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

// BenchmarkRefusal measures the time to the error page of a request that is refused at once, next to a bare handler
// that sends the same bytes. The two take turns. The goal is less than 10 ms.
func BenchmarkRefusal(b *testing.B) {
	b.Run("circuit open", func(b *testing.B) {
		s := siteOn(b, nobodyListens(b), nil)
		dbtest.Eventually(b, "the circuit is open", func() bool { return strings.Contains(s.get("/polls/").body, string(db.CircuitOpen)) })
		compareRefusal(b, s, db.CircuitOpen)
	})
	b.Run("queue full", func(b *testing.B) {
		s := siteOn(b, dbtest.Config(b), func(c *config.Config) {
			setDatabase(c, func(d *config.Database) {
				pool(d)
				d.Pool.MaxSize, d.Pool.MaxWaiting, d.Pool.Timeout = 1, 1, 10*time.Minute
			})
		})
		lease, err := s.DB().Acquire(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		waiter := s.atOnce(1)
		dbtest.Eventually(b, "the queue is full", func() bool { return s.DB().Stat().Waiting == 1 })
		compareRefusal(b, s, db.QueueFull)
		lease.Release()
		<-waiter
	})
}

// nobodyListens returns a database whose address refuses connections.
func nobodyListens(tb testing.TB) config.Database {
	tb.Helper()
	cfg := dbtest.Config(tb)
	cfg.Host, cfg.Port = "127.0.0.1", closedPort(tb)
	return cfg
}

func closedPort(tb testing.TB) int {
	tb.Helper()
	l := listen(tb)
	if err := l.Close(); err != nil {
		tb.Fatal(err)
	}
	return l.Addr().(*net.TCPAddr).Port
}

func listen(tb testing.TB) net.Listener {
	tb.Helper()
	l, err := (&net.ListenConfig{}).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

// compareRefusal reports the application's time and the floor's.
func compareRefusal(b *testing.B, s *site, cause db.Cause) {
	page := s.get("/polls/", "Accept", "text/html")
	mustContain(b, page, 503, string(cause))
	floor := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", htmlType)
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, page.body)
	}))
	defer floor.Close()
	client := newClient()
	defer client.CloseIdleConnections()
	var app, bare []time.Duration
	for b.Loop() {
		app = append(app, timed(b, client, s.url+"/polls/", http.StatusServiceUnavailable))
		bare = append(bare, timed(b, client, floor.URL, http.StatusServiceUnavailable))
	}
	slices.Sort(app)
	slices.Sort(bare)
	b.ReportMetric(float64(app[len(app)/2].Nanoseconds()), "ns-refused")
	b.ReportMetric(float64(app[len(app)*99/100].Nanoseconds()), "ns-refused-p99")
	b.ReportMetric(float64(bare[len(bare)/2].Nanoseconds()), "ns-floor")
	b.ReportMetric(float64(bare[len(bare)*99/100].Nanoseconds()), "ns-floor-p99")
	b.ReportMetric(0, "ns/op")
}

// timed sends one request, and returns its duration.
func timed(b *testing.B, client *http.Client, url string, status int) time.Duration {
	req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, url, nil)
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Accept", "text/html")
	began := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != status {
		b.Fatal(resp.Status, err)
	}
	took := time.Since(began)
	_ = resp.Body.Close()
	return took
}

// BenchmarkFailure measures a failing request from its client's side: without reports, with a Sentry and a mail server
// that respond, with servers that accept the connection and never respond, and with servers that refuse it. They take
// turns. The goal is that servers that hang or refuse cost no more than servers that respond.
func BenchmarkFailure(b *testing.B) {
	answering, _, _ := withListeners(b)
	sites := []struct {
		name string
		set  func(*config.Config)
		site *site
		took []time.Duration
	}{
		{name: "answering", set: answering},
		{name: "hung", set: tellTo(keepsSilent(b))},
		{name: "refused", set: tellTo(closedPort(b))},
		{name: "told-to-nobody", set: func(*config.Config) {}},
	}
	database := dbtest.Config(b)
	for i := range sites {
		s := &sites[i]
		s.site = siteOn(b, database, func(c *config.Config) {
			c.Server.ShutdownTimeout = 100 * time.Millisecond // does not wait for reports that can't be sent
			s.set(c)
		})
		s.site.expectCut = true
	}
	client := newClient()
	defer client.CloseIdleConnections()
	for b.Loop() {
		for i := range sites {
			sites[i].took = append(sites[i].took, timed(b, client, sites[i].site.url+"/error/", http.StatusInternalServerError))
		}
	}
	floor := 0.0
	for i := range sites {
		s := &sites[i]
		slices.Sort(s.took)
		median := float64(s.took[len(s.took)/2].Nanoseconds())
		if i == 0 {
			floor = median
		} else {
			b.ReportMetric(median/floor, "x-"+s.name)
		}
		b.ReportMetric(median, "ns-"+s.name)
		b.ReportMetric(float64(s.took[len(s.took)*99/100].Nanoseconds()), "ns-"+s.name+"-p99")
	}
	b.ReportMetric(0, "ns/op")
}

// tellTo sends events and mails to the port.
func tellTo(port int) func(*config.Config) {
	return func(c *config.Config) {
		c.Sentry.DSN = config.Secret(fmt.Sprintf("http://key@127.0.0.1:%d/7", port))
		c.Mail.Backend, c.Mail.Host, c.Mail.Port, c.Mail.TLS = "smtp", "127.0.0.1", port, "none"
		c.Mail.Admins = []string{"ops@example.org"}
	}
}

// keepsSilent is a server that accepts every connection and never responds.
func keepsSilent(tb testing.TB) (port int) {
	tb.Helper()
	l := listen(tb)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer func() { _ = c.Close() }()
		}
	}()
	tb.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().(*net.TCPAddr).Port
}
