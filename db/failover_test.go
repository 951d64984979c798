package db_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

// One failover for all strategies: each has its own DB on the two servers, and clients that write all the time.
func TestWritesGoOnWithinASecondAndTwoLoginsOfThePromotion(t *testing.T) {
	servers := newServers(t)
	cfg := servers.primary.Config(t)
	cfg.Hosts, cfg.TargetSessionAttrs = hostsOf(cfg, servers.replica.Reach(cfg)), "read-write"
	control := dbtest.Control(t, cfg)
	run(t, control, "CREATE TABLE written (n int); INSERT INTO written VALUES (0); GRANT ALL ON written TO PUBLIC")
	standby := servers.replica.Control(t, "postgres")
	began := time.Now()
	writing := map[string]*writers{}
	for name, set := range map[string]func(*config.Database){
		"pool": pool, "pool of automatic size": auto(8), "multiplex": multiplex, "per-request": perRequest, "persistent": persistent,
	} {
		one := cfg
		set(&one)
		writing[name] = writersOn(t, openAgain(t, one, db.Options{}))
	}
	for name, w := range writing {
		dbtest.Eventually(t, name+" writes", func() bool { _, ok := w.after(began); return ok })
	}
	servers.primary.Stop(t, dbtest.Immediate)
	run(t, standby, "SELECT pg_promote()")
	promoted := time.Now()
	allowed := time.Second + 2*bareWrite(t, cfg) // the second login is that of the connection that keeps the budget
	for name, w := range writing {
		t.Run(name, func(t *testing.T) {
			var first time.Time
			dbtest.Eventually(t, "it writes", func() (ok bool) { first, ok = w.after(promoted); return ok })
			if took := first.Sub(promoted); took > allowed {
				t.Errorf("the first write was acknowledged %v after the promotion", took)
			} else {
				t.Logf("the first write was acknowledged %v after the promotion", took.Round(time.Millisecond))
			}
		})
	}
}

// bareWrite returns how long a login and a write take with pgx alone.
func bareWrite(t *testing.T, cfg config.Database) time.Duration {
	t.Helper()
	began := time.Now()
	conn, err := pgx.Connect(t.Context(), fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=disable&target_session_attrs=read-write",
		cfg.User, string(cfg.Password), cfg.Hosts, cfg.Name))
	must(t, err)
	run(t, conn, "UPDATE written SET n = n + 1")
	took := time.Since(began)
	must(t, conn.Close(t.Context()))
	return took
}

// The hosts' first server is the second primary: every attempt to connect finds it first.
func TestABudgetIsKeptOnItsServerWhileAnotherHostTakesWritesToo(t *testing.T) {
	servers := newServers(t)
	cfg := servers.open(t, perRequest).cfg // both servers have the database
	auto(4)(&cfg)
	cfg.Pool.Timeout = 3 * time.Second
	cfg.Hosts, cfg.TargetSessionAttrs, cfg.SSLMode = hostsOf(servers.replica.Reach(cfg), cfg), "read-write", "prefer"
	standby, control := servers.replica.Control(t, "postgres"), dbtest.Control(t, cfg)
	d := openAgain(t, cfg, db.Options{})
	held(t, d, 1)()
	run(t, standby, "SELECT pg_promote()")
	certificate, key := selfSigned(t)
	run(t, standby, "ALTER SYSTEM SET log_connections = on")
	enableTLS(t, standby, certificate, key)
	for range 3 {
		release := held(t, d, 4)
		if n := dbtest.Backends(t, control, cfg.ApplicationName+"/pool"); n != 4 {
			t.Errorf("%d of 4 connections are to the server that keeps the budget", n)
		}
		release()
		dbtest.KillBackends(t, control, cfg.ApplicationName+"/pool")
		dbtest.Eventually(t, "they have ended", func() bool { return dbtest.Backends(t, control, cfg.ApplicationName+"/pool") == 0 })
		<-time.After(2 * time.Millisecond) // the socket of a connection used within the last millisecond is not checked
	}
	const all = "SELECT count(DISTINCT objid) FROM pg_locks WHERE locktype = 'advisory' AND classid::bigint = $1"
	if n := scan[int](t, control, all, db.TicketClass); n > 4 {
		t.Errorf("%d tickets are locked, of a budget of 4", n)
	}
	for line := range strings.Lines(servers.replica.Log(t)) { // pgx logs in without TLS after most failures with it
		if strings.Contains(line, "connection authorized") && strings.Contains(line, cfg.ApplicationName+"/pool") && !strings.Contains(line, "SSL enabled") {
			t.Error("a login without TLS to a server that has it: " + line)
		}
	}
}

func hostsOf(servers ...config.Database) (list db.Hosts) {
	for _, s := range servers {
		list += db.Hosts("," + net.JoinHostPort(s.Host, strconv.Itoa(s.Port)))
	}
	return list[1:]
}

// writers are four clients that write all the time, whatever fails.
type writers struct {
	mu        sync.Mutex
	successes []time.Time
	stop      func()
}

func writersOn(t *testing.T, d *db.DB) *writers {
	t.Helper()
	w := &writers{}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			client, gone := db.WithWorker(ctx)
			defer gone()
			for ctx.Err() == nil {
				w.write(client, d)
			}
		})
	}
	w.stop = sync.OnceFunc(func() { cancel(); all.Wait() })
	t.Cleanup(w.stop)
	return w
}

// write sends one write. After a failure it pauses for a moment, as people do.
func (w *writers) write(ctx context.Context, d *db.DB) {
	ctx, end := d.Begin(ctx)
	defer end()
	if _, err := d.Exec(ctx, "UPDATE written SET n = n + 1"); err != nil {
		<-time.After(20 * time.Millisecond)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.successes = append(w.successes, time.Now())
}

// after returns the first success after that moment; ok is false if there is none yet.
func (w *writers) after(moment time.Time) (first time.Time, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := slices.IndexFunc(w.successes, moment.Before)
	if i < 0 {
		return time.Time{}, false
	}
	return w.successes[i], true
}

func TestAWriteDoesNotGoToAConnectionThatTheServerHasClosed(t *testing.T) {
	for name, set := range map[string]func(*config.Database){"pool": pool, "multiplex": multiplex, "persistent": persistent} {
		t.Run(name, func(t *testing.T) {
			d, control, cfg := open(t, set)
			ctx, gone := db.WithWorker(t.Context())
			defer gone()
			backends := cfg.ApplicationName + "/" + cfg.Strategy
			for range 10 {
				writeOnce(t, d, ctx)
				dbtest.KillBackends(t, control, backends)
				dbtest.Eventually(t, "they have ended", func() bool { return dbtest.Backends(t, control, backends) == 0 })
				<-time.After(2 * time.Millisecond) // the socket of a connection used within the last millisecond is not checked
				writeOnce(t, d, ctx)
			}
		})
	}
}

// writeOnce sends one statement as a request.
func writeOnce(t *testing.T, d *db.DB, ctx context.Context) { //nolint:revive // t first, as in every helper here
	t.Helper()
	ctx, end := d.Begin(ctx)
	defer end()
	if _, err := d.Exec(ctx, "CREATE TEMPORARY TABLE IF NOT EXISTS written (n int)"); err != nil {
		t.Error(err)
	}
}
