package activity

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	osexec "os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"ddtb/db/localpg"
)

// situation is a server in trouble with real clients: what the doctor must say, and what its commands must do.
type situation struct {
	name     string
	role     string // who looks; "": app
	play     func(*stage)
	code     string // of a finding; "": nothing is wrong
	culprit  string
	scenario string                  // "": none of the known ones
	first    string                  // is in the first step's text or command
	mayLose  string                  // the application whose sessions may end
	better   func(*stage) bool       // afterwards; nil: fewer slots or fewer waiters
	tune     func(*Thresholds)       // so that a test need not wait a minute
	also     func(*stage, Diagnosis) // further checks
}

const (
	nothing = "end nothing"
	dumps   = "pg_dump waits for an ALTER TABLE, which waits for a transaction that was left open"
)

// situations are those that DBAs tried, and in which a doctor is easily wrong.
var situations = []situation{
	{
		name: "logins that hang fill the server", role: localpg.Superuser,
		play: func(s *stage) {
			s.hang(s.usable())
			eventually(s.T, "they have hung for as long as a step says", func() bool {
				hung := s.after().clients(func(x Session) bool { return x.LogsIn() && x.Age > seconds(5) })
				return !s.newer() || len(hung) == s.usable()
			})
		},
		code: "login", culprit: "clients that don't finish their login", first: "find the",
		better: func(s *stage) bool { return !s.newer() || len(s.after().logins(nil)) == 0 }, // an older one ends them in a minute
		also: func(s *stage, d Diagnosis) {
			if d.Health.Level != Critical || !strings.Contains(d.Health.Findings[0].What, fmt.Sprintf("%d logins don't finish", s.usable())) {
				s.Errorf("%+v", d.Health.Findings[0])
			}
		},
	},
	{
		name: "logins that hang fill the server, seen by an ordinary role",
		play: func(s *stage) { s.hang(s.usable() - 1) }, // the one that looks has the last slot
		code: "login", culprit: "clients that don't finish their login", first: "find the", better: always,
	},
	{
		name: "Puma names each process, and a small application rests beside it",
		play: func(s *stage) {
			s.python(`
held = []
for n in range(10):
    held.append(psycopg2.connect(application_name="puma: cluster worker %d: %d [shop]" % (n // 2, 4000 + n // 2)))
    held[-1].autocommit = True
    held[-1].cursor().execute("SELECT %d" % n)
cron = [psycopg2.connect(application_name="cron") for n in range(2)]
time.sleep(600)
`)
		},
		code: "idle", culprit: "puma*", scenario: "replicas-times-pool thread-leak hidden-second-pool", first: "--application='puma*'", mayLose: "puma*",
	},
	{
		name: "an ALTER TABLE waits behind a long report, and everybody behind it",
		play: func(s *stage) {
			s.stock()
			s.psql("report", "SELECT count(*), pg_sleep(600) FROM stock")
			s.appears("report", 1)
			s.psql("migrate", "ALTER TABLE stock ADD COLUMN m int")
			s.waits(1)
			for range 4 {
				s.psql("reader", "SELECT count(*) FROM stock")
			}
		},
		code: "lock-queue", culprit: "migrate", scenario: "lock-queue", first: "cancel the statement that waits first", mayLose: "migrate",
		better: func(s *stage) bool { return len(s.after().waiting()) == 0 },
	},
	{
		name: "a backup reads while an ALTER TABLE waits",
		play: func(s *stage) {
			s.stock()
			s.psql("pg_dump", "BEGIN; LOCK TABLE stock IN ACCESS SHARE MODE; SELECT pg_sleep(600)")
			s.appears("pg_dump", 1)
			s.psql("migrate", "ALTER TABLE stock ADD COLUMN m int")
			for range 3 {
				s.psql("migrate", "ALTER TABLE stock ADD COLUMN n int")
			}
		},
		code: "lock-queue", culprit: "migrate", scenario: "lock-queue", first: "is a backup: let it finish", better: always,
	},
	{
		name: "fifty short sessions a second, with autocommit off",
		play: (*stage).comesAndGoes,
		code: "churn", culprit: "cron", scenario: "too-much-at-once", first: nothing, mayLose: "cron", better: always,
		tune: busyMachine,
	},
	{
		name: "a program connects and gives up again and again after a restart of the server, beside a pool that filled once",
		play: func(s *stage) {
			s.python(`
pool = psycopg2.pool.ThreadedConnectionPool(3, 3, application_name="api")
time.sleep(600)
`)
			s.comesAndGoes()
		},
		code: "churn", culprit: "cron", scenario: "reconnect-stampede", first: nothing, mayLose: "cron", better: always,
		tune: func(t *Thresholds) { busyMachine(t); t.Restarted = time.Hour },
	},
	{
		name: "a hot row, which clients of pgbench update one after another",
		play: func(s *stage) {
			owner := s.session(s.T, app, "wall", "owner")
			exec(s.T, owner, "DROP TABLE IF EXISTS hot; CREATE TABLE hot (n int); INSERT INTO hot VALUES (0)")
			must(s.T, owner.Close(s.Context()))
			s.file("hot.sql", "BEGIN;\nUPDATE hot SET n = n + 1;\nSELECT pg_sleep(0.2);\nCOMMIT;\n", func(path string) {
				s.program("", "pgbench", "-n", "-c", "8", "-j", "2", "-T", "600", "-f", path)
			})
		},
		code: "lock-queue", culprit: "pgbench", scenario: "lock-queue", first: "end nothing: the queue moves", better: always,
	},
	{
		name: "one transaction of another role holds the row, and this role may not end it", role: reader,
		play: func(s *stage) {
			s.stock()
			s.python(`
c = psycopg2.connect(application_name="web")
c.cursor().execute("UPDATE stock SET text = 'mine' WHERE n = 1")
time.sleep(600)
`)
			s.appears("web", 1)
			for range 3 {
				s.psql("shop/pool", "UPDATE stock SET text = 'ours' WHERE n = 1")
			}
		},
		code: "lock-queue", culprit: "web", scenario: "leaked-transaction", first: "GRANT pg_signal_backend", mayLose: "web",
		better: func(s *stage) bool { return len(s.after().waiting()) == 0 },
	},
	{
		name: "a superuser left the transaction open that all wait for, and this role can't see it",
		play: func(s *stage) { s.superuserBlocks() },
		code: "lock-queue", culprit: "dba", scenario: "lock-queue", first: "GRANT pg_read_all_stats", better: always,
	},
	{
		name: "a superuser left the transaction open that all wait for", role: reader,
		play: func(s *stage) { s.superuserBlocks() },
		code: "lock-queue", culprit: "dba", scenario: "leaked-transaction", first: "as a superuser", mayLose: "dba",
		better: func(s *stage) bool { return len(s.after().waiting()) == 0 },
	},
	{
		name: "a superuser left it open, and a superuser looks", role: localpg.Superuser,
		play: func(s *stage) { s.superuserBlocks() },
		code: "lock-queue", culprit: "dba", scenario: "leaked-transaction", first: "--superusers", mayLose: "dba",
		better: func(s *stage) bool { return len(s.after().waiting()) == 0 },
	},
	{
		name: "a role has reached its own limit", role: reader,
		play: func(s *stage) {
			exec(s.T, s.control("postgres"), "ALTER ROLE app CONNECTION LIMIT 4")
			s.python(`
held = [psycopg2.connect(application_name="web") for n in range(4)]
time.sleep(600)
`)
			s.sessions("web", 4)
		},
		code: "limit", culprit: "web", first: "raise the limit",
		better: func(s *stage) bool { return s.succeeds("SELECT 1") },
		also: func(s *stage, d Diagnosis) {
			if !strings.Contains(d.Health.Findings[0].What, "role app has 4 of 4 (web: 4)") {
				s.Error(d.Health.Findings[0].What)
			}
		},
	},
	{
		name: "a database has reached its own limit", role: reader,
		play: func(s *stage) {
			exec(s.T, s.control("postgres"), "ALTER DATABASE wall CONNECTION LIMIT 5")
			s.python(`
held = [psycopg2.connect(application_name="web") for n in range(3)]
while len(held) < 4: # the test's own look takes a slot of the database for a moment
    try:
        held.append(psycopg2.connect(application_name="jobs"))
    except psycopg2.OperationalError:
        time.sleep(0.05)
time.sleep(600)
`)
			s.sessions("jobs", 1)
		},
		code: "limit", culprit: "web", first: "raise the limit",
		better: func(s *stage) bool { return s.succeeds("SELECT 1") },
	},
	{
		name: "modules listen, each on a session of its own",
		play: func(s *stage) {
			s.python(`
held = []
for n in range(10):
    c = psycopg2.connect(application_name="web")
    c.autocommit = True
    c.cursor().execute("LISTEN news")
    held.append(c)
time.sleep(600)
`)
		},
		code: "idle", culprit: "web", scenario: "listen-pins-slot", first: nothing, better: always,
	},
	{
		name: "three services rest with a pool each",
		play: func(s *stage) {
			for _, name := range []string{"web", "api", "jobs"} {
				s.python(`
pool = psycopg2.pool.ThreadedConnectionPool(3, 3, application_name="` + name + `")
time.sleep(600)
`)
			}
		},
		code: "idle", culprit: "api, jobs, web", scenario: "replicas-times-pool", first: nothing, better: always,
	},
	{
		name: "workers take turns by an advisory lock, and one of them works",
		play: func(s *stage) {
			s.psql("worker", "SELECT pg_advisory_lock(7); SELECT pg_sleep(600)")
			s.appears("worker", 1)
			for range 3 {
				s.psql("waiter", "SELECT pg_advisory_lock(7)")
			}
			s.waits(3)
		},
		code: "lock-queue", culprit: "worker", scenario: "migrate-refused", first: nothing, mayLose: "worker",
		better: func(s *stage) bool { return len(s.after().waiting()) < 3 }, // the next one has its turn
	},
	{
		name: "a client stopped reading its rows",
		play: func(s *stage) {
			s.stock()
			s.python(`
import os
c = psycopg2.connect(application_name="export")
r, w = os.pipe()
c.cursor().copy_expert("COPY stock TO STDOUT", os.fdopen(w, "wb"))
`)
		},
		code: "long-query", culprit: "export", scenario: "stream-holds-lease", first: "force-close --pid=", mayLose: "export",
		tune: func(t *Thresholds) { t.LongQuery = time.Second },
	},
	{
		name: "a transaction was left open, and nobody waits", role: closer,
		play: func(s *stage) {
			s.python(`
held = []
for n in range(3):
    held.append(psycopg2.connect(application_name="jobs"))
    held[-1].cursor().execute("SELECT 1")
rest = psycopg2.connect(application_name="jobs")
time.sleep(600)
`)
		},
		code: "idle-in-transaction", culprit: "jobs", scenario: "leaked-transaction", first: "close-idle --in-transaction", mayLose: "jobs",
		tune: func(t *Thresholds) { t.IdleInTransaction = time.Millisecond },
	},
	{
		name: "a prepared transaction was forgotten, in another database", role: reader,
		play: func(s *stage) {
			conn := s.session(s.T, other, "elsewhere", "bank")
			exec(s.T, conn, "DROP TABLE IF EXISTS money; CREATE TABLE money (n int); INSERT INTO money VALUES (1)")
			exec(s.T, conn, "BEGIN; UPDATE money SET n = 2")
			exec(s.T, conn, "PREPARE TRANSACTION 'it''s forgotten'")
			for range 3 {
				s.running(1, other, "elsewhere", "bank", "UPDATE money SET n = 3")
			}
		},
		code: "lock-queue", culprit: "prepared transaction", scenario: "lock-queue", first: "ask the transaction manager", better: func(s *stage) bool {
			now := s.after()
			return len(now.Prepared) == 0 && len(now.waiting()) == 0
		},
	},
	{
		name: "commits wait for a synchronous standby that is gone", role: reader,
		play: func(s *stage) {
			s.stock()
			control := s.control("postgres")
			exec(s.T, control, "ALTER SYSTEM SET synchronous_standby_names = 'gone'")
			exec(s.T, control, "SELECT pg_reload_conf()")
			eventually(s.T, "the standby is awaited", func() bool { return s.after().Server.SyncStandby == "gone" })
			for n := range 3 {
				s.psql("web", fmt.Sprintf("SET synchronous_commit = on; UPDATE stock SET text = 'new' WHERE n = %d", n+1))
			}
		},
		code: "sync-standby", culprit: "a synchronous standby that does not answer", first: "bring the standby back", mayLose: "web",
		better: func(s *stage) bool {
			return !slices.ContainsFunc(s.after().Sessions, func(x Session) bool { return x.Wait == "IPC/SyncRep" })
		},
	},
	{
		name: "the database refuses writes", role: closer,
		play: func(s *stage) {
			exec(s.T, s.control("postgres"), "ALTER DATABASE wall SET default_transaction_read_only = on")
		},
		code: "read-only", culprit: "the setting default_transaction_read_only", first: "allow writes again",
		better: func(s *stage) bool {
			return s.succeeds("CREATE TABLE written (n int); DROP TABLE written") && !s.after().Server.ReadOnly
		},
	},
	{
		name: "the database refuses the writes of one role, although it lets others write",
		play: func(s *stage) {
			exec(s.T, s.control("postgres"), "ALTER DATABASE wall SET default_transaction_read_only = off")
			exec(s.T, s.control("postgres"), "ALTER ROLE app SET default_transaction_read_only = on")
			exec(s.T, s.control("postgres"), "ALTER ROLE app IN DATABASE wall SET default_transaction_read_only = on")
		},
		code: "read-only", culprit: "the setting default_transaction_read_only", first: "allow writes again",
		better: func(s *stage) bool { return s.succeeds("CREATE TABLE written (n int); DROP TABLE written") },
	},
	{
		name: "nobody reads from a replication slot", role: reader,
		play: func(s *stage) {
			control := s.control("wall")
			exec(s.T, control, "SELECT pg_create_physical_replication_slot('gone', true)")
			s.growsWAL(control)
		},
		code: "replication-slot", culprit: "the reader of replication slot gone", first: nothing,
		better: func(s *stage) bool { return len(s.after().WALSlots) == 0 },
	},
}

// growsWAL writes more WAL than max_wal_size, which the replication slot 'gone' keeps.
func (s *stage) growsWAL(control *pgx.Conn) {
	s.Helper()
	s.Cleanup(func() {
		conn, err := s.Connect(context.Background(), "postgres")
		if err == nil {
			_, _ = conn.Exec(context.Background(), "SELECT pg_drop_replication_slot('gone')") // unless a step did
			_ = conn.Close(context.Background())
		}
	})
	for range 4 {
		exec(s.T, control, "CREATE TABLE filler AS SELECT repeat('x', 1000) FROM generate_series(1, 10000); DROP TABLE filler")
		exec(s.T, control, "SELECT pg_switch_wal()")
	}
	exec(s.T, control, "CHECKPOINT")
}

func always(*stage) bool { return true }

// busyMachine allows for one that can't log in ten clients a second.
func busyMachine(t *Thresholds) { t.Churn = 3 }

func (s *stage) newer() bool { return s.reserved } // the newest PostgreSQL

// succeeds reports whether a new session may do this.
func (s *stage) succeeds(sql string) bool {
	conn, err := s.connect(s.Context(), app, "wall", "late")
	if err != nil {
		return false
	}
	_, err = conn.Exec(s.Context(), sql)
	_ = conn.Close(s.Context())
	return err == nil
}

// hang opens n sockets that begin a login and say nothing more.
func (s *stage) hang(n int) {
	s.Helper()
	cfg := s.config(app, "wall")
	text := []byte("user\x00app\x00database\x00wall\x00\x00")
	message := binary.BigEndian.AppendUint32(nil, uint32(8+len(text)))
	message = append(binary.BigEndian.AppendUint32(message, 196608), text...)
	for range n {
		conn, err := new(net.Dialer).DialContext(s.Context(), "tcp", net.JoinHostPort(cfg.Host, strconv.Itoa(cfg.Port)))
		must(s.T, err)
		s.Cleanup(func() { _ = conn.Close() })
		_, err = conn.Write(message)
		must(s.T, err)
		must(s.T, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
		answer := make([]byte, 1)
		if _, err = conn.Read(answer); err != nil || answer[0] != 'R' {
			s.Fatalf("the server does not ask for a password: %q, %v", answer, err)
		}
	}
}

// comesAndGoes connects for each piece of work, fifty times a second.
func (s *stage) comesAndGoes() {
	s.Helper()
	s.python(`
def come_and_go():
    while True:
        try:
            c = psycopg2.connect(application_name="cron")
            c.cursor().execute("SELECT count(*) FROM pg_class")
            time.sleep(0.02)
            c.close()
        except psycopg2.OperationalError:
            time.sleep(0.1)
for n in range(3):
    threading.Thread(target=come_and_go, daemon=True).start()
time.sleep(600)
`)
}

// superuserBlocks lets a superuser forget a transaction on which others wait.
func (s *stage) superuserBlocks() {
	s.Helper()
	s.stock()
	conn := s.session(s.T, localpg.Superuser, "wall", "dba")
	exec(s.T, conn, "BEGIN; LOCK TABLE stock")
	for range 3 {
		s.psql("web", "SELECT count(*) FROM stock")
	}
}

// appears waits until so many sessions of the application are there, and active or in a transaction.
func (s *stage) appears(application string, n int) {
	s.Helper()
	eventually(s.T, application+" is there", func() bool {
		return len(s.after().clients(func(x Session) bool {
			return x.Application == application && (x.InTransactionIdle() || x.State == Active && x.InQuery > seconds(0.1))
		})) == n
	})
}

func (s *stage) waits(n int) {
	s.Helper()
	eventually(s.T, "sessions wait", func() bool { return len(s.after().waiting()) == n })
}

func (s *stage) file(name, text string, use func(path string)) {
	s.Helper()
	path := s.TempDir() + "/" + name
	must(s.T, os.WriteFile(path, []byte(text), 0o644))
	use(path)
}

// look is what the command line does.
func (s *stage) look(o *Observer) (now Snapshot, earlier *Snapshot) {
	s.Helper()
	now, earlier, err := PollTwice(s.Context(), o)
	must(s.T, err)
	return now, earlier
}

func (x situation) tuned() Thresholds {
	t := defaults()
	t.Idle, t.Restarted = 2*time.Second, 0
	if x.code == "" {
		t.Idle = time.Minute // a session at rest is not to blame because the machine was slow to look
	}
	if x.tune != nil {
		x.tune(&t)
	}
	return t
}

// rightly says what is wrong with a diagnosis; "" when it is as it should be.
func (x situation) rightly(d Diagnosis) string {
	codes := []string{}
	for _, f := range d.Health.Findings {
		codes = append(codes, f.Code)
	}
	scenario := ""
	if d.Scenario != nil {
		scenario = d.Scenario.Name
	}
	switch {
	case x.code == "": // nothing is wrong
		if d.Health.Level != OK || d.Culprit != "" || len(d.Steps) > 0 {
			return fmt.Sprintf("the findings are %v, the culprit %q", codes, d.Culprit)
		}
		return ""
	case !slices.Contains(codes, x.code):
		return fmt.Sprintf("the findings are %v", codes)
	case d.Culprit != x.culprit:
		return fmt.Sprintf("the culprit is %q of %v", d.Culprit, codes)
	case scenario != x.scenario && !slices.Contains(strings.Fields(x.scenario), scenario):
		return fmt.Sprintf("the scenario is %q", scenario)
	case !strings.Contains(d.Steps[0].String(), x.first):
		return fmt.Sprintf("the first step is %q", d.Steps[0])
	}
	return ""
}

// situations are those to be played on the server. Programs see no difference between versions.
func (s *server) situations() []situation {
	if s.reserved {
		return situations
	}
	all := slices.Concat(situations, programs, working)
	without := func(begin, why string) {
		fmt.Printf("%s: %s: not played\n", why, begin)
		all = slices.DeleteFunc(all, func(x situation) bool { return x.name == begin || strings.HasPrefix(x.name, begin+" ") })
	}
	if _, err := osexec.LookPath("npm"); err != nil {
		without("node-postgres", "npm is missing")
	}
	if out, err := osexec.CommandContext(context.Background(), "pg_dump", "--version").Output(); err != nil || !strings.Contains(string(out), " "+s.major()+".") {
		without(dumps, "pg_dump is of another version than the server")
	}
	return all
}

func (s *server) major() string {
	major, _, _ := strings.Cut(s.Version(), ".")
	return major
}

// A situation mostly waits, so several servers are in trouble at the same time: two of each version.
func TestTheDoctorIsRightAndItsCommandsHelpInEverySituation(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	for _, s := range servers {
		all := s.situations()
		for half := range 2 {
			t.Run(fmt.Sprintf("%s, half %d", s.name, half+1), func(t *testing.T) {
				t.Parallel()
				s := s
				if half > 0 {
					s = s.twin(t)
				}
				for i := half; i < len(all); i += 2 {
					t.Run(all[i].name, func(t *testing.T) { (&stage{t, s}).check(all[i]) })
				}
			})
		}
	}
}

// twin starts another server of the same version.
func (s *server) twin(t *testing.T) *server {
	t.Helper()
	twin, err := startServer(t.Context(), fmt.Sprintf("twin-newest-%v", s.reserved), s.reserved)
	must(t, err)
	t.Cleanup(func() { must(t, twin.Crash(context.Background())) })
	return twin
}

// check plays a situation, and follows what the doctor says.
func (s *stage) check(x situation) {
	s.Helper()
	s.Cleanup(func() { s.mustBecomeEmpty(s.T) })
	s.Cleanup(s.restore)
	s.Cleanup(s.clear)
	o, err := NewObserver(s.config(cmp.Or(x.role, app), "wall"))
	must(s.T, err)
	s.Cleanup(o.Close)
	snapshot(s.T, o) // it is connected before the trouble begins
	x.play(s)
	var d Diagnosis
	wrong := ""
	defer func() { s.Log(wrong) }()
	eventually(s.T, "the doctor is right", func() bool {
		d = diagnoseNow(s, o, x)
		wrong = x.rightly(d)
		return wrong == ""
	})
	if x.also != nil {
		x.also(s, d)
	}
	before := s.settled()
	s.follow(cmp.Or(x.role, app), d.Steps)
	eventually(s.T, "the state is better", func() bool {
		if x.better == nil {
			return trouble(s.after()) < trouble(before)
		}
		return x.better(s)
	})
	s.spares(before, s.after(), func(y Session) bool {
		return x.mayLose != "" && (y.Who() == x.mayLose || named(y.Application, x.mayLose))
	})
}

// diagnoseNow is one run of the doctor.
func diagnoseNow(st *stage, o *Observer, x situation) Diagnosis {
	now, earlier := st.look(o)
	return Diagnose(now, earlier, x.tuned())
}
