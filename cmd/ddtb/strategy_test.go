package main

import (
	"os"
	"strings"
	"testing"
)

func TestAStrategyThatCannotBeSwitchedSaysWhy(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	addr := []string{"--addr", "127.0.0.1:1"} // no server listens there
	m.run("", append([]string{"strategy", "poool"}, addr...)...).must(exitUsage, `no strategy "poool"`, "per-request")
	m.run("", append([]string{"strategy", "pool"}, addr...)...).must(exitFailed, "no configuration file")
	m.run("", "config", "init").must(exitFine)
	m.run("", append([]string{"strategy", "persistent"}, addr...)...).must(exitFine, "No ddtb server answers on 127.0.0.1:1", "next start")
	m.run("", append([]string{"strategy"}, addr...)...).must(exitFine, "configured   persistent", "no ddtb server answers")
	override := []string{"DDTB_DATABASES_DEFAULT_STRATEGY=pool"}
	m.runWith(override, "", append([]string{"strategy", "per-request"}, addr...)...).
		must(exitFailed, "environment variable DDTB_DATABASES_DEFAULT_STRATEGY", "overrides")
}

func TestAnUnknownCommandGetsTheNearestName(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	for _, args := range [][]string{{"db-connections", "statsu"}, {"db-connections", "--action=statsu"}, {"migrate", "stauts"}} {
		m.run("", args...).must(exitUsage, "did you mean status?")
	}
	m.run("", "config", "chekc").must(exitUsage, "did you mean check?", "ddtb config --help")
}

func TestAFileThatTheServerAtAddrDoesNotReadIsNotWritten(t *testing.T) {
	t.Parallel()
	m, cfg := withDatabase(t)
	here := m.serving("runserver", "127.0.0.1:0")
	other := newMachine(t)
	other.configure(cfg, "application_name = \"other\"")
	there := other.serving("runserver", "127.0.0.1:0")
	before := read(t, m.file)
	m.run("", "strategy", "persistent", "--addr", strings.TrimPrefix(there.url, "http://")).
		must(exitFailed, "does not read "+m.file, "nothing was written", "--config", there.url+"/admin/connections/")
	if read(t, m.file) != before {
		t.Error("it was written")
	}
	link := m.home + "/same.toml" // another name of the file that the server reads
	must(t, os.Symlink(m.file, link))
	m.run("", "strategy", "persistent", "--config", link, "--addr", strings.TrimPrefix(here.url, "http://")).must(exitFine, "uses it")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
