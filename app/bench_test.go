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

// BenchmarkPolls serves /polls/ to 32 clients on connections that stay open, and a bare handler beside it: the same
// query on pgxpool and the same rows, in a page of the same size. They take turns, request for request in blocks, so
// that whatever else the machine does meets both. The goal is a ratio of 0.85 or more.
func BenchmarkPolls(b *testing.B) {
	cfg := dbtest.Config(b)
	s := siteOn(b, cfg, func(c *config.Config) {
		setDatabase(c, func(d *config.Database) { d.Strategy = db.Pool })
	})
	s.loadDemo()
	page := s.get("/polls/")
	bare := httptest.NewServer(bareHandler(b, cfg, len(page.body)))
	b.Cleanup(bare.Close)

	app, floor := newCrowd(b, s.url), newCrowd(b, bare.URL)
	const block = 64 // requests of each client at a time
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
	b.ReportMetric(0, "ns/op")
}

const latestSQL = `
SELECT id, question_text, pub_date
FROM polls_question
WHERE pub_date <= $1
ORDER BY pub_date DESC, id DESC
LIMIT $2`

// bareHandler is what one would write at first, and nothing more.
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

// clients is how many ask at once.
const clients = 32

// crowd is that many clients, each with a connection of its own. They do as little as a client can, since they share
// the machine with what they measure.
type crowd struct {
	b     *testing.B
	conns [clients]*bufio.ReadWriter
}

func newCrowd(b *testing.B, url string) *crowd {
	b.Helper()
	c := &crowd{b: b}
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

// ask has every client ask n times, and tells how long that took.
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
