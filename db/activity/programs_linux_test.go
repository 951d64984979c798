package activity

import (
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ddtb/db/localpg"
)

// programs are situations with what people run: Django, node-postgres, pools of psycopg2, pgbench.
var programs = []situation{
	{
		name:   "a small pool in use rests for a moment between its queries",
		play:   func(s *stage) { s.pgbench("SELECT 1;\n", "-c", "6", "-j", "2", "--rate=30") },
		better: always, also: noClosing,
	},
	{
		name: "a large pool in use rests for a moment between its queries", role: reader,
		play: func(s *stage) { s.pgbench("SELECT 1;\n", "-c", "12", "-j", "2", "--rate=60") },
		code: "utilisation", culprit: "pgbench", scenario: "replicas-times-pool hidden-second-pool too-much-at-once thread-leak", first: nothing,
		better: always, also: noClosing,
	},
	{
		name: "a pool is exhausted inside its application",
		play: func(s *stage) {
			s.python(`
pool = psycopg2.pool.ThreadedConnectionPool(5, 5, application_name="web")
held = [pool.getconn() for n in range(5)]
for c in held:
    c.autocommit = True
    c.cursor().execute("SELECT 'the last query'")
try:
    pool.getconn()
except psycopg2.pool.PoolError:
    time.sleep(600)
`)
			s.sessions("web", 5)
		},
		better: always, also: func(s *stage, d Diagnosis) {
			if len(d.MaybeOut) != 1 || d.MaybeOut[0].Application != "web" || d.MaybeOut[0].Sessions != 5 {
				s.Errorf("the candidates are %+v", d.MaybeOut)
			}
		},
	},
	{
		name: "Django keeps a connection for each of its threads", role: closer,
		play: func(s *stage) {
			s.django("None", `
def request(n):
    from polls import ask
    ask()
    time.sleep(600)
for n in range(12):
    threading.Thread(target=request, args=(n,), daemon=True).start()
    time.sleep(0.3)
time.sleep(600)
`)
			s.sessions("", 12)
		},
		code: "idle", culprit: "user app", scenario: "thread-leak", first: "--application='' --user=app", mayLose: "user app",
	},
	{
		name: "Django connects anew for each request",
		play: func(s *stage) {
			s.django("0", `
def requests():
    from polls import ask, finished
    while True:
        ask()
        finished()
for n in range(3):
    threading.Thread(target=requests, daemon=True).start()
time.sleep(600)
`)
		},
		code: "churn", culprit: "user app", scenario: "too-much-at-once", first: nothing, mayLose: "user app", better: always,
		tune: busyMachine,
	},
	{
		name: "node-postgres fills the server with a pool that rests, and has no handler for a lost connection", role: closer,
		play: func(s *stage) {
			s.node(fmt.Sprintf(`
const { Pool } = require('pg')
const pool = new Pool({ max: %d, idleTimeoutMillis: 0, application_name: 'node' })
Promise.all(Array.from({ length: %d }, () => pool.query('SELECT pg_sleep(0.5)')))
setInterval(() => {}, 1000)
`, s.usable()-3, s.usable()-3))
			s.sessions("node", s.usable()-3)
		},
		code: "utilisation", culprit: "node", scenario: "thread-leak replicas-times-pool hidden-second-pool", first: "close-idle", mayLose: "node",
		also: func(s *stage, d Diagnosis) {
			if !strings.Contains(d.Steps[0].Hurts, "one without a handler for a lost connection may end") {
				s.Errorf("who is hurt: %q", d.Steps[0].Hurts)
			}
		},
		better: func(s *stage) bool {
			return len(s.after().clients(func(x Session) bool { return x.Application == "node" })) == 0
		},
	},
	{
		name: "a superuser looks at a full server through a reserved slot", role: localpg.Superuser,
		play: func(s *stage) {
			s.python(fmt.Sprintf(`
held = []
while len(held) < %d: # the test's own looks come and go
    try:
        held.append(psycopg2.connect(application_name="web"))
    except psycopg2.OperationalError:
        time.sleep(0.05)
time.sleep(600)
`, s.usable()-1)) // the one that looks has one more
			s.sessions("web", s.usable()-1)
		},
		code: "utilisation", culprit: "web", scenario: "replicas-times-pool hidden-second-pool thread-leak", first: "close-idle", mayLose: "web",
		also: func(s *stage, d Diagnosis) {
			want := fmt.Sprintf("%d of %d usable slots are used (100 %%), 0 are free; 1 of ", s.usable(), s.usable())
			if text := s.after().Slots.String(); !strings.HasPrefix(text, want) { // with one more look
				s.Error(text)
			}
		},
	},
	{
		name: "the machine of the clients is gone, and another one works on", role: closer,
		play: func(s *stage) {
			for range 9 {
				exec(s.T, s.from("127.0.0.9", app, "web"), "SELECT 1")
			}
			s.program("", "pgbench", "-n", "-c", "2", "-j", "2", "-T", "600", "-f", s.write("web.sql", "SELECT pg_sleep(0.2);\n"), "-d", "wall")
		},
		code: "idle", culprit: "web", scenario: "half-open thread-leak replicas-times-pool", first: "close-idle", mayLose: "web",
	},
	{
		name: "a report piles up behind a slow query", role: closer,
		play: func(s *stage) { s.pgbench("SELECT pg_sleep(600);\n", "-c", "12", "-j", "2") },
		code: "long-query", culprit: "pgbench", scenario: "slow-query-pile-up", first: "cancel --pid=", mayLose: "pgbench",
		tune: func(t *Thresholds) { t.LongQuery, t.Slow = time.Second, time.Second },
	},
	{
		name: "a prepared transaction lost its manager, and nobody waits for it yet", role: reader,
		play: func(s *stage) {
			conn := s.session(s.T, other, "elsewhere", "bank")
			exec(s.T, conn, "DROP TABLE IF EXISTS money; CREATE TABLE money (n int); INSERT INTO money VALUES (1)")
			exec(s.T, conn, "BEGIN; UPDATE money SET n = 2")
			exec(s.T, conn, "PREPARE TRANSACTION 'orphan'")
		},
		code: "prepared-transaction", culprit: "the transaction manager of other", first: "ask the transaction manager",
		better: func(s *stage) bool { return len(s.after().Prepared) == 0 },
		tune:   func(t *Thresholds) { t.Orphan = time.Second },
	},
}

// noClosing checks that the advice ends no session that is in use.
func noClosing(s *stage, d Diagnosis) {
	for _, f := range d.Health.Findings {
		if f.Code == "idle" {
			s.Errorf("sessions in use are called idle: %s", f.What)
		}
	}
	for _, step := range d.Steps {
		if strings.Contains(step.Command, "close") {
			s.Errorf("this would end sessions in use: %s", step)
		}
	}
}

// sessions waits until the application has so many, all at rest.
func (s *stage) sessions(application string, n int) {
	s.Helper()
	eventually(s.T, fmt.Sprintf("%q has %d sessions", application, n), func() bool {
		return len(s.after().clients(func(x Session) bool { return x.Application == application && x.User == app && x.State == Idle })) == n
	})
}

func (s *stage) write(name, text string) (path string) {
	s.Helper()
	path = filepath.Join(s.TempDir(), name)
	must(s.T, os.WriteFile(path, []byte(text), 0o644))
	return path
}

// pgbench runs a script repeatedly.
func (s *stage) pgbench(script string, args ...string) {
	s.Helper()
	args = append([]string{"-n", "-T", "600", "-f", s.write("script.sql", script)}, args...)
	s.program("", "pgbench", args...)
}

// django runs a program with Debian's Django: its ask is a request's query, and finished is the end of a request.
func (s *stage) django(connMaxAge, program string) {
	s.Helper()
	dir := filepath.Dir(s.write("polls.py", `
from django.conf import settings
import os
settings.configure(DATABASES={"default": {
    "ENGINE": "django.db.backends.postgresql", "NAME": os.environ["PGDATABASE"], "USER": os.environ["PGUSER"],
    "PASSWORD": os.environ["PGPASSWORD"], "HOST": os.environ["PGHOST"], "PORT": os.environ["PGPORT"], "CONN_MAX_AGE": `+connMaxAge+`}})
import django
from django.core.signals import request_finished
from django.db import connection
django.setup()
def ask():
    with connection.cursor() as c:
        c.execute("SELECT count(*) FROM pg_class")
        return c.fetchone()
def finished():
    request_finished.send(None)
`))
	s.program("", "/usr/bin/python3", "-c", "import sys, threading, time\nsys.path.insert(0, '"+dir+"')\nimport polls\n"+program)
}

// nodeModules is the directory with node-postgres.
var nodeModules = sync.OnceValues(func() (dir string, err error) {
	dir = filepath.Join(testDir, "node")
	out, err := osexec.Command("npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix", dir, "pg@8").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("npm install pg: %w\n%s", err, out)
	}
	return dir, nil
})

// node runs a program with node-postgres.
func (s *stage) node(program string) {
	s.Helper()
	dir, err := nodeModules()
	must(s.T, err)
	s.program("", "node", "-e", "module.paths.push('"+dir+"/node_modules')\n"+program)
}

func TestAPoolInUseHasOneServiceInTheBudget(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		st := &stage{t, s}
		st.python(`
held = [psycopg2.connect(application_name="web-%d" % n) for n in range(3)]
time.sleep(600)
`)
		t.Cleanup(st.clear)
		eventually(t, "they are one service", func() bool {
			return slices.Contains(st.after().Services(), Service{Name: "web", Clients: 1, Sessions: 3})
		})
	})
}
