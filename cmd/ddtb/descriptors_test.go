package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"ddtb/db/logtest"
)

// limited is a command that may have so many files open.
func (m *machine) limited(files int, args ...string) *process {
	m.Helper()
	p := &process{machine: m, log: &logtest.Log{}, done: make(chan struct{})}
	script := fmt.Sprintf(`ulimit -n %d; exec "$0" "$@"`, files)
	p.cmd = exec.Command("/bin/sh", append([]string{"-c", script, os.Args[0], asDDTB}, args...)...) //nolint:noctx // it is stopped by a signal
	p.cmd.Env = append(m.environ(), "GORACE=atexit_sleep_ms=0")
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		m.Fatal(err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // the process state has the result
	}()
	m.Cleanup(func() { p.stop(syscall.SIGKILL) })
	return p
}

func TestMoreClientsThanFilesAreServedAndNobodySaysThatTheDatabaseIsDown(t *testing.T) {
	t.Parallel()
	m, _ := withDatabase(t)
	m.run("", "loaddemo").must(exitFine)
	p := m.limited(64, "runserver", "127.0.0.1:0")
	p.waitForURL()
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
