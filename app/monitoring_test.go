package app_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"ddtb/config"
)

const monitoring = "../config/monitoring/"

// promtool runs Prometheus's own checker. A machine without it fails the test.
func promtool(t *testing.T, input string, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatal("promtool is not there: install Debian's package prometheus (apt-get install --no-install-recommends prometheus)")
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestTheRulesOfPrometheusSayWhatTheyPromise(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"check", "config", monitoring + "prometheus.yml"},
		{"check", "rules", monitoring + "alerts.yml"},
		{"test", "rules", monitoring + "alerts_test.yml"},
	} {
		if out, err := promtool(t, "", args...); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	rules, tests := read(t, "alerts.yml"), read(t, "alerts_test.yml")
	for _, alert := range regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(rules, -1) {
		if !strings.Contains(tests, "alertname: "+alert[1]) {
			t.Errorf("nothing tests %s", alert[1])
		}
	}
	d := config.Default().Monitor
	if !strings.Contains(rules, fmt.Sprintf(">= %d <= %d", d.Warn, d.Critical)) || !strings.Contains(rules, fmt.Sprintf("> %d", d.Critical)) {
		t.Errorf("the rules have other thresholds than %d %% and %d %%", d.Warn, d.Critical)
	}
}

func TestThePrometheusOfTheFleetHasTheSameRules(t *testing.T) {
	t.Parallel()
	dir := t.TempDir() // as docker-compose.yml mounts them
	for file, in := range map[string]string{"alerts.yml": monitoring, "prometheus.yml": "../config/compose/"} {
		text, err := os.ReadFile(in + file)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, file), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if out, err := promtool(t, "", "check", "config", filepath.Join(dir, "prometheus.yml")); err != nil || strings.Contains(out, "0 rules") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestTheMetricsAreWhatPrometheusTakes(t *testing.T) {
	t.Parallel()
	body := newSite(t, nil).get("/metrics").body
	out, err := promtool(t, body, "check", "metrics")
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "pgxpool_") { // names that others gave, and whose dashboards are to work
			t.Error(line)
		}
	}
	if err != nil && out == "" {
		t.Error(err)
	}
}

// name finds the metrics in an expression, once the labels and what is in quotes are gone.
var (
	name  = regexp.MustCompile(`\b(ddtb|pgxpool|http|go|process)_\w+`)
	label = regexp.MustCompile(`\{[^}]*\}|"[^"]*"`)
)

func TestEveryMetricOfTheDashboardAndTheRulesIsThere(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	s.get("/polls/")
	s.eventually("ddtb_monitor_up", is(1)) // the first look
	there := map[string]bool{}
	for metric := range s.metrics() {
		family, _, _ := strings.Cut(metric, "{")
		there[family] = true
	}
	board := dashboard(t)
	expressions := append(board, ruleExpressions(t)...)
	for _, e := range expressions {
		names := name.FindAllString(label.ReplaceAllString(e, ""), -1)
		if len(names) == 0 && !strings.HasPrefix(e, "up{") {
			t.Errorf("no metric is in %s", e)
		}
		for _, n := range names {
			if !there[n] {
				t.Errorf("%s is not among the metrics, but in %s", n, e)
			}
		}
	}
	if len(board) < 20 || len(expressions)-len(board) < 10 {
		t.Errorf("%d expressions of the dashboard, %d in all", len(board), len(expressions))
	}
	mustParse(t, board)
}

// mustParse has promtool read expressions of the dashboard, as rules.
func mustParse(t *testing.T, expressions []string) {
	t.Helper()
	var rules bytes.Buffer
	rules.WriteString("groups:\n- name: dashboard\n  rules:\n")
	for i, e := range expressions {
		e = strings.NewReplacer("$__rate_interval", "1m", "$instance", ".*").Replace(e)
		fmt.Fprintf(&rules, "  - record: panel_%d\n    expr: %q\n", i, e)
	}
	file := filepath.Join(t.TempDir(), "rules.yml")
	if err := os.WriteFile(file, rules.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := promtool(t, "", "check", "rules", file); err != nil {
		t.Errorf("%v\n%s\n%s", err, out, &rules)
	}
}

// The keys and the kinds of a panel, as Grafana knows them, of which the dashboard makes use. Grafana takes any
// other in silence, and shows a panel without what was meant.
var (
	keysOfPanels  = strings.Fields("collapsed datasource description fieldConfig gridPos id options panels targets title type")
	kindsOfPanels = strings.Fields("row stat timeseries")
)

// dashboard is the expressions of Grafana's file, whose panels must have what Grafana needs.
func dashboard(t *testing.T) (expressions []string) {
	t.Helper()
	var board struct {
		Title  string
		Panels []struct {
			ID      int
			Type    string
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
			Source  struct{ UID string } `json:"datasource"`
		}
		Annotations struct{ List []struct{ Expr string } }
	}
	text := []byte(read(t, "grafana-dashboard.json"))
	var raw struct{ Panels []map[string]any }
	if err := errors.Join(json.Unmarshal(text, &board), json.Unmarshal(text, &raw)); err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for i, p := range board.Panels {
		for key := range raw.Panels[i] { // by the letter, which Go's decoder is not
			if !slices.Contains(keysOfPanels, key) {
				t.Errorf("panel %q has the key %s", p.Title, key)
			}
		}
		if !slices.Contains(kindsOfPanels, p.Type) || (p.Type != "row" && p.Source.UID != "${datasource}") {
			t.Errorf("panel %q is of the type %q, and reads from %q", p.Title, p.Type, p.Source.UID)
		}
		if p.Title == "" || seen[p.ID] || p.GridPos.W == 0 || p.GridPos.X+p.GridPos.W > 24 || (len(p.Targets) == 0) != (p.Type == "row") {
			t.Errorf("panel %+v", p)
		}
		seen[p.ID] = true
		for _, target := range p.Targets {
			expressions = append(expressions, target.Expr)
		}
	}
	for _, a := range board.Annotations.List {
		expressions = append(expressions, a.Expr)
	}
	return expressions
}

func ruleExpressions(t *testing.T) (expressions []string) {
	t.Helper()
	for _, e := range regexp.MustCompile(`expr: (.*)`).FindAllStringSubmatch(read(t, "alerts.yml"), -1) {
		expressions = append(expressions, e[1])
	}
	return expressions
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(monitoring + file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
