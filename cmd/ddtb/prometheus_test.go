package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ddtb/db/dbtest"
	"ddtb/db/logtest"
)

// noData are the dashboard's expressions that show nothing while nothing fails.
var noData = map[string]bool{
	`sum by (cause) (rate(ddtb_acquire_failures_total{instance=~"$instance"}[$__rate_interval])) > 0`: true,
}

func TestEveryPanelOfTheDashboardHasDataOfFourProcesses(t *testing.T) {
	t.Parallel()
	m, cfg := withDatabase(t)
	m.run("", "loaddemo").must(exitFine)
	var targets []string
	for i := range 4 {
		r := newReplica(t, fmt.Sprintf("app%d", i+1), cfg, "pool.max_size = \"auto\"\n[monitor]\ninterval = \"1s\"\n[fleet]\nbudget = 20\n")
		r.start()
		targets = append(targets, fmt.Sprintf("%q", r.addr))
	}
	p := prometheus(t, strings.Join(targets, ", "))
	get := func() {
		for _, target := range targets {
			if resp, err := fresh.Get("http://" + strings.Trim(target, `"`) + "/polls/"); err == nil { //nolint:noctx // on this machine
				_ = resp.Body.Close()
			}
		}
	}
	dbtest.Eventually(t, "it has read four processes", func() bool {
		get()
		return len(p.query("ddtb_build_info")) == 4 && len(p.query("rate(http_requests_total[10s]) > 0")) >= 4
	})
	expressions := panels(t)
	for _, e := range expressions {
		if n := len(p.query(e)); (n == 0) != noData[e] {
			t.Errorf("%d series of %s", n, e)
		}
	}
	if len(expressions) < 30 {
		t.Errorf("only %d expressions", len(expressions))
	}
}

// panels returns the expressions of Grafana's file.
func panels(t *testing.T) (expressions []string) {
	t.Helper()
	text, err := os.ReadFile("../../config/monitoring/grafana-dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct{ Targets []struct{ Expr string } }
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			expressions = append(expressions, target.Expr)
		}
	}
	return expressions
}

// metrics is a real Prometheus.
type metrics struct {
	testing.TB
	url string
}

// prometheus starts one that reads the targets every second.
func prometheus(t *testing.T, targets string) *metrics {
	t.Helper()
	program, err := exec.LookPath("prometheus")
	if err != nil {
		t.Fatal("prometheus is not there: install Debian's package prometheus (apt-get install --no-install-recommends prometheus)")
	}
	dir, addr := t.TempDir(), freeAddr(t)
	file := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf("global:\n  scrape_interval: 1s\nscrape_configs:\n  - job_name: ddtb\n    static_configs:\n      - targets: [%s]\n", targets)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var log logtest.Log
	cmd := exec.CommandContext(context.Background(), program, "--config.file="+file, "--storage.tsdb.path="+dir, "--web.listen-address="+addr)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		if t.Failed() {
			t.Logf("Prometheus: %s", &log)
		}
	})
	return &metrics{t, "http://" + addr}
}

// query returns the series of an expression of the dashboard; nil while there is no answer.
func (m *metrics) query(expression string) (series []json.RawMessage) {
	m.Helper()
	expression = strings.NewReplacer("$__rate_interval", "10s", "$instance", ".*").Replace(expression)
	resp, err := fresh.Get(m.url + "/api/v1/query?query=" + url.QueryEscape(expression)) //nolint:noctx // on this machine
	if err != nil {
		return nil
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct {
		Error string
		Data  struct{ Result []json.RawMessage }
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err == nil && resp.StatusCode == http.StatusBadRequest {
		m.Errorf("%s: %s", expression, answer.Error)
	}
	return answer.Data.Result
}
