package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"ddtb/config"
	"ddtb/db"
)

const composeFile = "../../config/compose/ddtb.toml"

func TestTheConfigurationForContainersLoads(t *testing.T) {
	cfg := load(t, composeFile)
	if d := cfg.Databases["default"]; d.Strategy != db.Pool || d.Host != "postgres" || d.Pooler != "" {
		t.Errorf("strategy %q, host %q, pooler %q", d.Strategy, d.Host, d.Pooler)
	}
	if !cfg.Test.Enabled {
		t.Error("the test endpoints are off")
	}
}

func TestTheConfigurationForContainersLoadsWithPgBouncerAsItsCommentSays(t *testing.T) {
	text, err := os.ReadFile(composeFile)
	if err != nil {
		t.Fatal(err)
	}
	text = regexp.MustCompile(`(?m)^host = `).ReplaceAll(text, []byte("# host = "))
	text = regexp.MustCompile(`(?m)^# (host = "pgbouncer"|pooler|direct_host)`).ReplaceAll(text, []byte("$1"))
	file := filepath.Join(t.TempDir(), "ddtb.toml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	d := load(t, file).Databases["default"]
	if d.Host != "pgbouncer" || d.Pooler != "pgbouncer" || d.DirectHost != "postgres" {
		t.Errorf("host %q, pooler %q, direct_host %q", d.Host, d.Pooler, d.DirectHost)
	}
}

func TestTheConfigurationForTheFleetGoesThroughPgBouncerAndHasAnAgent(t *testing.T) {
	cfg := load(t, "../../config/compose/fleet.toml")
	if d := cfg.Databases["default"]; d.Host != "pgbouncer" || d.Pooler != "pgbouncer" || d.DirectHost != "postgres" {
		t.Errorf("host %q, pooler %q, direct_host %q", d.Host, d.Pooler, d.DirectHost)
	}
	if r := cfg.Databases["replica"]; r.Host != "replica" || r.Pooler != "" {
		t.Errorf("the replica's host %q, pooler %q", r.Host, r.Pooler)
	}
	if s := cfg.Server; s.Replicas != 4 || s.AgentAddr != "0.0.0.0:8081" || len(s.TrustedProxies) == 0 {
		t.Errorf("%+v", s)
	}
}

func TestHAProxyTakesTheConfigurationOfTheFleet(t *testing.T) {
	const file = "../../config/compose/haproxy.cfg"
	out, err := exec.CommandContext(t.Context(), haproxyProgram(t), "-c", "-f", file).CombinedOutput()
	if err != nil || strings.Contains(string(out), "WARNING") {
		t.Errorf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, words := range []string{"weight 100 ", "agent-port 8081 ", "httpchk GET /readyz", "server-template app 10 app:8000 "} {
		if !strings.Contains(string(text), words) {
			t.Errorf("it has no %q, for which the applications are configured", words)
		}
	}
}

// load is the file with the environment of docker-compose.yml. What it warns of is an error here.
func load(t *testing.T, file string) *config.Config {
	t.Helper()
	cfg, err := config.Load(config.Options{File: file, Environ: []string{"PGPASSWORD=secret"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range cfg.Warnings {
		t.Error(w)
	}
	return cfg
}
