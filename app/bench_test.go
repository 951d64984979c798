package app_test

import (
	"bufio"
	"bytes"
	"fmt"
	"html/template"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

// BenchmarkPolls serves /polls/ to clients with persistent connections. The baseline is a bare handler with the same
// query on a pgxpool of 8, and the same rows in a page of the same size. The two take turns, in blocks of requests, so
// that other load on the machine affects both. Backends are counted on the server. The goals for ratio-of-bare are 0.95
// under "pool", and 1.15, 1.35, 1.6 and 1.9 under "multiplex" with 2 shared connections.
func BenchmarkPolls(b *testing.B) {
	for _, strategy := range []string{db.Pool, db.Multiplex} {
		for _, clients := range []int{8, 32, 128, 512} {
			b.Run(fmt.Sprintf("%s/clients=%d", strategy, clients), func(b *testing.B) { comparePolls(b, strategy, clients) })
		}
	}
}

func comparePolls(b *testing.B, strategy string, clients int) {
	cfg := dbtest.Config(b)
	cfg.Pool.MaxSize = 8
	s := siteOn(b, cfg, func(c *config.Config) {
		setDatabase(c, func(d *config.Database) { d.Strategy, d.Pool.MaxSize = strategy, 8 })
	})
	s.loadDemo()
	page := s.get("/polls/")
	bare := httptest.NewServer(bareHandler(b, cfg, len(page.body)))
	b.Cleanup(bare.Close)
	app, floor := newCrowd(b, s.url, clients), newCrowd(b, bare.URL, clients)
	block := 4096 / clients // requests per client per turn
	app.ask(block)
	floor.ask(block)
	var appTime, floorTime time.Duration
	n := 0
	for b.Loop() {
		appTime += app.ask(block)
		floorTime += floor.ask(block)
		n++
	}
	requests := float64(n * block * clients)
	b.ReportMetric(requests/appTime.Seconds(), "app-req/s")
	b.ReportMetric(requests/floorTime.Seconds(), "bare-req/s")
	b.ReportMetric(floorTime.Seconds()/appTime.Seconds(), "ratio-of-bare")
	b.ReportMetric(float64(dbtest.Backends(b, dbtest.Control(b, cfg), cfg.ApplicationName+"/"+strategy)), "backends")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkManyClients serves /polls/ with the default settings to clients that send a request after each response. It
// prints the pages per second relative to those with 32 clients. The goals are 0.95 for 128 clients and 0.9 for 512.
func BenchmarkManyClients(b *testing.B) {
	s := siteOn(b, dbtest.Config(b), func(c *config.Config) {
		setDatabase(c, func(d *config.Database) { d.Strategy, d.Pool = db.Pool, db.DefaultSettings().Pool })
	})
	s.loadDemo()
	sizes := []int{32, 128, 512}
	crowds, times := map[int]*crowd{}, map[int]time.Duration{}
	for _, n := range sizes {
		crowds[n] = newCrowd(b, s.url, n)
		crowds[n].ask(4)
	}
	rounds := 0
	for b.Loop() {
		for _, n := range sizes {
			times[n] += crowds[n].ask(8192 / n)
		}
		rounds++
	}
	b.ReportMetric(float64(8192*rounds)/times[32].Seconds(), "32-clients-req/s")
	b.ReportMetric(times[32].Seconds()/times[128].Seconds(), "128-of-32")
	b.ReportMetric(times[32].Seconds()/times[512].Seconds(), "512-of-32")
	b.ReportMetric(0, "ns/op")
}

const latestSQL = `
SELECT id, question_text, pub_date
FROM polls_question
WHERE pub_date <= $1
ORDER BY pub_date DESC, id DESC
LIMIT $2`

// bareHandler is a minimal implementation of the page.
func bareHandler(b *testing.B, cfg config.Database, size int) http.Handler {
	cc, err := db.ConnConfig(cfg, "bare")
	if err != nil {
		b.Fatal(err)
	}
	pc, err := pgxpool.ParseConfig("")
	if err != nil {
		b.Fatal(err)
	}
	pc.ConnConfig, pc.MaxConns = cc, int32(cfg.Pool.MaxSize)
	pool, err := pgxpool.NewWithConfig(b.Context(), pc)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(pool.Close)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rows, err := pool.Query(r.Context(), latestSQL, time.Now(), 5)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		var (
			id    int64
			text  string
			when  time.Time
			reply bytes.Buffer
		)
		_, err = pgx.ForEachRow(rows, []any{&id, &text, &when}, func() error {
			_, err := fmt.Fprintf(&reply, "<li><a href=\"/polls/%d/\">%s</a> %s</li>\n", id, template.HTMLEscapeString(text), when.Format(time.DateOnly))
			return err
		})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		reply.WriteString(strings.Repeat(" ", max(0, size-reply.Len())))
		w.Header().Set("Content-Type", htmlType)
		w.Header().Set("Content-Length", strconv.Itoa(reply.Len()))
		if _, err := w.Write(reply.Bytes()); err != nil {
			slog.Debug("write", "error", err)
		}
	})
}

// crowd is a set of clients, each with its own connection. They do as little as possible, because they share the
// machine with the server being measured.
type crowd struct {
	b     *testing.B
	conns []*bufio.ReadWriter
}

func newCrowd(b *testing.B, url string, clients int) *crowd {
	b.Helper()
	c := &crowd{b: b, conns: make([]*bufio.ReadWriter, clients)}
	for i := range c.conns {
		var d net.Dialer
		conn, err := d.DialContext(b.Context(), "tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = conn.Close() })
		c.conns[i] = bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn))
	}
	return c
}

// ask sends n requests from every client, and returns the duration.
func (c *crowd) ask(n int) time.Duration {
	began := time.Now()
	var wg sync.WaitGroup
	for _, conn := range c.conns {
		wg.Go(func() {
			for range n {
				if err := get(conn); err != nil {
					c.b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(began)
}

func get(c *bufio.ReadWriter) error {
	if _, err := c.WriteString("GET /polls/ HTTP/1.1\r\nHost: test\r\n\r\n"); err != nil {
		return err
	}
	if err := c.Flush(); err != nil {
		return err
	}
	status, err := c.ReadSlice('\n')
	if err != nil || !bytes.Contains(status, []byte(" 200 ")) {
		return fmt.Errorf("%s, %w", status, err)
	}
	length := 0
	for {
		line, err := c.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) <= 2 {
			break
		}
		if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return err
			}
		}
	}
	_, err = io.CopyN(io.Discard, c, int64(length))
	return err
}
