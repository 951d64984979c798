package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"ddtb/db/dbtest"
)

// crowd is clients that ask for a page again and again, each time on a new connection.
type crowd struct {
	served, failed atomic.Int64
	first          atomic.Value // what failed first
	stop           func()
}

func (p *process) crowd(clients int, path string) *crowd {
	l := &crowd{}
	ctx, cancel := context.WithCancel(p.Context())
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for ctx.Err() == nil {
				if status, body := p.page(path); status != http.StatusOK {
					l.failed.Add(1)
					l.first.CompareAndSwap(nil, fmt.Sprintf("%d\n%s", status, body))
				}
				l.served.Add(1)
			}
		})
	}
	l.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	p.Cleanup(l.stop)
	return l
}

// goesOn waits for more requests to be served under what is in force now.
func (l *crowd) goesOn(t *testing.T) {
	t.Helper()
	before := l.served.Load()
	dbtest.Eventually(t, "requests go on", func() bool { return l.served.Load() > before+50 })
}

func TestASavedFileSwitchesTheStrategyUnderLoadAndNoRequestFails(t *testing.T) {
	t.Parallel()
	const reap = "strategy = \"persistent\"\npersistent.reap = true"
	m, cfg := withDatabase(t, reap)
	m.run("", "loaddemo").must(exitFine)
	control := dbtest.Control(t, cfg)
	p := m.serving("runserver", "127.0.0.1:0")
	l := p.crowd(8, "/polls/")
	l.goesOn(t)
	for i, next := range []struct{ lines, strategy string }{
		{"strategy = \"pool\"\npool.max_size = 4", "pool"},
		{"strategy = \"per-request\"", "per-request"},
		{"strategy = \"pool\"\npool.max_size = 3\npool.hold = \"request\"", "pool"},
		{reap, "persistent"},
	} {
		m.configure(cfg, next.lines)
		p.logs(i+1, "the database settings were switched")
		p.logs(1, "the database settings were switched", "strategy="+next.strategy)
		l.goesOn(t)
		if _, body := p.page("/"); !strings.Contains(body, fmt.Sprintf(`"strategy": %q`, next.strategy)) {
			t.Errorf("after the switch to %s:\n%s", next.strategy, body)
		}
		for _, other := range []string{"pool", "per-request", "persistent"} {
			if other != next.strategy {
				dbtest.Eventually(t, "no backend of "+other+" is left", func() bool { return dbtest.Backends(t, control, "ddtb/"+other) == 0 })
			}
		}
	}
	l.stop()
	if n := l.failed.Load(); n > 0 {
		t.Errorf("%d of %d requests failed, first with %v", n, l.served.Load(), l.first.Load())
	}
	if code := p.stop(os.Interrupt); code != exitFine {
		t.Errorf("exit code %d:\n%s", code, p.log)
	}
}

func TestAMistakeInTheFileChangesNothingAndItsPlaceIsInTheLog(t *testing.T) {
	t.Parallel()
	m, cfg := withDatabase(t, `strategy = "per-request"`)
	m.run("", "loaddemo").must(exitFine)
	p := m.serving("runserver", "127.0.0.1:0")
	still := func(strategy string) {
		t.Helper()
		if _, body := p.page("/"); !strings.Contains(body, fmt.Sprintf(`"strategy": %q`, strategy)) || p.get("/polls/") != http.StatusOK {
			t.Errorf("it is not %s any more:\n%s", strategy, body)
		}
	}
	m.configure(cfg, `strategy = "puddle"`)
	const kept = "the configuration has a mistake; the old one stays in force"
	p.logs(1, "level=ERROR", kept, m.file+":8:12", "puddle")
	still("per-request")

	p.signal(syscall.SIGHUP) // reads it again, and finds the same
	p.logs(2, "level=ERROR", kept)
	still("per-request")

	if err := os.Remove(m.file); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGHUP) // without a file there is no name of the database, nor a password
	p.logs(1, "level=ERROR", kept, m.file+" is gone")
	still("per-request")

	m.configure(cfg, `strategy = "pool"`)
	p.logs(1, "the database settings were switched", "strategy=pool", "before=per-request")
	still("pool")

	m.configure(cfg, "[server]\nreplicas = 2") // strategy: its default, which is in force
	p.logs(1, "level=WARN", "wait for a restart", "sections=server")
	still("pool")

	text, err := os.ReadFile(m.file) // an editor that writes in place
	if err == nil {
		err = os.WriteFile(m.file, append(text, "[databases.default.pool]\nmax_size = 2\n"...), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	dbtest.Eventually(t, "the pool has another size", func() bool {
		_, body := p.page("/")
		return strings.Contains(body, `"max_size": 2`)
	})
	if strings.Contains(p.log.String(), "panic") {
		t.Errorf("%s", p.log)
	}
}
