package main

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"

	"ddtb/config"
)

// refusedConfigurations are files that the start refuses, and what it says.
func refusedConfigurations(t *testing.T, cfg config.Database) map[string][2]string {
	t.Helper()
	older, other := withDatabase(t)
	older.run("", "migrate", "down", "--yes").must(exitFine)
	return map[string][2]string{
		"a file that names no database":          {"[server]\nreplicas = 1\n", "no database is configured"},
		"a file of comments":                     {"# nothing yet\n", "no database is configured"},
		"a file with an unknown key":             {wayTo(cfg) + "strategie = \"pool\"\n", "did you mean strategy?"},
		"half of a file":                         {strings.TrimSuffix(wayTo(cfg), "\"disable\"\n"), "this is not TOML"},
		"a database of an older version":         {wayTo(other), "ddtb migrate"},
		"a budget that is strict, and too large": {wayTo(cfg) + "pool.max_size = 9000\n[server]\nstrict_budget = true\n", "does not fit"},
	}
}

func TestWhatTheStartRefusesAReloadRefusesAndTheServerGoesOn(t *testing.T) {
	t.Parallel()
	m, cfg := withDatabase(t, `strategy = "per-request"`)
	m.run("", "loaddemo").must(exitFine)
	refused := refusedConfigurations(t, cfg)
	for name, c := range refused {
		t.Run("at the start: "+name, func(t *testing.T) {
			other := newMachine(t)
			other.write(c[0])
			other.run("", "runserver", "127.0.0.1:0").must(exitFailed, c[1])
		})
	}
	p := m.serving("runserver", "127.0.0.1:0")
	const kept = "the old one stays in force"
	for name, c := range refused {
		t.Run("at a reload: "+name, func(t *testing.T) {
			p := &process{machine: m.in(t), cmd: p.cmd, log: p.log, done: p.done, url: p.url}
			before := p.log.Count("level=ERROR", kept)
			m.write(c[0])
			p.logs(before+1, "level=ERROR", kept)
			p.mustServe("per-request")
		})
	}
	t.Run("an empty file", func(t *testing.T) {
		p := &process{machine: m.in(t), cmd: p.cmd, log: p.log, done: p.done, url: p.url}
		if err := os.Truncate(m.file, 0); err != nil {
			t.Fatal(err)
		}
		p.logs(1, "level=ERROR", kept, m.file+" is empty")
		p.signal(syscall.SIGHUP)
		p.logs(2, "level=ERROR", kept, m.file+" is empty")
		p.mustServe("per-request")
		m.configure(cfg, `strategy = "pool"`)
		p.logs(1, "the database settings were switched", "strategy=pool", "before=per-request")
		p.mustServe("pool")
	})
}

func (p *process) mustServe(strategy string) {
	p.Helper()
	_, body := p.page("/")
	if status := p.get("/polls/"); status != http.StatusOK || !strings.Contains(body, fmt.Sprintf(`"strategy": %q`, strategy)) {
		p.Errorf("/polls/ answers %d, and the strategy is not %s:\n%s", status, strategy, body)
	}
}

func TestAFileThatLostItsKeysIsRefusedWhateverElseNamesTheDatabase(t *testing.T) {
	m := newMachine(t)
	load := func(text string) *config.Config {
		t.Helper()
		m.write(text)
		cfg, err := config.Load(config.Options{Environ: append(m.environ(), "DATABASE_URL=postgres://www@127.0.0.1/polls")})
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	full, other, comment, empty := load("[server]\nreplicas = 2\n"), load("[server]\nreplicas = 3\n"), load("# nothing\n"), load("")
	for name, c := range map[string]struct {
		before, now *config.Config
		refused     bool
	}{
		"other keys":                    {full, other, false},
		"only comments are left":        {full, comment, true},
		"nothing is left":               {full, empty, true},
		"it was empty at the start":     {empty, comment, false},
		"keys after it was empty":       {empty, full, false},
		"no file, and none before":      {&config.Config{}, &config.Config{}, false},
		"no file, though there was one": {full, &config.Config{}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if err := lostFile(c.before, c.now); (err != nil) != c.refused {
				t.Errorf("%v", err)
			}
		})
	}
}
