package activity

import (
	"context"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/db"
	"ddtb/db/localpg"
)

// standbyName is the standby's cluster_name, which is the application_name of its walreceiver.
const standbyName = "standby_1"

// standbyOf starts a server that streams from the primary. It restarts the primary, whose sessions end.
func standbyOf(t *testing.T, primary *server) *server {
	t.Helper()
	dir := filepath.Join(testDir, "standby", t.Name())
	s := &server{name: "a standby", options: localpg.Options{
		Dir: dir, Volatile: true, MaxConnections: maxConnections, ReplicaOf: primary.Server,
		Settings: map[string]string{ // as on the primary, at least
			"max_prepared_transactions": "5", "wal_level": "logical", "max_wal_senders": "5", "cluster_name": standbyName,
			"max_standby_streaming_delay": "-1", // queries are never cancelled for replay
			"wal_retrieve_retry_interval": "100ms",
		},
	}}
	must(t, primary.Stop(t.Context()))
	defer primary.start(t) // also if the standby does not start: the other tests need it
	s.start(t)
	t.Cleanup(func() {
		ctx := context.Background()
		if err := s.Crash(ctx); err != nil {
			t.Error(err)
		}
		if err := localpg.Remove(ctx, dir); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *server) start(t *testing.T) {
	t.Helper()
	pg, err := localpg.Start(t.Context(), s.options)
	must(t, err)
	s.Server, s.options.Port = pg, pg.Port()
}

// streams waits until the standby has all that the primary wrote, and knows where the primary is.
func (s *server) streams(t *testing.T) {
	t.Helper()
	o := s.observer(t, localpg.Superuser)
	pollUntil(t, o, "it streams", func(now Snapshot) bool {
		return now.Server.Standby && now.Server.Primary != "" && now.Server.ReplayLag == 0
	})
	o.Close()
}

func TestTheDoctorIsRightOnAStandby(t *testing.T) {
	primary := servers[0]
	s := standbyOf(t, primary)
	s.streams(t)
	address := fmt.Sprintf("127.0.0.1:%d", primary.Port())
	for _, x := range []situation{
		{
			name: "an application that writes connects to it", role: reader,
			play: func(st *stage) {
				st.python(`
pool = psycopg2.pool.ThreadedConnectionPool(3, 3, application_name="shop/pool")
time.sleep(600)
`)
			},
			code: "read-only", culprit: "the address that shop is configured with", scenario: "", first: address, better: always,
		},
		{
			name: "a service leaks connections on it", role: closer,
			play: func(st *stage) {
				st.python(`
held = []
for n in range(10):
    held.append(psycopg2.connect(application_name="report"))
    held[-1].autocommit = True
    held[-1].cursor().execute("SELECT %d" % n)
    time.sleep(0.3)
time.sleep(600)
`)
				st.sessions("report", 10)
			},
			code: "idle", culprit: "report", scenario: "thread-leak", first: "--application=report", mayLose: "report",
		},
		{
			name: "a report leaves its transactions open on it, and the setting is the primary's to store", role: closer,
			play: func(st *stage) {
				st.python(`
held = []
for n in range(3):
    held.append(psycopg2.connect(application_name="report"))
    held[-1].cursor().execute("SELECT 1")
time.sleep(600)
`)
			},
			code: "idle-in-transaction", culprit: "report", scenario: "leaked-transaction", first: "close-idle --in-transaction", mayLose: "report",
			tune: func(t *Thresholds) { t.IdleInTransaction = time.Millisecond },
			also: func(st *stage, d Diagnosis) {
				i := slices.IndexFunc(d.Steps, func(x Step) bool { return strings.Contains(x.Command, "ALTER ROLE") })
				if i < 0 || !strings.Contains(d.Steps[i].Command, fmt.Sprintf("-p %d", primary.Port())) || !strings.Contains(d.Steps[i].Do, "this is a standby") {
					st.Errorf("%+v", d.Steps)
				}
			},
		},
		{
			name: "replay of a change waits for a report, and everybody for replay", role: closer,
			play: blocksReplay(primary), code: "lock-queue", culprit: "report", scenario: "lock-queue", first: "cancel that", mayLose: "report",
			better: func(st *stage) bool { return len(st.after().waiting()) == 0 },
		},
		{
			name: "the same, seen by a role that may end nobody's session", role: reader,
			play: blocksReplay(primary), code: "lock-queue", culprit: "report", scenario: "lock-queue", first: "as a superuser", mayLose: "report",
			better: func(st *stage) bool { return len(st.after().waiting()) == 0 },
		},
		{
			name: "the same, seen by an ordinary role",
			play: blocksReplay(primary), code: "lock-queue", culprit: "report", scenario: "lock-queue", first: "cancel that", mayLose: "report",
			better: func(st *stage) bool { return len(st.after().waiting()) == 0 },
		},
		{
			name: "replay has the lock of a change that is open on the primary, and a report is in nobody's way", role: closer,
			play: behindReplay(primary, "SELECT pg_sleep(600)", "BEGIN; ALTER TABLE goods ADD COLUMN m int", func(st *stage) bool {
				return !st.succeeds("SET lock_timeout = 1; SELECT FROM goods")
			}),
			code: "lock-queue", culprit: "the replay of the primary's changes", scenario: "lock-queue", first: nothing, better: always,
		},
		{
			name: "its replay stands still", role: reader,
			play: func(st *stage) {
				control := st.control("postgres")
				exec(st.T, control, "SELECT pg_wal_replay_pause()")
				st.Cleanup(func() {
					if conn, err := st.Connect(context.Background(), "postgres"); err == nil {
						_, _ = conn.Exec(context.Background(), "SELECT pg_wal_replay_resume()")
						_ = conn.Close(context.Background())
					}
				})
				on := primary.session(st.T, app, "wall", "writer")
				exec(st.T, on, "CREATE TABLE written (n int); DROP TABLE written")
			},
			code: "replication-lag", culprit: "replication", first: nothing, better: always,
			tune: func(t *Thresholds) { t.Lag = 10 * time.Millisecond },
		},
	} {
		t.Run(x.name, func(t *testing.T) { (&stage{t, s}).check(x) })
	}
	(&stage{t, primary}).restore()
}

// blocksReplay alters a table on the primary that a report on the standby reads.
func blocksReplay(primary *server) func(*stage) {
	return behindReplay(primary, "SELECT n, pg_sleep(600) FROM goods", "ALTER TABLE goods ADD COLUMN m int", func(st *stage) bool {
		return slices.ContainsFunc(st.after().Sessions, func(x Session) bool { return x.Kind == Startup && x.Wait == "Lock/relation" })
	})
}

// behindReplay changes a table on the primary while a report runs on the standby, and three clients queue behind the
// replay of that change once it has arrived.
func behindReplay(primary *server, report, change string, arrived func(*stage) bool) func(*stage) {
	return func(st *stage) {
		on := primary.session(st.T, app, "wall", "migrate")
		exec(st.T, on, "DROP TABLE IF EXISTS goods; CREATE TABLE goods (n int); INSERT INTO goods VALUES (1)")
		eventually(st.T, "the standby has the table", func() bool { return st.succeeds("SELECT FROM goods") })
		st.psql("report", report)
		st.appears("report", 1)
		exec(st.T, on, change)
		st.Cleanup(func() { must(st.T, on.Close(context.Background())) })
		eventually(st.T, "replay has come to the change", func() bool { return arrived(st) })
		for range 3 {
			st.psql("web", "SELECT count(*) FROM goods")
		}
		st.waits(3)
	}
}

func TestStatusListsTheStandbysThatTheRoleMaySee(t *testing.T) {
	primary := servers[0]
	standbyOf(t, primary).streams(t)
	st := &stage{t, primary}
	for role, want := range map[string]string{reader: "streaming, async", app: "may not see them (pg_read_all_stats)"} {
		if out := st.types(role, "ddtb db-connections status", ""); !strings.Contains(out, want) || strings.Contains(out, ", ,") {
			t.Errorf("to %s:\n%s", role, out)
		}
	}
}

func TestAReaderThatReplaysNothingIsNotBehind(t *testing.T) {
	primary := servers[0]
	ctx, cancel := context.WithCancel(t.Context())
	receiver := osexec.CommandContext(ctx, "pg_receivewal", "-s", "1", "-D", t.TempDir(), "-h", "127.0.0.1", "-p", fmt.Sprint(primary.Port()), "-U", localpg.Superuser)
	receiver.Env = append(os.Environ(), "PGPASSWORD="+primary.Config("").Password.Reveal())
	receiver.Stderr = t.Output()
	must(t, receiver.Start())
	defer func() { cancel(); _ = receiver.Wait() }()
	writer := primary.session(t, app, "wall", "writer")
	o := primary.observer(t, closer)
	eventually(t, "the server counts a lag", func() bool {
		_, err := writer.Exec(t.Context(), "CREATE TABLE IF NOT EXISTS written (n int); DROP TABLE written")
		must(t, err)
		var lags bool
		return o.Read(t.Context(), func(c *pgx.Conn) error {
			return c.QueryRow(t.Context(), "SELECT coalesce(max(replay_lag) > '0.1s', false) FROM pg_stat_replication").Scan(&lags)
		}) == nil && lags
	})
	if now := snapshot(t, o); len(now.Replication) != 1 || now.Replication[0].Lag != 0 {
		t.Errorf("%+v", now.Replication)
	}
}

func TestCommitsGoOnWhenTheSynchronousStandbyIsBroughtBack(t *testing.T) {
	primary := servers[0]
	s := standbyOf(t, primary)
	s.streams(t)
	st := &stage{t, primary}
	t.Cleanup(func() { primary.mustBecomeEmpty(t) })
	t.Cleanup(st.restore)
	t.Cleanup(st.clear)
	st.stock()
	control := st.control("postgres")
	exec(t, control, "ALTER SYSTEM SET synchronous_standby_names = '"+standbyName+"'")
	exec(t, control, "SELECT pg_reload_conf()")
	eventually(t, "the standby is synchronous", func() bool {
		return slices.ContainsFunc(st.after().Replication, func(r Replication) bool { return r.Name == standbyName && r.Sync == "sync" })
	})
	must(t, s.Crash(t.Context()))
	for n := range 3 {
		st.psql("web", fmt.Sprintf("SET synchronous_commit = on; UPDATE stock SET text = 'new' WHERE n = %d", n+1))
	}
	o := primary.observer(t, reader)
	var d Diagnosis
	eventually(t, "the doctor sees the commits wait", func() bool {
		d = diagnoseNow(st, o, situation{})
		return len(d.Health.Findings) > 0 && d.Health.Findings[0].Code == "sync-standby" && d.Health.Level == Critical
	})
	if out := st.types(reader, d.Steps[0].Command, ""); strings.Contains(out, standbyName) {
		t.Errorf("the standby that is gone is listed:\n%s", out)
	}
	before := st.settled()
	s.start(t)
	eventually(t, "no commit waits", func() bool {
		return len(st.after().clients(func(x Session) bool { return x.Wait == "IPC/SyncRep" })) == 0
	})
	st.spares(before, st.after(), func(Session) bool { return false })
}

func TestTheBudgetCountsWhatAProcessWithAStandbyHasOnThePrimary(t *testing.T) {
	primary := servers[0]
	s := standbyOf(t, primary)
	s.streams(t)
	t.Cleanup(func() { primary.mustBecomeEmpty(t) })
	exec(t, primary.session(t, localpg.Superuser, "wall", "grants"), "GRANT EXECUTE ON FUNCTION pg_control_system(), pg_control_checkpoint() TO closer")
	cfg := primary.config(closer, "wall")
	cfg.Pool = db.DefaultSettings().Pool
	cfg.Pool.MinSize, cfg.Pool.MaxSize = 2, 2
	d, err := db.Open(t.Context(), cfg)
	must(t, err)
	t.Cleanup(func() { must(t, d.Close(context.Background())) })
	replica := cfg
	replica.Host, replica.Port, replica.MaxLag = s.Config("wall").Host, s.Port(), time.Second
	must(t, d.UseReplica(&replica))
	o := primary.observer(t, closer)
	b := PlanBudget(cfg, true, 1, 0, snapshot(t, o).Slots)
	has := func(now Snapshot) int {
		return len(now.clients(func(x Session) bool { return belongs(x.Application, "shop") }))
	}
	pollUntil(t, o, "the process has all its connections", func(now Snapshot) bool { return has(now) == b.Pool+b.Beside })
	if want := "1 × (2 + 2) × 2 while deploying + 0 extras = 8"; b.Needed != 8 || !strings.HasPrefix(b.Sum(), want) {
		t.Errorf("%s; want %s", b.Sum(), want)
	}
}

// TestAReaderThatRefusesToTellItsReplayIsRead has functions refuse as Amazon Aurora's do.
func TestAReaderThatRefusesToTellItsReplayIsRead(t *testing.T) {
	primary := servers[0]
	exec(t, primary.session(t, localpg.Superuser, "wall", "made"), `CREATE SCHEMA aurora; GRANT USAGE ON SCHEMA aurora TO app;
		CREATE FUNCTION aurora.pg_last_wal_receive_lsn() RETURNS pg_lsn STABLE LANGUAGE plpgsql
		AS $$ BEGIN RAISE feature_not_supported; END $$;
		ALTER ROLE app IN DATABASE wall SET search_path = aurora, pg_catalog, public`)
	s := standbyOf(t, primary)
	defer exec(t, primary.session(t, localpg.Superuser, "wall", "made"),
		"ALTER ROLE app IN DATABASE wall RESET search_path; DROP SCHEMA aurora CASCADE")
	s.streams(t)
	for name, on := range map[string]*server{"the writer": primary, "a reader": s} {
		if now := snapshot(t, on.observer(t, app)); now.Slots.Used == 0 || now.Tickets.Held != 0 || now.Server.ReplayLag != 0 {
			t.Errorf("%s: %+v", name, now)
		}
	}
}
