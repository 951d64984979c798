package main

import (
	"os"
	"path/filepath"
	"regexp"
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
