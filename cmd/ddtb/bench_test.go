package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"ddtb/db/dbtest"
)

// BenchmarkIdleClients reports the resident memory of a server with that many clients who have asked for a page
// each, and stay. The goal is under 64 MB with 1,000. On Linux only, where /proc has the figure.
func BenchmarkIdleClients(b *testing.B) {
	if runtime.GOOS != "linux" {
		b.Fatal("resident memory is read from /proc")
	}
	for _, clients := range []int{0, 1000} {
		b.Run(strconv.Itoa(clients), func(b *testing.B) {
			pid, addr := serveForBenchmark(b)
			for range clients {
				stay(b, addr, "/polls/")
			}
			for b.Loop() {
				stay(b, addr, "/polls/") // something to time: one client more
			}
			b.ReportMetric(residentMB(b, pid), "MB-resident")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func serveForBenchmark(b *testing.B) (pid int, addr string) {
	b.Helper()
	cfg := dbtest.Config(b)
	file := b.TempDir() + "/ddtb.toml"
	if err := os.WriteFile(file, []byte(wayTo(cfg)), 0o600); err != nil {
		b.Fatal(err)
	}
	cmd := exec.CommandContext(context.Background(), os.Args[0], asDDTB, "runserver", "127.0.0.1:0")
	cmd.Env = []string{"DDTB_CONFIG=" + file, "XDG_RUNTIME_DIR=" + b.TempDir()}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	_, after, ok := strings.Cut(line, "http://")
	if err != nil || !ok {
		b.Fatalf("%q, %v", line, err)
	}
	return cmd.Process.Pid, after[:strings.IndexByte(after, '/')]
}

// stay asks for one page over a connection that stays open.
func stay(b *testing.B, addr, path string) {
	b.Helper()
	var d net.Dialer
	c, err := d.DialContext(context.Background(), "tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() })
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: test\r\n\r\n", path); err != nil {
		b.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		b.Fatal(resp.Status, err)
	}
}

func residentMB(b *testing.B, pid int) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	kb, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	if err != nil {
		b.Fatal(err)
	}
	return kb / 1024
}
