package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	"ddtb/db/dbtest"
)

// limited is a command that may have so many files open.
func (m *machine) limited(files int, args ...string) *process {
	m.Helper()
	script := fmt.Sprintf(`ulimit -n %d; exec "$0" "$@"`, files)
	return m.startAs(nil, "/bin/sh", append([]string{"-c", script, os.Args[0], asDDTB}, args...)...)
}

func TestMoreClientsThanFilesAreServedAndNoPageBlamesTheDatabase(t *testing.T) {
	t.Parallel()
	m, _ := withDatabase(t)
	m.run("", "loaddemo").must(exitFine)
	p := m.limited(64, "runserver", "127.0.0.1:0")
	dbtest.Eventually(t, "the server answers", p.answers)
	addr := strings.TrimPrefix(p.url, "http://")
	clients := make([]net.Conn, 200) // all are connected before the first asks
	for i := range clients {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		clients[i] = c
	}
	var all sync.WaitGroup
	for _, c := range clients {
		all.Go(func() {
			defer func() { _ = c.Close() }()
			if _, err := io.WriteString(c, "GET /polls/ HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
				t.Error(err)
				return
			}
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Error(err)
				return
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Error(resp.Status)
			}
		})
	}
	all.Wait()
	p.logs(1, "level=WARN", "all places for client connections are taken", "ulimit -n")
	if n := p.log.Count("level=WARN"); n > 10 {
		t.Errorf("%d lines:\n%s", n, p.log)
	}
}
