package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"ddtb/db/activity"
	"ddtb/db/dbtest"
	"ddtb/db/localpg/system"
)

// postmaster is the process id of the private PostgreSQL.
func (m *machine) postmaster(data string) int {
	m.Helper()
	files, err := filepath.Glob(filepath.Join(data, "*", "postmaster.pid"))
	if err != nil || len(files) != 1 {
		m.Fatalf("%v: %q, %v", data, files, err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		m.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		m.Fatal(err)
	}
	return pid
}

// killPostgres waits until the private PostgreSQL runs, and kills it.
func (p *process) killPostgres(t *testing.T, data string) {
	t.Helper()
	n := p.log.Count("PostgreSQL started")
	pid := p.postmaster(data)
	if err := system.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	dbtest.Eventually(t, "it is started again, or given up", func() bool {
		select {
		case <-p.done:
			return true
		default:
			return p.log.Count("PostgreSQL started") > n
		}
	})
}

func alive(pid int) bool { return system.Exists(pid) }

// Its parts run in order and share the data.
func TestRunBringsEverythingOnANewMachine(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	data := filepath.Join(m.home, "share", "ddtb", "postgres") // the default
	run := []string{"run", "--addr", "127.0.0.1:0"}

	p := m.serving(run...)
	for path, words := range map[string][]string{
		"/polls/": {"How many connections should a pool have?"}, "/test/": {"/test/pool-stress"}, "/readyz": {`"ready":true`},
		"/admin/": {`name="password"`}, "/": {`"max_connections": 100`},
	} {
		status, body := p.page(path)
		for _, w := range words {
			if status != 200 || !strings.Contains(body, w) {
				t.Errorf("%s: %d, without %q\n%s", path, status, w, body)
			}
		}
	}
	told := p.log.String()
	for _, w := range []string{"Wrote " + m.file, "Data    " + data, "all settings are in\n  " + m.file, p.url + "/lab/", "user admin, password ", `The strategy is "pool"`, "ab -q -n 200 " + p.url + "/polls/", "within 2 s:\n  curl '" + p.url + "/test/pool-stress?threads=15&strategy=pool&max_size=3&timeout=2s'\n"} {
		if !strings.Contains(told, w) {
			t.Errorf("the welcome lacks %q:\n%s", w, told)
		}
	}
	p.mustBeStressed()

	t.Run("a second one at the same time is told who has the data", func(t *testing.T) {
		second := m.in(t).start(run...).ends()
		second.must(exitFailed, "already running", data)
		m.in(t).start("run", "--addr", strings.TrimPrefix(p.url, "http://"), "--data", data+"2").ends().
			must(exitFailed, "is taken by another program")
		m.in(t).start("run", "--addr", strings.TrimPrefix(p.url, "http://")).ends().
			must(exitFailed, "is taken by another program", "It may be the ddtb run that is running with the data in "+data)
	})
	t.Run("db-connections finds its PostgreSQL", func(t *testing.T) {
		m.in(t).run("", "db-connections", "status").must(exitFine, "database ddtb, seen as ddtb")
		m.in(t).run("", "config", "check", "--connect").must(exitFine, "No database, user or host is named", "Logged in as ddtb to database ddtb")
	})
	t.Run("its configuration is the file that it wrote, in which a command switches the strategy", func(t *testing.T) {
		addr := strings.TrimPrefix(p.url, "http://")
		m := m.in(t)
		m.run("", "strategy", "persistent", "--addr", addr).must(exitFine, m.file, "uses it")
		m.run("", "strategy", "--addr", addr).must(exitFine, "configured   persistent", "in force     persistent")
		q := *p
		q.machine = m
		q.logs(1, "the database settings were switched", "strategy=persistent")
		q.mustBeStressed()
	})
	vote(t, p)
	server := m.postmaster(data)
	t.Run("Ctrl-C ends both", func(t *testing.T) {
		if code := p.stop(os.Interrupt); code != exitFine {
			t.Errorf("exit code %d:\n%s", code, p.log)
		}
		if alive(server) {
			t.Error("its PostgreSQL is still there")
		}
		for _, command := range []string{"db-connections status", "config check --connect", "migrate status"} {
			o := m.in(t).runWith([]string{"PGPORT=1"}, "", strings.Fields(command)...) // none of this machine's own listens there
			o.must(exitFailed, "the private PostgreSQL is stopped: start it with `ddtb run`\n")
		}
	})
	t.Run("after kill -9 it takes over, and the data stays", func(t *testing.T) {
		m := m.in(t)
		p := m.serving(run...)
		if !strings.Contains(p.log.String(), "password in "+filepath.Join(data, "admin.password")) || strings.Contains(p.log.String(), "Wrote") {
			t.Errorf("the welcome of the second time:\n%s", p.log)
		}
		before := m.postmaster(data)
		p.stop(syscall.SIGKILL)
		p = m.serving(run...)
		if now := m.postmaster(data); now == before {
			t.Error("the old PostgreSQL serves the new one")
		}
		dbtest.Eventually(t, "the old PostgreSQL is gone", func() bool { return !alive(before) })
		if _, body := p.page("/polls/1/results/"); !strings.Contains(body, "42 votes") {
			t.Errorf("the vote is lost:\n%s", body)
		}
		t.Run("a PostgreSQL that is killed is started again, and the web server lives", func(t *testing.T) {
			p.killPostgres(t, data)
			p.logs(1, "the private PostgreSQL ended; it is started again")
			dbtest.Eventually(t, "pages are served again", func() bool { return p.get("/polls/") == 200 })
		})
		t.Run("when it ends again and again, so does the server, and says where to look", func(t *testing.T) {
			for range mostRestarts - 1 {
				p.killPostgres(t, data)
			}
			p.killPostgres(t, data)
			p.ends().must(exitFailed, "the private PostgreSQL ended again, after 3 restarts; its log is")
		})
	})
	t.Run("--fresh starts anew", func(t *testing.T) {
		p := m.in(t).serving(append(run, "--fresh")...)
		if _, body := p.page("/polls/1/results/"); !strings.Contains(body, "41 votes") {
			t.Errorf("the vote is still there:\n%s", body)
		}
		if code := p.stop(syscall.SIGTERM); code != exitFine {
			t.Errorf("exit code %d:\n%s", code, p.log)
		}
	})
}

// fillAndEnter takes every ordinary slot of a server, and runs the command of each way in, in a shell.
func (m *machine) fillAndEnter(dsn string) {
	m.Helper()
	for {
		conn, err := pgx.Connect(m.Context(), dsn)
		if err != nil {
			break
		}
		m.Cleanup(func() { _ = conn.Close(context.WithoutCancel(m.Context())) })
	}
	o := m.runWith([]string{"XDG_RUNTIME_DIR=" + m.T.TempDir()}, "", "db-connections", "--dsn", dsn, "status", "--json") // of another user
	refusal := printed[activity.Failure](m.T, o.out).Refusal
	if refusal == nil {
		m.Fatalf("it was let in:\n%s", o.out)
	}
	ran := 0
	for _, way := range refusal.Ways {
		if !strings.Contains(way.Command, "psql") {
			continue
		}
		cmd := exec.CommandContext(m.Context(), "sh", "-c", way.Command)
		if out, err := cmd.CombinedOutput(); err != nil {
			m.Errorf("%s: %v\n%s", way.Command, err, out)
		}
		ran++
	}
	if ran == 0 {
		m.Errorf("no way in is a command of psql: %v", refusal.Ways)
	}
}

// mustBeStressed checks that the test endpoints are enabled, as by default under `ddtb run`.
func (p *process) mustBeStressed() {
	p.Helper()
	status, body := p.page("/test/pool-stress?threads=5&hold=0")
	if status != 200 || !strings.Contains(body, `"successes": 5`) {
		p.Errorf("%d\n%s", status, body)
	}
}

func vote(t *testing.T, p *process) {
	t.Helper()
	resp, err := fresh.Post(p.url+"/polls/1/vote/", "application/x-www-form-urlencoded", strings.NewReader("choice=1")) //nolint:noctx // a test's
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if !strings.HasSuffix(resp.Request.URL.Path, "/polls/1/results/") {
		t.Errorf("the vote led to %s: %s", resp.Request.URL, resp.Status)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestTheCommandsThatRunPrintsReachItsOwnServerAndData(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.write("[test]\nenabled = false\n")
	data := filepath.Join(m.home, "elsewhere")
	p := m.serving("run", "--addr", "127.0.0.1:0", "--data", data)
	welcome := p.log.String()
	if strings.Contains(welcome, "/test/") {
		t.Errorf("it names an endpoint that is off:\n%s", welcome)
	}
	if w := "run --fresh --addr 127.0.0.1:0 --data " + data; !strings.Contains(welcome, w) {
		t.Errorf("the welcome lacks %q:\n%s", w, welcome)
	}
	password := strings.TrimSpace(read(t, filepath.Join(data, "ddtb.password")))
	m.secrets = []string{password}
	m.mustKeepSecrets(welcome)
	found := regexp.MustCompile(`(?s)postgres://ddtb@(\S+)/ddtb.*\n  psql    ([^\n]+)\n.* db-connections --dsn '(\S+)' status`).FindStringSubmatch(welcome)
	if found == nil {
		t.Fatalf("no DSN, or no command with it:\n%s", welcome)
	}
	at := found[1]
	look := exec.CommandContext(t.Context(), os.Args[0], asDDTB, "db-connections", "--dsn", found[3], "status")
	look.Env = m.environ()
	seen, err := look.CombinedOutput()
	if err != nil || !strings.Contains(string(seen), at+", database ddtb, seen as ddtb") || strings.Contains(string(seen), "WARN") {
		t.Errorf("%v\n%s", err, seen)
	}
	m.mustKeepSecrets(string(seen))
	if user, err := exec.CommandContext(t.Context(), "sh", "-c", found[2]+" -Atc 'SELECT current_user'").Output(); string(user) != "ddtb\n" {
		t.Errorf("psql as printed: %q, %v", user, err)
	}
	t.Run("a command without --dsn finds it too", func(t *testing.T) {
		m.in(t).run("", "db-connections", "status").must(exitFine, at+", database ddtb, seen as ddtb")
	})
	t.Run("a grant runs as it is printed", func(t *testing.T) {
		hidden, err := pgx.Connect(t.Context(), strings.Replace(found[3], "ddtb@", "postgres@", 1))
		must(t, err)
		defer func() { _ = hidden.Close(context.WithoutCancel(t.Context())) }()
		status := m.in(t).run("", "db-connections", "--dsn", found[3], "status").out
		grant := regexp.MustCompile(`(?m)^ +(.*GRANT pg_read_all_stats.*)$`).FindStringSubmatch(status)
		if grant == nil {
			t.Fatalf("no grant is printed:\n%s", status)
		}
		if out, err := exec.CommandContext(t.Context(), "sh", "-c", grant[1]).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", grant[1], err, out)
		}
	})
	t.Run("the ways into it when it is full run as they are printed", func(t *testing.T) { m.in(t).fillAndEnter(found[3]) })
	if code := p.stop(os.Interrupt); code != exitFine || !strings.Contains(p.log.String(), "The data stays in "+data) ||
		!strings.Contains(p.log.String(), "--data "+data+" --fresh") {
		t.Errorf("exit code %d, or it does not say what stays and how to start anew:\n%s", code, p.log)
	}
}
