package activity

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// working are situations in which the server or its clients work, wait for each other, or do something unusual, so that
// the wrong one is easily blamed.
var working = []situation{
	{
		name: "a vacuum that prevents a wraparound has the table, an ALTER TABLE waits, and everybody behind it", role: closer,
		play: func(s *stage) {
			s.preventsWraparound()
			s.psql("migrate", "ALTER TABLE stock ADD COLUMN m int")
			s.waits(1)
			for range 3 {
				s.psql("web", "SELECT count(*) FROM stock WHERE n = 1")
			}
			s.waits(4)
		},
		code: "lock-queue", culprit: "migrate", scenario: "lock-queue", first: "cancel the statement that waits first", mayLose: "migrate",
		better: (*stage).nobodyWaits,
	},
	{
		name: "a vacuum that prevents a wraparound has the table, and migrations wait for it", role: closer,
		play: func(s *stage) {
			s.preventsWraparound()
			for n := range 3 {
				s.psql("migrate", fmt.Sprintf("ALTER TABLE stock ADD COLUMN m%d int", n))
			}
			s.waits(3)
		},
		code: "lock-queue", culprit: "autovacuum worker", scenario: "lock-queue", first: "prevents a wraparound, so it does not make way", better: always,
	},
	{
		name: dumps, role: closer,
		play: func(s *stage) {
			s.stock()
			s.python(`
c = psycopg2.connect(application_name="jobs")
c.cursor().execute("SELECT 1 FROM stock")
time.sleep(600)
`)
			s.appears("jobs", 1)
			s.psql("migrate", "ALTER TABLE stock ADD COLUMN m int")
			s.waits(1)
			s.program("", "sh", "-c", "pg_dump --table=stock | sleep 600") // its reader stops it when it has the lock
			s.waits(2)
			s.psql("web", "SELECT count(*) FROM stock")
		},
		code: "lock-queue", culprit: "jobs", scenario: "lock-queue", first: "cancel the statement that waits first", mayLose: "jobs",
		better: (*stage).nobodyWaits, tune: func(t *Thresholds) { t.IdleInTransaction = time.Second },
		also: func(s *stage, d Diagnosis) {
			if !strings.Contains(d.Steps[1].Do, "it does nothing, and keeps its locks") {
				s.Errorf("the transaction that was left open is not ended: %+v", d.Steps)
			}
		},
	},
	{
		name: "imports wait for clients that send no rows", role: closer,
		play: func(s *stage) {
			s.stock()
			s.python(fmt.Sprintf(`
import os
def send():
    c = psycopg2.connect(application_name="import")
    r, w = os.pipe()
    c.cursor().copy_expert("COPY stock FROM STDIN", os.fdopen(r))
for n in range(%d):
    threading.Thread(target=send, daemon=True).start()
time.sleep(600)
`, s.usable()-3)) // the test's own looks come and go
			s.appears("import", s.usable()-3)
		},
		code: "utilisation", culprit: "import", scenario: "stream-holds-lease", first: "force-close --pid=", mayLose: "import",
		also: func(s *stage, d Diagnosis) {
			out := s.types(closer, fmt.Sprintf("ddtb db-connections cancel --yes --pid=%d || test $? = 1", d.Holds[0].PIDs[0]), "")
			if !strings.Contains(out, "still running") || !strings.Contains(out, "waits for its client to send on") {
				s.Errorf("a cancel would be enough:\n%s", out)
			}
		},
	},
	{
		name: "workers of parallel queries take no slot",
		play: func(s *stage) {
			s.stock()
			for range 2 {
				s.psql("report", "SET max_parallel_workers_per_gather = 3; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; "+
					"SET min_parallel_table_scan_size = 0; SELECT count(pg_sleep(1)) FROM stock")
			}
			s.background("parallel worker", 6)
		},
		better: always, also: func(s *stage, _ Diagnosis) { s.usesSlots(2) },
	},
	{
		name: "sessions of replication take no slot",
		play: func(s *stage) {
			control := s.control("postgres")
			exec(s.T, control, "ALTER ROLE other REPLICATION")
			must(s.T, control.Close(s.Context()))
			for range 4 {
				s.program("IDENTIFY_SYSTEM;\n", "psql", "-X", "-q", "-d", "user=other replication=database")
			}
			s.background(WALSender, 4)
		},
		better: always, also: func(s *stage, _ Diagnosis) { s.usesSlots(0) },
	},
	{
		name: "a session rests after a savepoint, with a row that others want",
		play: func(s *stage) {
			s.stock()
			s.python(`
c = psycopg2.connect(application_name="web")
c.cursor().execute("SELECT 1; SAVEPOINT a; UPDATE stock SET text = 'mine' WHERE n = 1; SAVEPOINT b; SELECT 1")
time.sleep(600)
`)
			s.appears("web", 1)
			for range 3 {
				s.psql("shop/pool", "UPDATE stock SET text = 'ours' WHERE n = 1")
			}
			s.waits(3)
		},
		code: "lock-queue", culprit: "web", scenario: "leaked-transaction", first: "close-idle --in-transaction", mayLose: "web", better: (*stage).nobodyWaits,
	},
	{
		name: "a job left its advisory lock in the session, outside of any transaction", role: closer,
		play: func(s *stage) {
			s.python(`
c = psycopg2.connect(application_name="jobs")
c.autocommit = True
c.cursor().execute("SELECT pg_advisory_lock(7)")
time.sleep(600)
`)
			eventually(s.T, "jobs has the lock, and rests", func() bool {
				return len(s.after().clients(func(x Session) bool {
					return x.Application == "jobs" && x.State == Idle && strings.Contains(x.Query, "pg_advisory_lock")
				})) == 1
			})
			for range 3 {
				s.psql("web", "SELECT pg_advisory_lock(7)")
			}
			s.waits(3)
		},
		code: "lock-queue", culprit: "jobs", scenario: "migrate-refused", first: "close-idle --older-than=0s", mayLose: "jobs",
		better: func(s *stage) bool { return len(s.after().waiting()) < 3 }, // the next one has its turn
		also: func(s *stage, d Diagnosis) {
			if hurts := d.Steps[0].Hurts; strings.Contains(hurts, "rolled back") || !strings.Contains(hurts, "its lock is released") {
				s.Errorf("it has no transaction, and ending it hurts %q", hurts)
			}
		},
	},
	{
		name: "of two prepared transactions, the later one has what all wait for", role: reader,
		play: func(s *stage) {
			s.stock()
			s.prepared("innocent", "UPDATE stock SET text = 'bought' WHERE n = 2")
			s.prepared("blocker", "UPDATE stock SET text = 'bought' WHERE n = 1")
			for range 3 {
				s.psql("web", "UPDATE stock SET text = 'sold' WHERE n = 1")
			}
			s.waits(3)
		},
		code: "lock-queue", culprit: "prepared transaction", scenario: "lock-queue", first: "what shall become of 'blocker'",
		better: func(s *stage) bool {
			return s.nobodyWaits() && slices.ContainsFunc(s.after().Prepared, func(x Prepared) bool { return x.GID == "innocent" })
		},
	},
	{
		name: "nobody reads from a logical replication slot of another database", role: reader,
		play: func(s *stage) {
			control := s.control("elsewhere")
			exec(s.T, control, "SELECT pg_create_logical_replication_slot('gone', 'pgoutput')")
			s.growsWAL(control)
		},
		code: "replication-slot", culprit: "the reader of replication slot gone", first: nothing,
		better: func(s *stage) bool { return len(s.after().WALSlots) == 0 },
	},
	{
		name: "each session has the name of its job, with a UUID", role: closer,
		play: func(s *stage) {
			s.python(`
import uuid
held = [psycopg2.connect(application_name="job-%s" % uuid.uuid4()) for n in range(10)]
held.append(psycopg2.connect(application_name="job-" + "f" + str(uuid.uuid4())[1:]))
cron = [psycopg2.connect(application_name="cron") for n in range(2)]
time.sleep(600)
`)
		},
		code: "idle", culprit: "job*", scenario: "replicas-times-pool thread-leak hidden-second-pool", first: "", mayLose: "job*", better: always,
		also: func(s *stage, d Diagnosis) {
			if d.Holds[0].Sessions != 11 {
				s.Errorf("%d of 11 sessions are one family", d.Holds[0].Sessions)
			}
		},
	},
	{
		name: "a small application leaks connections beside a large one in use", role: closer,
		play: func(s *stage) {
			s.pgbench("SELECT 1;\n", "-c", "7", "-j", "2", "--rate=40")
			s.python(`
held = []
for n in range(5):
    held.append(psycopg2.connect(application_name="jobs"))
    held[-1].autocommit = True
    held[-1].cursor().execute("SELECT 1")
    time.sleep(0.5)
time.sleep(600)
`)
			s.sessions("jobs", 5)
		},
		code: "utilisation", culprit: "jobs", scenario: "thread-leak", first: "--application=jobs", mayLose: "jobs",
	},
	{
		name: "a leak filled the server a moment ago, beside a small pool that has rested for longer", role: closer,
		play: func(s *stage) {
			s.python(fmt.Sprintf(`
def opened(application, n):
    made = []
    for _ in range(n): # each is used at once, however slow the machine is
        made.append(psycopg2.connect(application_name=application))
        made[-1].autocommit = True
        made[-1].cursor().execute("SELECT 1")
    return made
pool = opened("small", 2)
time.sleep(30)
leaked = opened("leaky", %d)
time.sleep(600)
`, s.usable()-5))
			s.sessions("leaky", s.usable()-5)
		},
		code: "utilisation", culprit: "leaky", scenario: "thread-leak", first: "--application=leaky", mayLose: "leaky",
		tune: func(t *Thresholds) { t.Idle = 27 * time.Second },
		also: func(s *stage, d Diagnosis) {
			if longest := d.Holds[0].Longest.Duration(); longest >= 27*time.Second {
				s.Errorf("the doctor was right only when the leaked sessions had rested for %s", longest)
			}
		},
	},
	{
		name: "all sessions compute, which is no leak", role: closer,
		play: func(s *stage) {
			s.pgbench("SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b;\n", "-c", fmt.Sprint(s.usable()-2), "-j", "2")
		},
		code: "utilisation", culprit: "pgbench", scenario: "slow-query-pile-up", first: "cancel --pid=", mayLose: "pgbench",
		tune: func(t *Thresholds) { t.Slow = time.Second },
		also: func(s *stage, d Diagnosis) {
			if text := d.Holds[0].Evidence(); !strings.Contains(text, "; no leak: ") || !strings.Contains(text, "on the processor") {
				s.Error(text)
			}
		},
	},
}

func (s *stage) nobodyWaits() bool { return len(s.after().waiting()) == 0 }

// usesSlots checks how many client sessions the server has, beside the ones that look.
func (s *stage) usesSlots(want int) {
	s.Helper()
	if now := s.settled(); now.Slots.Used != want+2 { // the observer's session, and this one
		s.Errorf("%d slots are used, want %d and two that look: %+v", now.Slots.Used, want, Summarise(now).Others)
	}
}

// background waits for so many sessions of a kind that takes no slot.
func (s *stage) background(kind string, n int) {
	s.Helper()
	eventually(s.T, kind, func() bool {
		return slices.Contains(Summarise(s.after()).Others, Count{kind, n})
	})
}

// preventsWraparound lets the server vacuum the stock against a wraparound, very slowly.
func (s *stage) preventsWraparound() {
	s.Helper()
	s.stock()
	control, ctx := s.control("wall"), context.Background()
	s.Cleanup(func() { // it would keep others from the table
		for {
			_, err := control.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%wraparound)'")
			must(s.T, err)
			if _, err = control.Exec(ctx, "SET lock_timeout = '1s'; DROP TABLE stock"); err == nil {
				break
			}
		}
		must(s.T, control.Close(ctx))
	})
	exec(s.T, control, "ALTER TABLE stock SET (autovacuum_freeze_max_age = 100000, autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1)")
	exec(s.T, control, "DO 'BEGIN FOR n IN 0..100000 LOOP PERFORM txid_current(); COMMIT; END LOOP; END'")
	exec(s.T, control, "ALTER SYSTEM SET autovacuum_naptime = '1s'")
	exec(s.T, control, "SELECT pg_reload_conf()")
	eventually(s.T, "the server vacuums the table", func() bool {
		return slices.ContainsFunc(s.after().Sessions, func(x Session) bool { return strings.HasSuffix(x.Query, "stock (to prevent wraparound)") })
	})
}

// prepared prepares a transaction, which nobody ends.
func (s *stage) prepared(gid, sql string) {
	s.Helper()
	conn := s.session(s.T, app, "wall", "bank")
	exec(s.T, conn, "BEGIN; "+sql)
	exec(s.T, conn, "PREPARE TRANSACTION '"+gid+"'")
	must(s.T, conn.Close(s.Context()))
	s.Cleanup(func() {
		if conn, err := s.Connect(context.Background(), "wall"); err == nil {
			_, _ = conn.Exec(context.Background(), "ROLLBACK PREPARED '"+gid+"'") // unless a step did
			_ = conn.Close(context.Background())
		}
	})
}
