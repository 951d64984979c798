package app_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"ddtb/config"
	"ddtb/db/dbtest"
)

// connect is a client that asked for one page, and stays. It is a bare connection, so that it is no goroutine here.
func (s *site) connect(path string) net.Conn {
	s.t.Helper()
	var d net.Dialer
	c, err := d.DialContext(s.t.Context(), "tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: test\r\n\r\n", path); err != nil {
		s.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		s.t.Fatal(resp.Status, err)
	}
	_ = resp.Body.Close()
	return c
}

// Not in parallel: goroutines are counted.
func TestAThousandIdleClientsCostAGoroutineEachAndNoConnection(t *testing.T) {
	const clients = 1000
	for _, strategy := range strategies {
		if strategy.name == "persistent" { // whose fault is the opposite: there each has a backend
			continue
		}
		t.Run(strategy.name, func(t *testing.T) {
			s := newSite(t, func(c *config.Config) { setDatabase(c, strategy.set) })
			control := dbtest.Control(t, s.cfg.Databases["default"])
			path := "/polls/"
			if s.DB().Stat().Size == 0 {
				path = "/healthz" // the others connect a thousand times, or have a backend each while they are there
			}
			s.get(path)
			s.client.CloseIdleConnections()
			before := runtime.NumGoroutine()
			idle := make([]net.Conn, clients)
			for i := range idle {
				idle[i] = s.connect(path)
			}
			s.mustBeIdle()
			if n := runtime.NumGoroutine(); n > before+clients+10 {
				t.Errorf("%d clients are %d goroutines", clients, n-before)
			}
			if n := s.backends(control); n > 5 {
				t.Errorf("%d clients keep %d backends", clients, n)
			}
			for _, c := range idle {
				_ = c.Close()
			}
			dbtest.Eventually(t, "their goroutines are gone", func() bool { return runtime.NumGoroutine() <= before+5 })
			if a := s.get("/polls/"); a.StatusCode != http.StatusOK {
				t.Errorf("the next one: %s", a.Status)
			}
		})
	}
}
