package db_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
	"ddtb/db/logtest"
)

// replicated is a primary, a replica of it, and a DB on both.
type replicated struct {
	*db.DB
	primary, replica *dbtest.Server
	cfg              config.Database
	control, standby *pgx.Conn // superusers'
}

// newFleet is a database on servers of its own.
func newFleet(t *testing.T, set func(*config.Database)) *replicated {
	t.Helper()
	return newServers(t).open(t, set)
}

func newServers(t *testing.T) *replicated {
	t.Helper()
	primary := dbtest.NewServer(t, dbtest.Replicated())
	return &replicated{primary: primary, replica: primary.NewReplica(t)}
}

// open is another database on the servers.
func (f *replicated) open(t *testing.T, set func(*config.Database)) *replicated {
	t.Helper()
	f = &replicated{primary: f.primary, replica: f.replica, cfg: f.primary.Config(t)}
	set(&f.cfg)
	dbtest.Eventually(t, "the replica has the database", func() bool {
		conn, err := db.Connect(t.Context(), connConfig(t, f.replica.Reach(f.cfg)))
		if err == nil {
			db.Disconnect(conn)
		}
		return err == nil
	})
	f.control, f.standby = dbtest.Control(t, f.cfg), f.replica.Control(t, f.cfg.Name)
	run(t, f.control, "CREATE TABLE counter (n int); INSERT INTO counter VALUES (0); GRANT ALL ON counter TO PUBLIC")
	dbtest.Eventually(t, "the replica has the table", func() bool {
		return scan[bool](t, f.standby, "SELECT to_regclass('counter') IS NOT NULL")
	})
	to := f.replica.Reach(f.cfg)
	f.DB = openWithReplica(t, f.cfg, &to)
	f.serves(t, true)
	return f
}

func openWithReplica(t *testing.T, cfg config.Database, replica *config.Database) *db.DB {
	t.Helper()
	d, err := db.OpenWith(cfg, db.Options{Replica: replica, Control: monitored(t, cfg)})
	must(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_ = d.Close(ctx)
	})
	return d
}

// monitored is a Control with a connection to the server of cfg.
func monitored(t *testing.T, cfg config.Database) db.Control {
	t.Helper()
	conn := dbtest.Control(t, cfg)
	var turn sync.Mutex
	return func(_ context.Context, f func(*pgx.Conn) error) error {
		turn.Lock()
		defer turn.Unlock()
		return f(conn)
	}
}

func (f *replicated) serves(t *testing.T, want bool) {
	t.Helper()
	dbtest.Eventually(t, fmt.Sprintf("the replica serves: %t", want), func() bool { return f.Replicas()[0].Serves == want })
}

// visitor is a client with a cookie.
type visitor struct{ at db.Position }

// visit is one request.
func (f *replicated) visit(t *testing.T, v *visitor, fn func(context.Context)) {
	t.Helper()
	ctx, gone := db.WithWorker(t.Context())
	defer gone()
	ctx, end := f.Begin(ctx)
	defer end()
	f.Follow(ctx, v.at)
	fn(ctx)
	if p, wrote := f.Written(ctx); wrote {
		v.at = p
	}
}

func (f *replicated) vote(t *testing.T, v *visitor) (err error) {
	t.Helper()
	f.visit(t, v, func(ctx context.Context) { _, err = f.Exec(ctx, "UPDATE counter SET n = n + 1") })
	return err
}

func (f *replicated) read(t *testing.T, v *visitor) (n int) {
	t.Helper()
	f.visit(t, v, func(ctx context.Context) {
		if err := f.Read().QueryRow(ctx, "SELECT n FROM counter").Scan(&n); err != nil {
			t.Errorf("a read failed: %v", err)
		}
	})
	return n
}

func TestWritersReadTheirWritesAndOthersReadFromTheReplica(t *testing.T) {
	servers := newServers(t)
	everyStrategy(t, func(t *testing.T, set func(*config.Database)) {
		f := servers.open(t, set)
		v := &visitor{}
		for i := 1; i <= 50; i++ {
			must(t, f.vote(t, v))
			if n := f.read(t, v); n != i {
				t.Errorf("after vote %d the page says %d", i, n)
			}
		}
		f.read(t, &visitor{})
		if f.Replicas()[0].Reads == 0 {
			t.Errorf("the replica served nothing: %+v", f.Replicas())
		}
	})
}

func TestAReplicaWithAPoolOfAutomaticSizeHasABudgetOfItsOwn(t *testing.T) {
	servers := newServers(t)
	for _, strategy := range []string{db.Pool, db.Multiplex} {
		t.Run(strategy, func(t *testing.T) {
			f := servers.open(t, func(c *config.Database) { auto(3)(c); c.Strategy, c.Pool.Timeout = strategy, time.Second })
			for i := 0; i < 20 && f.Replicas()[0].Failed == 0; i++ {
				f.read(t, &visitor{})
			}
			if r := f.Replicas()[0]; r.Reads != 20 || r.Failed != 0 || r.Stat.Budget != 3 || r.Stat.Tickets == 0 {
				t.Errorf("%+v", r)
			}
			if n := f.Stat().TicketsOthers; n != 0 {
				t.Errorf("the replica has %d tickets of the primary", n)
			}
			if n := scan[int](t, f.control, "SELECT count(*) FROM pg_locks WHERE classid = $1", int64(db.TicketClass)); n != 0 {
				t.Errorf("%d tickets of the primary are locked", n)
			}
		})
	}
}

// voters vote and read, until stop is called. Votes may fail; a page must never be behind its visitor's own votes.
func (f *replicated) voters(t *testing.T) (stop func() (read, voted int)) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	read, voted := 0, 0
	done := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			v, least := &visitor{}, 0
			for {
				select {
				case <-done:
					return
				default:
				}
				ok := f.vote(t, v) == nil
				n := f.read(t, v)
				if ok && n <= least || n < least {
					t.Errorf("a stale page: %d after %d", n, least)
				}
				least = n
				mu.Lock()
				read++
				if ok {
					voted++
				}
				mu.Unlock()
			}
		})
	}
	once := sync.OnceFunc(func() { close(done); wg.Wait() })
	t.Cleanup(once)
	return func() (int, int) { once(); return read, voted }
}

func TestNoFaultOfTheReplicaFailsAReadOrShowsAStalePage(t *testing.T) {
	servers := newServers(t)
	for _, fault := range []struct {
		name string
		play func(*testing.T, *replicated)
	}{
		{"replay is paused", func(t *testing.T, f *replicated) {
			run(t, f.standby, "SELECT pg_wal_replay_pause()")
			f.serves(t, false)
			dbtest.Eventually(t, "replay goes on", func() bool { // replay itself may cancel this statement
				_, err := f.standby.Exec(t.Context(), "SELECT pg_wal_replay_resume()")
				return err == nil
			})
			f.serves(t, true)
		}},
		{"killed", func(t *testing.T, f *replicated) {
			f.replica.Stop(t, dbtest.Immediate)
			f.serves(t, false)
			dbtest.Eventually(t, "it has no connection to it", func() bool { return f.Replicas()[0].Stat.Open() == 0 })
			f.replica.Start(t)
			f.serves(t, true)
		}},
		{"restarted", func(t *testing.T, f *replicated) {
			f.replica.Restart(t, dbtest.Fast)
			f.serves(t, true)
		}},
		{"silent", func(t *testing.T, f *replicated) {
			f.replica.Pause(t)
			f.serves(t, false)
			f.replica.Resume(t)
			f.serves(t, true)
		}},
		{"statements are cancelled by recovery", func(t *testing.T, f *replicated) {
			for range 20 {
				run(t, f.control, "TRUNCATE counter_other")
				run(t, f.control, "VACUUM counter")
			}
		}},
		{"promoted", func(t *testing.T, f *replicated) { // the last: it is no replica any more
			run(t, f.standby, "SELECT pg_promote()")
			f.serves(t, false)
			dbtest.Eventually(t, "it has no connection to it", func() bool {
				return scan[int](t, f.standby, "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1", f.cfg.ApplicationName+"/pool") == 0
			})
		}},
	} {
		t.Run(fault.name, func(t *testing.T) {
			f := servers.open(t, func(c *config.Database) { pool(c); c.Pool.MaxSize = 10; c.MaxLag = 500 * time.Millisecond })
			run(t, f.control, "CREATE TABLE counter_other (n int)")
			stop := f.voters(t)
			fault.play(t, f)
			if read, voted := stop(); read < 4 || voted < read {
				t.Errorf("%d of %d votes were counted", voted, read)
			}
		})
	}
}

func TestReplicasAreSwitchedUnderLoadAndNoReadFailsOrIsStale(t *testing.T) {
	f := newFleet(t, func(c *config.Database) { pool(c); c.Pool.MaxSize = 10 })
	stop := f.voters(t)
	one, other := f.replica.Reach(f.cfg), f.replica.Reach(f.cfg)
	other.Pool.MaxSize = 5
	for range 3 {
		for _, to := range []*config.Database{nil, &one, &other} {
			must(t, f.UseReplica(to))
			dbtest.Eventually(t, "it is in force", func() bool {
				all := f.Replicas()
				return to == nil && len(all) == 0 || to != nil && all[0].Serves && all[0].Reads > 0
			})
		}
	}
	if err := f.UseReplica(nil); err != nil {
		t.Error(err)
	}
	wrong := one
	wrong.MaxLag = 0
	if err := f.UseReplica(&wrong); err == nil || len(f.Replicas()) != 0 {
		t.Errorf("a wrong max_lag: %v", err)
	}
	var left int
	var err error
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%d connections are left, %v", left, err)
		}
	})
	dbtest.Eventually(t, "no connection to the replica is left", func() bool {
		if f.standby.IsClosed() { // recovery may cancel the query, or end its session
			f.standby = f.replica.Control(t, f.cfg.Name)
		}
		err = f.standby.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE usename = $1", f.cfg.User).Scan(&left)
		return err == nil && left == 0
	})
	if read, voted := stop(); read < 4 || voted < read {
		t.Errorf("%d of %d votes were counted", voted, read)
	}
}

func TestAReadThatRecoveryCancelsIsAnsweredByThePrimary(t *testing.T) {
	f := newFleet(t, pool)
	cancelled := make(chan error, 1)
	go func() {
		ctx, end := f.Begin(t.Context())
		defer end()
		var n int
		cancelled <- f.Read().QueryRow(ctx, "SELECT n FROM counter, pg_sleep(2)").Scan(&n)
	}()
	dbtest.Eventually(t, "the read runs on the replica", func() bool {
		return scan[int](t, f.standby, "SELECT count(*)::int FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == 1
	})
	run(t, f.control, "TRUNCATE counter; INSERT INTO counter VALUES (7)")
	if err := <-cancelled; err != nil {
		t.Errorf("it ended with %v", err)
	}
	if s := f.Replicas()[0]; s.Failed != 1 {
		t.Errorf("%+v", s)
	}
}

func TestThePrimaryIsFollowedAgainAfterItsRestart(t *testing.T) {
	servers := newServers(t)
	f := servers.open(t, pool)
	both, to := f.cfg, f.replica.Reach(f.cfg)
	both.Hosts = hostsOf(f.cfg, to)
	d := openWithReplica(t, both, &to)
	dbtest.Eventually(t, "the replica serves", func() bool { return d.Replicas()[0].Serves })
	servers.primary.Stop(t, dbtest.Fast)
	dbtest.Eventually(t, "the replica was taken for the primary", func() bool {
		return strings.Contains(f.replica.Log(t), "recovery is in progress")
	})
	servers.primary.Start(t)
	run(t, f.standby, "SELECT pg_wal_replay_pause()")
	run(t, servers.primary.Control(t, f.cfg.Name), "INSERT INTO counter VALUES (1)")
	dbtest.Eventually(t, "the replica is behind", func() bool { return d.Replicas()[0].Lag > 0 })
}

func TestAForgedPositionCostsAFewMilliseconds(t *testing.T) {
	f := newFleet(t, pool)
	for _, p := range []db.Position{db.Unknown, db.Unknown - 1} {
		began := time.Now()
		f.read(t, &visitor{p})
		if took := time.Since(began); took > time.Second {
			t.Errorf("%v took %v", p, took)
		}
	}
	if s := f.Replicas()[0]; s.Reads != 0 || s.Behind != 2 {
		t.Errorf("%+v", s)
	}
}

func TestAServerThatIsNoReplicaOfThePrimaryServesNothing(t *testing.T) {
	a, b := dbtest.NewServer(t, dbtest.Options{Initialized: true}), dbtest.NewServer(t, dbtest.Replicated())
	cfg, other := a.Config(t), b.Config(t)
	foreign := b.NewReplica(t).Reach(other)
	for name, to := range map[string]config.Database{"a primary": other, "a replica of another": foreign} {
		t.Run(name, func(t *testing.T) {
			var log logtest.Log
			d := openAgain(t, cfg, db.Options{Replica: &to, Log: slog.New(slog.NewTextHandler(&log, nil))})
			f := &replicated{DB: d}
			dbtest.Eventually(t, "it was judged", func() bool {
				why := f.Replicas()[0].Why
				return why == "it is not a standby: it was promoted, or is another server" ||
					why == "it is not a replica of this primary: its system identifier differs"
			})
			if n := log.Count("level=WARN", "reads go past this replica", "it is not a "); n != 1 {
				t.Errorf("%d lines say so:\n%s", n, &log)
			}
		})
	}
}

func TestHostsThatAreNotOneDatabaseAreNamed(t *testing.T) {
	servers, other := newServers(t), dbtest.NewServer(t, dbtest.Options{Initialized: true})
	cfg := servers.open(t, pool).cfg
	elsewhere := other.Control(t, "postgres")
	run(t, elsewhere, fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", cfg.User, cfg.Password.Reveal()))
	run(t, elsewhere, "CREATE DATABASE "+cfg.Name)
	for _, c := range []struct {
		name  string
		hosts db.Hosts
		words string
	}{
		{"a primary and its standby", hostsOf(cfg, servers.replica.Reach(cfg)), ""},
		{"two names of one server", hostsOf(cfg) + db.Hosts(fmt.Sprintf(",localhost:%d", cfg.Port)), ""},
		{"one that is down", hostsOf(cfg) + ",127.0.0.1:1", ""},
		{"another server", hostsOf(cfg, other.Reach(cfg)), "not copies of each other"},
		{"silent ones", hostsOf(cfg) + db.Hosts(strings.Repeat(","+silent(t), 4)), ""},
		{"two primaries", hostsOf(cfg, servers.replica.Reach(cfg)), "several of the hosts take writes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "two primaries" {
				run(t, servers.replica.Control(t, "postgres"), "SELECT pg_promote()")
			}
			of := cfg
			of.Hosts = c.hosts
			began := time.Now()
			all, err := db.CheckHosts(t.Context(), of)
			if c.name == "two names of one server" && !all {
				t.Fatal("one of the names did not answer")
			}
			if took := time.Since(began); took > 5*time.Second { // a silent host takes two
				t.Errorf("after %v", took)
			}
			if (err == nil) != (c.words == "") || err != nil && !strings.Contains(err.Error(), c.words) {
				t.Errorf("%v", err)
			}
		})
	}
}

// silent is the address of a host that accepts connections, and says nothing.
func silent(t *testing.T) string {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

func TestPositionsAreReadAsPostgreSQLWritesThem(t *testing.T) {
	for text, want := range map[string]db.Position{"0/0": 0, "16/B374D848": 0x16B374D848, "FFFFFFFF/FFFFFFFF": db.Unknown} {
		if p, ok := db.ParsePosition(text); !ok || p != want || p.String() != text {
			t.Errorf("%q: %v, %t", text, p, ok)
		}
	}
	for _, text := range []string{"", "/", "1", "1/", "/1", "1/2/3", "-1/1", "1/+1", "1_0/1", "100000000/0", "g/1", "0x1/1"} {
		if _, ok := db.ParsePosition(text); ok {
			t.Errorf("%q is taken", text)
		}
	}
}
