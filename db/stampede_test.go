package db_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
	"ddtb/db/localpg"
)

const crowd = 200 // clients that wait for the server, and retry ten times a second until they are served

func TestAServerThatComesBackIsNotStampeded(t *testing.T) {
	dbtest.NoLeaks(t)
	for name, c := range map[string]struct {
		set    func(*config.Database)
		before int // attempts until the circuit opens: those that were under way, and a few
		after  int // in the first second of the server
	}{
		"pool of 10":             {func(c *config.Database) { pool(c); c.Pool.MaxSize, c.Pool.MaxWaiting = 10, 0 }, 30, 10 + 10},
		"per-request, 10 places": {func(c *config.Database) { perRequest(c); c.PerRequest.MaxSize = 10 }, 30, crowd + 10},
		"per-request":            {perRequest, crowd + 10, crowd + 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := dbtest.NewServer(t, dbtest.Options{
				MaxConnections: crowd + 20, Settings: map[string]string{"log_connections": "on", "log_timezone": "UTC"},
			})
			cfg := s.Config(t)
			c.set(&cfg)
			cfg.ConnectTimeout, cfg.Pool.Timeout, cfg.PerRequest.Timeout = time.Minute, time.Minute, time.Minute
			d, err := db.Open(t.Context(), cfg)
			must(t, err)
			defer func() {
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				defer cancel()
				_ = d.Close(ctx)
			}()

			s.Stop(t, dbtest.Fast)
			down := listenInstead(t, cfg)
			defer down.end()
			served := gather(t, d)
			dbtest.Eventually(t, "the circuit opens", func() bool { return served.turnedAway.Load() >= crowd })
			before, began := down.attempts.Load(), time.Now()
			dbtest.Eventually(t, "six more attempts are made", func() bool { return down.attempts.Load() >= before+6 })
			rate := float64(down.attempts.Load()-before) / time.Since(began).Seconds()
			down.end()
			s.Start(t)
			dbtest.Eventually(t, "all are served", func() bool { return served.clients.Load() == crowd })

			ready := lastReady(t, s.Log(t))
			arrivals := received(t, s.Log(t), ready)
			if len(arrivals) == 0 {
				t.Fatal("the server's log has no connection")
			}
			after := countBefore(arrivals, time.Second)
			t.Logf("%s: %d attempts until the circuit opened, then %.1f a second while the server was down, and %d in its first second; "+
				"the first attempt reached it %v after it was ready, the first client was served after %v, the last after %v",
				name, before, rate, after, arrivals[0], served.first(ready), served.last(ready))
			if before > int64(c.before) || rate > 3 || after > c.after {
				t.Errorf("too many attempts: at most %d, 3 a second and %d were expected", c.before, c.after)
			}
			if arrivals[0] > 10*time.Second { // 0.6 s, and what a loaded machine adds; the login is the server's own time
				t.Errorf("the first attempt came %v after the server was ready", arrivals[0])
			}
		})
	}
}

// audience is the waiting clients.
type audience struct {
	turnedAway atomic.Int64 // answers "circuit open"
	clients    atomic.Int64 // that were served

	mu sync.Mutex
	at []time.Time // when
}

// gather lets the clients come.
func gather(t *testing.T, d *db.DB) *audience {
	t.Helper()
	a := &audience{}
	ctx, leave := context.WithCancel(context.Background())
	var all sync.WaitGroup
	t.Cleanup(func() { leave(); all.Wait() })
	for range crowd {
		all.Go(func() {
			for ctx.Err() == nil && !a.visit(ctx, d) {
				select {
				case <-time.After(100 * time.Millisecond):
				case <-ctx.Done():
				}
			}
		})
	}
	return a
}

// visit is one request of a client. It reports whether it was served.
func (a *audience) visit(ctx context.Context, d *db.DB) bool {
	ctx, end := d.Begin(ctx)
	defer end()
	_, err := d.Exec(ctx, "SELECT 1")
	if db.CauseOf(err) == db.CircuitOpen {
		a.turnedAway.Add(1)
	}
	if err != nil {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at = append(a.at, time.Now())
	a.clients.Add(1)
	return true
}

func (a *audience) first(since time.Time) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.at[0].Sub(since).Round(time.Millisecond)
}

func (a *audience) last(since time.Time) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.at[len(a.at)-1].Sub(since).Round(time.Millisecond)
}

// standIn listens at the server's address and closes every connection. The driver asks it to cancel aborted logins:
// that is no attempt.
type standIn struct {
	net.Listener
	attempts atomic.Int64
	accepts  sync.WaitGroup
}

func listenInstead(t *testing.T, cfg config.Database) *standIn {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(cfg.Host, strconv.Itoa(cfg.Port)))
	must(t, err)
	s := &standIn{Listener: l}
	s.accepts.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.accepts.Go(func() { s.closeConn(conn) })
		}
	})
	return s
}

func (s *standIn) closeConn(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	const cancelRequest = 80877102
	head := make([]byte, 8) // length and kind
	_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := io.ReadFull(conn, head); err == nil && binary.BigEndian.Uint32(head[4:]) != cancelRequest {
		s.attempts.Add(1)
	}
}

func (s *standIn) end() {
	_ = s.Close()
	s.accepts.Wait()
}

// lastReady is when the server said for the last time that it is ready.
func lastReady(t *testing.T, log string) (ready time.Time) {
	t.Helper()
	for line := range strings.Lines(log) {
		if strings.Contains(line, "database system is ready to accept connections") {
			ready = stamp(t, line)
		}
	}
	return ready
}

// received is when the server received connections, after since, in order, without the superuser's, who is the test.
func received(t *testing.T, log string, since time.Time) (after []time.Duration) {
	t.Helper()
	ours := map[string]bool{} // sessions, by process
	for line := range strings.Lines(log) {
		if strings.Contains(line, "connection authorized: user="+localpg.Superuser) {
			ours[process(line)] = true
		}
	}
	for line := range strings.Lines(log) {
		if strings.Contains(line, "connection received") && !ours[process(line)] {
			if at := stamp(t, line).Sub(since); at >= 0 {
				after = append(after, at)
			}
		}
	}
	return after
}

// process is the [123] of a line of the log.
func process(line string) string {
	_, rest, _ := strings.Cut(line, "[")
	pid, _, _ := strings.Cut(rest, "]")
	return pid
}

func countBefore(all []time.Duration, end time.Duration) (n int) {
	for _, at := range all {
		if at < end {
			n++
		}
	}
	return n
}

func stamp(t *testing.T, line string) time.Time {
	t.Helper()
	const layout = "2006-01-02 15:04:05.000 MST"
	at, err := time.Parse(layout, line[:len(layout)])
	must(t, err)
	return at
}
