package app

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
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

// pair is a *conn and the client's side of it.
func pair(t *testing.T) (*conn, *net.TCPConn) {
	t.Helper()
	l, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	client := dial(t, l.Addr().String())
	c, err := bound(l, 0, nil).Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.(*conn), client
}

func TestADeadlineThatIsMovedIsTheOneInForce(t *testing.T) {
	const soon, late = 50 * time.Millisecond, 5 * time.Second
	full := bytes.Repeat([]byte("each byte arrives once, and in its place. "), 1<<19) // more than the buffers of a connection hold
	read := func(server *conn) (string, error) {
		p := make([]byte, 8)
		n, err := server.Read(p)
		return string(p[:n]), err
	}
	send := func(client *net.TCPConn) (string, error) {
		_, err := client.Write([]byte("12345678"))
		return "12345678", err
	}
	write := func(server *conn) (string, error) {
		n, err := server.Write(full)
		return string(full[:n]), errors.Join(err, server.CloseWrite())
	}
	receive := func(client *net.TCPConn) (string, error) {
		all, err := io.ReadAll(client)
		return string(all), err
	}
	for _, c := range []struct {
		name string
		set  func(*conn, time.Time) error
		use  func(*conn) (string, error)
		end  func(client *net.TCPConn) (string, error) // ends the use without the deadline
	}{
		{"reading", (*conn).SetReadDeadline, read, send},
		{"writing", (*conn).SetWriteDeadline, write, receive},
		{"both, reading", (*conn).SetDeadline, read, send},
		{"both, writing", (*conn).SetDeadline, write, receive},
	} {
		for _, move := range []struct {
			name string
			to   []time.Duration // from now; 0: none
			ends time.Duration   // 0: not before the other side acts
		}{
			{"earlier", []time.Duration{late, soon}, soon},
			{"later", []time.Duration{soon, late}, 0},
			{"lifted", []time.Duration{soon, 0}, 0},
			{"lifted and set", []time.Duration{late, 0, soon}, soon},
			{"passed, and later", []time.Duration{-late, late}, 0},
			{"ended, and lifted", []time.Duration{late, sinceEver, 0}, 0},
			{"ended, and moved", []time.Duration{late, sinceEver, 0, soon}, soon},
			{"ended", []time.Duration{late, sinceEver}, sinceEver},
		} {
			t.Run(c.name+" "+move.name, func(t *testing.T) {
				server, client := pair(t)
				began, sent, ended := time.Now(), "", make(chan error, 1)
				for _, d := range move.to {
					at := time.Time{}
					if d != 0 {
						at = time.Now().Add(d)
					}
					if err := c.set(server, at); err != nil {
						t.Fatal(err)
					}
				}
				if move.ends == 0 {
					time.AfterFunc(2*soon, func() {
						var err error
						sent, err = c.end(client)
						ended <- err
					})
				}
				got, err := c.use(server)
				took := time.Since(began)
				if move.ends == 0 {
					if err := errors.Join(err, server.Close(), <-ended); got != sent || err != nil {
						t.Errorf("ended after %v by %v, with %d bytes for %d", took, err, len(got), len(sent))
					}
				} else if !errors.Is(err, os.ErrDeadlineExceeded) || took < move.ends || took > late/2 {
					t.Errorf("ended after %v by %v", took, err)
				}
			})
		}
	}
}

// sinceEver from now is before longAgo, like the deadline with which net/http ends its read ahead.
const sinceEver = -100 * 365 * 24 * time.Hour

func TestAQuietClientIsWokenOnceAtMost(t *testing.T) {
	var set []time.Time
	socket := func(t time.Time) error { set = append(set, t); return nil }
	now := time.Now()
	d := deadline{socket: now.Add(sinceEver)} // as after a response
	idle := now.Add(2 * time.Minute)
	if err := errors.Join(d.move(time.Time{}, socket), d.move(idle, socket), d.next(now, socket), d.move(now.Add(headerFor), socket)); err != nil {
		t.Fatal(err)
	}
	d.due = idle // a client that sent nothing instead: its deadline is still the idle one
	if err := d.next(now.Add(headerFor), socket); err != nil {
		t.Fatal(err)
	}
	if want := []time.Time{now.Add(headerFor), idle}; !slices.Equal(set, want) {
		t.Errorf("%v, want %v", set, want)
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
