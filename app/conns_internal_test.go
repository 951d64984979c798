package app

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"ddtb/db/dbtest"
	"ddtb/db/logtest"
)

// bounded is an HTTP server behind a listener with so many places.
func bounded(t *testing.T, most int, h http.HandlerFunc) (addr string, log *logtest.Log) {
	t.Helper()
	l, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log = &logtest.Log{}
	b := bound(l, most, slog.New(slog.NewTextHandler(log, nil)))
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if b.full.Load() {
				w.Header().Set("Connection", "close")
			}
			h(w, r)
		}),
		ReadTimeout: 100 * time.Millisecond, IdleTimeout: time.Minute, ReadHeaderTimeout: time.Second,
	}
	b.keepAlive = server.SetKeepAlivesEnabled
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(b) }()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return l.Addr().String(), log
}

func dial(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.(*net.TCPConn)
}

// ask sends a request, and reads its answer.
func ask(c net.Conn) (status int, err error) {
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, errors.Join(err, resp.Body.Close())
}

const waits = "all places for client connections are taken"

func TestMoreClientsThanPlacesAreServedInTurn(t *testing.T) {
	waiting := make(chan struct{}) // closed when a client waits: until then the first four keep their places
	addr, log := bounded(t, 4, func(w http.ResponseWriter, _ *http.Request) {
		<-waiting
		_, _ = io.WriteString(w, "ok")
	})
	var clients sync.WaitGroup
	for range 50 {
		c := dial(t, addr)
		clients.Go(func() {
			defer func() { _ = c.Close() }()
			if status, err := ask(c); err != nil || status != http.StatusOK {
				t.Error(status, err)
			}
		})
	}
	dbtest.Eventually(t, "a client waits", func() bool { return log.Count(waits) > 0 })
	close(waiting)
	clients.Wait()
	if n := log.Count(waits); n == 0 || n > 5 {
		t.Errorf("%d lines in the log:\n%s", n, log)
	}
}

func TestClientsThatAskForNothingMakeRoomForThoseThatDo(t *testing.T) {
	addr, _ := bounded(t, 4, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	for range 4 {
		if _, err := ask(dial(t, addr)); err != nil { // and keeps its connection
			t.Fatal(err)
		}
	}
	if status, err := ask(dial(t, addr)); err != nil || status != http.StatusOK {
		t.Error(status, err)
	}
}

func TestARequestOutlivesTheTimeForReadingItButNotItsClient(t *testing.T) {
	ended := make(chan error, 1)
	entered := make(chan struct{}, 1)
	addr, _ := bounded(t, 0, func(_ http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		select {
		case <-r.Context().Done():
			ended <- r.Context().Err()
		case <-time.After(300 * time.Millisecond): // of 100 ms
			ended <- nil
		}
	})
	if _, err := ask(dial(t, addr)); err != nil {
		t.Error(err)
	}
	<-entered
	if err := <-ended; err != nil {
		t.Errorf("the request was ended: %v", err)
	}
	c := dial(t, addr)
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-entered
	_ = c.SetLinger(0)
	_ = c.Close() // with a reset: the client is gone
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("it goes on without its client: %v", err)
	}
}

func TestHalfOfTheDescriptorsAreForClients(t *testing.T) {
	for limit, want := range map[uint64]int{0: 0, 16: 4, 64: 24, 1024: 504, 1 << 30: 0} {
		if got := mostClients(limit); got != want {
			t.Errorf("of %d: %d, want %d", limit, got, want)
		}
	}
}

func TestWhichRequestIDsAreTakenOver(t *testing.T) {
	for id, taken := range map[string]bool{
		"0af7651916cd43dd8448eb211c80319c": true, "Root=1-67891233-abcdef012345678912345678": true, "a_b.c-d": true,
		"": false, "a b": false, "a\"b": false, "ü": false, "a/b": false, "a;b": false, "a%0ab": false,
		strings.Repeat("x", 64): true, strings.Repeat("x", 65): false, strings.Repeat("x", 60_000): false,
	} {
		if isRequestID(id) != taken {
			t.Errorf("%.80q: %v", id, !taken)
		}
	}
	ids, seen := newRequestIDs(), map[string]bool{}
	for range 1000 {
		id := ids.next()
		if seen[id] || !isRequestID(id) {
			t.Fatalf("%q", id)
		}
		seen[id] = true
	}
	if other := newRequestIDs(); other.process == ids.process {
		t.Error("two processes make the same ids")
	}
}
