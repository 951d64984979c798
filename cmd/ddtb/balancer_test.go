package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ddtb/config"
	"ddtb/db/dbtest"
	"ddtb/db/logtest"
)

// replica is a ddtb process behind a balancer, at the same address whenever it is started.
type replica struct {
	testing.TB
	name, file  string
	addr, agent string // where it serves, and where its agent answers
	cmd         *exec.Cmd
	log         *logtest.Log
	done        chan struct{}
}

// newReplica is one on the database, with lines of [databases.default] in its configuration. It is not started.
func newReplica(t testing.TB, name string, cfg config.Database, lines string) *replica {
	t.Helper()
	r := &replica{TB: t, name: name, file: filepath.Join(t.TempDir(), "ddtb.toml"), addr: freeAddr(t), agent: freeAddr(t)}
	text := wayTo(cfg) + lines + fmt.Sprintf("\n[server]\naddr = %q\nagent_addr = %q\n", r.addr, r.agent)
	if err := os.WriteFile(r.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.end(syscall.SIGKILL) })
	return r
}

// freeAddr is an address that nothing listens on, outside of the range from which the kernel takes ports for others.
func freeAddr(t testing.TB) string {
	t.Helper()
	for {
		addr := fmt.Sprintf("127.0.0.1:%d", 12000+rand.N(20000))
		var lc net.ListenConfig
		if l, err := lc.Listen(context.Background(), "tcp", addr); err == nil {
			_ = l.Close()
			return addr
		}
	}
}

// start starts it, and waits until it is ready.
func (r *replica) start() {
	r.Helper()
	r.log, r.done = &logtest.Log{}, make(chan struct{})
	r.cmd = exec.CommandContext(context.Background(), os.Args[0], asDDTB, "runserver")
	r.cmd.Env = []string{"DDTB_CONFIG=" + r.file, "XDG_RUNTIME_DIR=" + filepath.Dir(r.file), "GORACE=atexit_sleep_ms=0"}
	r.cmd.Stdout, r.cmd.Stderr = r.log, r.log
	if err := r.cmd.Start(); err != nil {
		r.Fatal(err)
	}
	go func(done chan struct{}) {
		defer close(done)
		_ = r.cmd.Wait() // the process state has the result
	}(r.done)
	dbtest.Eventually(r, r.name+" is ready", func() bool {
		resp, err := fresh.Get("http://" + r.addr + "/readyz") //nolint:noctx // on this machine, and asked again
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// end sends the signal and waits for the end.
func (r *replica) end(s os.Signal) {
	if r.cmd == nil {
		return
	}
	_ = r.cmd.Process.Signal(s) // fails when it ended already
	<-r.done
}

// balancer is a HAProxy in front of replicas.
type balancer struct {
	testing.TB
	url    string
	socket string // of its administration
	stop   func()
}

const haproxyConfig = `global
    stats socket %s mode 600 level admin
defaults
    mode http
    timeout connect 1s
    timeout client 20s
    timeout server 20s
    timeout queue 5s
    option redispatch
frontend web
    bind fd@3
    default_backend app
backend app
    balance %s
    option httpchk GET /readyz
    default-server weight 100 check %s
`

// balancing is how a balancer finds out about its servers, and chooses one.
type balancing struct {
	algorithm string
	agents    bool
	every     time.Duration // between two checks
}

// soon is between two checks of a test's balancer.
const soon = 500 * time.Millisecond

// haproxyProgram is where it is. A machine without it fails the test.
func haproxyProgram(t testing.TB) string {
	t.Helper()
	for _, name := range []string{"haproxy", "/usr/sbin/haproxy"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("haproxy is not there: install Debian's package haproxy (apt-get install --no-install-recommends haproxy)")
	return ""
}

// haproxy starts a real HAProxy.
func haproxy(t testing.TB, how balancing, replicas ...*replica) *balancer {
	t.Helper()
	program := haproxyProgram(t)
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	bound, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "haproxy-") // short, for the path of the socket
	if err != nil {
		t.Fatal(err)
	}
	b := &balancer{TB: t, url: "http://" + l.Addr().String(), socket: filepath.Join(dir, "admin")}
	every := how.every.Milliseconds()
	checks := fmt.Sprintf("inter %dms", every)
	if how.agents {
		checks += fmt.Sprintf(" agent-check agent-inter %dms", every)
	}
	text := fmt.Sprintf(haproxyConfig, b.socket, how.algorithm, checks)
	for _, r := range replicas {
		text += fmt.Sprintf("    server %s %s", r.name, r.addr)
		if host, port, _ := net.SplitHostPort(r.agent); how.agents {
			text += fmt.Sprintf(" agent-addr %s agent-port %s", host, port)
		}
		text += "\n"
	}
	if err := os.WriteFile(filepath.Join(dir, "haproxy.cfg"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.CommandContext(context.Background(), program, "-db", "-f", filepath.Join(dir, "haproxy.cfg"))
	cmd.ExtraFiles, cmd.Stdout, cmd.Stderr = []*os.File{bound}, &log, &log
	if err := errors.Join(cmd.Start(), bound.Close(), l.Close()); err != nil {
		t.Fatal(err)
	}
	b.stop = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		if t.Failed() {
			t.Logf("HAProxy: %s", &log)
		}
		_ = os.RemoveAll(dir)
	})
	t.Cleanup(b.stop)
	for _, r := range replicas {
		b.waits(r, "is up", func(s server) bool { return s.status == "UP" })
	}
	return b
}

// server is what HAProxy knows of a replica.
type server struct {
	status, agent string // as in the statistics: "UP" or "DRAIN (agent)", and the agent's last answer
	weight        int
}

// command is an answer of HAProxy's administration.
func (b *balancer) command(line string) string {
	c, err := (&net.Dialer{Timeout: time.Second}).DialContext(context.Background(), "unix", b.socket)
	if err != nil {
		return ""
	}
	defer func() { _ = c.Close() }()
	_, _ = io.WriteString(c, line+"\n") // an error shows as a missing response
	text, _ := io.ReadAll(c)
	return string(text)
}

// state is what HAProxy knows of it now.
func (b *balancer) state(r *replica) server {
	of := b.statistics(r)
	weight, _ := strconv.Atoi(of["weight"]) // "" where HAProxy did not answer
	return server{of["status"], of["last_agt"], weight}
}

// statistics are all that HAProxy counts for it.
func (b *balancer) statistics(r *replica) map[string]string {
	of := map[string]string{}
	lines := strings.Split(b.command("show stat"), "\n")
	columns := strings.Split(lines[0], ",")
	for _, line := range lines[1:] {
		fields := strings.Split(line, ",")
		if len(fields) == len(columns) && fields[0] == "app" && fields[1] == r.name {
			for i, column := range columns {
				of[column] = fields[i]
			}
		}
	}
	return of
}

// waits waits until HAProxy knows it.
func (b *balancer) waits(r *replica, what string, is func(server) bool) {
	b.Helper()
	dbtest.Eventually(b, "to HAProxy "+r.name+" "+what, func() bool { return is(b.state(r)) })
}

// clients send requests over connections that stay open, as fast as they are answered, until they are stopped: each
// third is a vote.
type clients struct {
	votes, pages, failed atomic.Int64
	mu                   sync.Mutex
	why                  map[string]int // the failures, by what was answered
	stop                 func()
}

func (b *balancer) clients(n int) *clients {
	cs := &clients{why: map[string]int{}}
	ctx, cancel := context.WithCancel(context.Background())
	client := &http.Client{
		Transport:     &http.Transport{MaxIdleConnsPerHost: n},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	var ended sync.WaitGroup
	for range n {
		ended.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				cs.send(client, b.url, i%3 == 0)
			}
		})
	}
	cs.stop = sync.OnceFunc(func() {
		cancel()
		ended.Wait()
		client.CloseIdleConnections()
	})
	b.Cleanup(cs.stop)
	return cs
}

func (cs *clients) send(client *http.Client, site string, vote bool) {
	var resp *http.Response
	var err error
	if vote {
		resp, err = client.PostForm(site+"/polls/1/vote/", url.Values{"choice": {"1"}}) //nolint:noctx // the balancer ends it
	} else {
		resp, err = client.Get(site + "/polls/") //nolint:noctx // as above
	}
	if err != nil {
		cs.fail(err.Error())
		return
	}
	page, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	switch {
	case err != nil:
		cs.fail(err.Error())
	case vote && resp.StatusCode == http.StatusFound:
		cs.votes.Add(1)
	case !vote && resp.StatusCode == http.StatusOK:
		cs.pages.Add(1)
	default:
		_, title, _ := strings.Cut(string(page), "<title>") // ddtb's pages say why; HAProxy's have none
		title, _, _ = strings.Cut(title, "</title>")
		cs.fail(resp.Status + " " + title)
	}
}

func (cs *clients) fail(why string) {
	cs.failed.Add(1)
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.why[why]++
}

// goOn waits for more requests to be answered.
func (cs *clients) goOn(t testing.TB) {
	t.Helper()
	before := cs.pages.Load()
	dbtest.Eventually(t, "requests go on", func() bool { return cs.pages.Load() > before+50 })
}

func TestARollingDeployBehindHAProxyAtFullLoadFailsNoRequest(t *testing.T) {
	t.Parallel()
	m, cfg := withDatabase(t)
	m.run("", "loaddemo").must(exitFine)
	var fleet []*replica
	for _, name := range []string{"one", "two", "three"} {
		// A minute, so that a long queue on a slow machine refuses no request: the deploy would not be the cause.
		r := newReplica(t, name, cfg, "pool.max_size = 4\npool.timeout = \"1m\"")
		r.start()
		fleet = append(fleet, r)
	}
	control := dbtest.Control(t, cfg)
	stored := func() (votes int64) {
		if err := control.QueryRow(t.Context(), "SELECT sum(votes) FROM polls_choice").Scan(&votes); err != nil {
			t.Fatal(err)
		}
		return votes
	}
	before := stored()
	b := haproxy(t, balancing{"roundrobin", true, soon}, fleet...)
	cs := b.clients(64)
	cs.goOn(t)
	for _, r := range fleet {
		began := time.Now()
		r.end(syscall.SIGTERM)
		if code := r.cmd.ProcessState.ExitCode(); code != exitFine || time.Since(began) > 9*time.Second {
			t.Errorf("%s ended with %d after %v:\n%s", r.name, code, time.Since(began), r.log)
		}
		cs.goOn(t)
		r.start()
		b.waits(r, "serves again", func(s server) bool { return s.status == "UP" })
	}
	cs.goOn(t)
	cs.stop()
	if n := cs.failed.Load(); n > 0 {
		t.Errorf("%d of %d requests failed: %v", n, cs.pages.Load()+cs.votes.Load()+n, cs.why)
	}
	if votes := stored() - before; votes != cs.votes.Load() {
		t.Errorf("%d votes are stored, and %d were acknowledged", votes, cs.votes.Load())
	}
}

func TestHAProxyFollowsTheAgent(t *testing.T) {
	t.Parallel()
	m, cfg := withDatabase(t)
	m.run("", "loaddemo").must(exitFine)
	link, far := newRelay(t, cfg, 0)
	r := newReplica(t, "one", far, "pool.max_size = 1\npool.timeout = \"20s\"\n[test]\nenabled = true")
	r.start()
	b := haproxy(t, balancing{"roundrobin", true, soon}, r)
	b.waits(r, "is idle", func(s server) bool { return s.status == "UP" && s.weight == 100 })

	held, release := context.WithCancel(t.Context())
	defer release()
	hold := func() { // all of the pool, and as many again wait
		req, err := http.NewRequestWithContext(held, http.MethodGet, "http://"+r.addr+"/test/pool-stress?threads=2&hold=20s", nil)
		if err != nil {
			t.Error(err)
			return
		}
		if resp, err := fresh.Do(req); err == nil {
			_ = resp.Body.Close()
		}
	}
	var holding sync.WaitGroup
	holding.Go(hold)
	b.waits(r, "is busy", func(s server) bool { return s.status == "UP" && s.weight < 40 })
	release()
	holding.Wait()
	b.waits(r, "is idle again", func(s server) bool { return s.weight > 60 })

	link.cut(true)
	b.waits(r, "is down", func(s server) bool {
		return strings.HasPrefix(s.status, "DOWN (agent)") && strings.HasSuffix(s.agent, "down (server unavailable)")
	})
	link.cut(false)
	b.waits(r, "is up again", func(s server) bool { return s.status == "UP" })

	r.end(syscall.SIGTERM)
	b.waits(r, "is drained", func(s server) bool { return strings.Contains(s.status, "DRAIN") || strings.HasPrefix(s.status, "DOWN") })
	r.start()
	b.waits(r, "serves again", func(s server) bool { return s.status == "UP" && s.weight == 100 })
}
