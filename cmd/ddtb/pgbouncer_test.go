package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/activity"
	"ddtb/db/dbtest"
	"ddtb/db/localpg/system"
	"ddtb/db/logtest"
)

// bouncer is a real PgBouncer in transaction mode, in front of the tests' PostgreSQL.
type bouncer struct {
	cfg config.Database // through it, and past it by direct_host
	log *logtest.Log
}

// pooledServers is how many connections the PgBouncer of these tests has to the server: fewer than its clients, so that they
// share.
const pooledServers = 3

const bouncerINI = `[databases]
* = host=%s port=%d
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = scram-sha-256
auth_file = %s
pool_mode = transaction
default_pool_size = %d
stats_users = %s
`

func newBouncer(m *machine, direct config.Database) *bouncer {
	m.Helper()
	return newBouncerFor(m, direct, direct.User)
}

// newBouncerFor is one that shows its pools to that user. Pairs of edits replace text of its configuration.
func newBouncerFor(m *machine, direct config.Database, reader string, edits ...string) *bouncer {
	m.Helper()
	program := findBouncer(m)
	port := freePort(m)
	users := filepath.Join(m.home, "users.txt")
	m.own(users, fmt.Sprintf("%q %q\n", direct.User, direct.Password.Reveal()))
	ini := filepath.Join(m.home, "pgbouncer.ini")
	text := fmt.Sprintf(bouncerINI, direct.Host, direct.Port, port, users, pooledServers, reader)
	m.own(ini, strings.NewReplacer(edits...).Replace(text))
	b := &bouncer{cfg: direct, log: &logtest.Log{}}
	b.cfg.Host, b.cfg.Port, b.cfg.Pooler = "127.0.0.1", port, db.PgBouncer
	b.cfg.DirectHost, b.cfg.DirectPort = direct.Host, direct.Port
	cmd := exec.Command(program, ini) //nolint:noctx // it is stopped below
	cmd.Stdout, cmd.Stderr = b.log, b.log
	asOrdinaryUser(m, cmd)
	if err := cmd.Start(); err != nil {
		m.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it ends by the signal
	}()
	m.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	dbtest.Eventually(m.T, "PgBouncer answers", func() bool {
		select {
		case <-ended:
			m.Fatalf("PgBouncer ended:\n%s", b.log)
		default:
		}
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(m.Context(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return b
}

// findBouncer looks also where Debian puts it, which is not in every user's PATH.
func findBouncer(m *machine) string {
	m.Helper()
	for _, name := range []string{"pgbouncer", "/usr/sbin/pgbouncer"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	m.Fatal("PgBouncer is missing: apt-get install pgbouncer, or brew install pgbouncer")
	return ""
}

func freePort(m *machine) int {
	m.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(m.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		m.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

// asOrdinaryUser makes PgBouncer run as another user where root starts it, which it refuses to run as.
func asOrdinaryUser(m *machine, cmd *exec.Cmd) {
	m.Helper()
	if os.Geteuid() != 0 {
		return
	}
	uid, gid := ownerForRoot(m)
	system.NewGroup(cmd)
	system.RunAs(cmd, uid, gid)
}

func ownerForRoot(m *machine) (uid, gid int) {
	m.Helper()
	u, err := user.Lookup("postgres")
	if err != nil {
		u, err = user.Lookup("nobody")
	}
	if err != nil {
		m.Fatal(err)
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	if err := errors.Join(err1, err2); err != nil {
		m.Fatal(err)
	}
	return uid, gid
}

// own writes a file that PgBouncer's user alone can read.
func (m *machine) own(path, text string) {
	m.Helper()
	err := os.WriteFile(path, []byte(text), 0o600)
	if err == nil && os.Geteuid() == 0 {
		uid, gid := ownerForRoot(m)
		err = os.Chown(path, uid, gid)
	}
	if err != nil {
		m.Fatal(err)
	}
}

// logins is how many clients PgBouncer has let in for a database.
func (b *bouncer) logins(database string) int {
	return b.log.Count("login attempt: db=" + database + " ")
}

// behindBouncer is a machine whose configuration leads through a PgBouncer.
func behindBouncer(t *testing.T, strategy string) (*machine, *bouncer) {
	t.Helper()
	m, direct := withDatabase(t)
	b := newBouncer(m, direct)
	m.configure(b.cfg, `pooler = "pgbouncer"`, fmt.Sprintf("direct_host = %q", b.cfg.DirectHost),
		fmt.Sprintf("direct_port = %d", b.cfg.DirectPort), fmt.Sprintf("strategy = %q", strategy))
	return m, b
}

func TestEveryStrategySharesPgBouncersConnectionsWithoutPreparedStatementsInTheWay(t *testing.T) {
	t.Parallel()
	m, direct := withDatabase(t)
	b := newBouncer(m, direct)
	control := dbtest.Control(t, direct)
	for _, strategy := range []string{db.Pool, db.Persistent, db.PerRequest} {
		t.Run(strategy, func(t *testing.T) {
			cfg := b.cfg
			cfg.Strategy, cfg.ApplicationName = strategy, "bounced"
			d, err := db.Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = d.Close(t.Context()) }()
			var all sync.WaitGroup
			for worker := range 8 {
				all.Go(func() {
					for round := range 20 {
						if err := asksInManyWays(t, d, 100*worker+round); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
			if n := dbtest.Backends(t, control, "bounced/"+strategy); n > pooledServers {
				t.Errorf("%d connections to the server, of %d", n, pooledServers)
			}
		})
	}
}

// asksInManyWays runs queries, the same again and again with other parameters, alone and in a transaction, each
// perhaps on another connection of PgBouncer's.
func asksInManyWays(t *testing.T, d *db.DB, n int) error {
	ctx, end := d.Begin(t.Context())
	defer end()
	var number int
	var text string
	var at time.Time
	now := time.Now().Truncate(time.Microsecond)
	err := d.QueryRow(ctx, "SELECT $1::int, $2::text, $3::timestamptz", n, fmt.Sprint(n), now).Scan(&number, &text, &at)
	if err == nil && (number != n || text != fmt.Sprint(n) || !at.Equal(now)) {
		err = fmt.Errorf("%d is %d, %s, %v", n, number, text, at)
	}
	return errors.Join(err, d.InTx(ctx, func(q db.Querier) error {
		if _, err := q.Exec(ctx, "INSERT INTO polls_question (question_text, pub_date) VALUES ($1, $2)", text, now); err != nil {
			return err
		}
		return q.QueryRow(ctx, "SELECT count(*) FROM polls_question WHERE question_text = $1", text).Scan(&number)
	}))
}

func TestDBConnectionsShowsPgBouncersPoolsAndLooksPastIt(t *testing.T) {
	t.Parallel()
	m, b := behindBouncer(t, db.Pool)
	d, err := db.Open(t.Context(), b.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close(t.Context()) }()
	if _, err := d.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Fatal(err)
	}
	before := b.logins(b.cfg.Name)
	m.run("", "db-connections", "status").must(exitFine, "PgBouncer's pools", b.cfg.Name+" as "+b.cfg.User, "transaction", "longest wait")
	s := printed[activity.Status](t, m.run("", "db-connections", "status", "--json").out)
	pool := activity.Pool{}
	for _, p := range s.Pools {
		if p.Database == b.cfg.Name {
			pool = p
		}
	}
	if pool.Mode != "transaction" || pool.User != b.cfg.User || pool.ClientActive != 1 || pool.ServerActive+pool.ServerIdle+pool.ServerUsed != 1 {
		t.Errorf("%+v", s.Pools)
	}
	if s.Server.Address != net.JoinHostPort(b.cfg.DirectHost, strconv.Itoa(b.cfg.DirectPort)) {
		t.Errorf("it looked at %s", s.Server.Address)
	}
	m.run("", "db-connections", "doctor", "--json").must(exitFine, `"slots"`)
	m.run("", "db-connections", "budget").must(exitFine, "default_pool_size", "max_client_conn")
	if now := b.logins(b.cfg.Name); now != before {
		t.Errorf("%d logins to the database by PgBouncer, from %d: looking took a client's place", now, before)
	}
}

func TestStatusSaysWhomPgBouncerMustListIfItIsNotAllowedToSeeThePools(t *testing.T) {
	t.Parallel()
	m, direct := withDatabase(t)
	cfg := newBouncerFor(m, direct, "nobody").cfg
	m.configure(cfg, `pooler = "pgbouncer"`, fmt.Sprintf("direct_host = %q", cfg.DirectHost), fmt.Sprintf("direct_port = %d", cfg.DirectPort))
	m.run("", "db-connections", "status").must(exitFine, "Slots", "its stats_users must list "+cfg.User)
}

func TestTheMonitorPollsThroughPgBouncerWhereThereIsNoOtherWay(t *testing.T) {
	t.Parallel()
	m, direct := withDatabase(t)
	cfg := newBouncer(m, direct).cfg
	cfg.DirectHost, cfg.DirectPort = "", 0
	eye, err := activity.NewObserver(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer eye.Close()
	for range 3 {
		now, earlier, err := activity.PollTwice(t.Context(), eye)
		if err != nil {
			t.Fatal(err)
		}
		if d := activity.Diagnose(now, earlier, activity.ThresholdsOf(config.Monitor{})); d.Health.Slots.Used == 0 {
			t.Errorf("%+v", d.Health)
		}
	}
}

func TestMigrationsGoPastPgBouncerAndTheServerThroughIt(t *testing.T) {
	t.Parallel()
	m, b := behindBouncer(t, db.Pool)
	m.run("", "migrate", "down", "--yes").must(exitFine, "Took back 0000")
	m.run("", "migrate").must(exitFine, "Applied 0000")
	m.run("", "loaddemo").must(exitFine, "Added 7 questions.")
	before := b.logins(b.cfg.Name)
	p := m.serving("runserver", "127.0.0.1:0")
	for range 20 {
		if status, body := p.page("/polls/"); status != http.StatusOK || !strings.Contains(body, "<html") {
			t.Fatalf("%d\n%s", status, body)
		}
	}
	if b.logins(b.cfg.Name) == before {
		t.Error("the server went past PgBouncer")
	}
	if code := p.stop(syscall.SIGTERM); code != exitFine {
		t.Errorf("the server ended with %d:\n%s", code, p.log)
	}
}
