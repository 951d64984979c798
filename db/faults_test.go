package db_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2" // a network path that can be cut, silenced and slowed down; for tests only
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/rs/zerolog" // toxiproxy wants a logger of this kind

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
	"ddtb/db/localpg/system"
)

// fault is a way in which the server, or the way to it, fails.
type fault struct {
	name    string
	own     *dbtest.Options // the server is the fault's own; nil: it is the package's
	proxied bool            // the path leads through toxiproxy
	silent  bool            // the server does not answer: only deadlines end a query, and they are short
	set     func(*config.Database)
	sql     string                                // of each request; "": SELECT 1
	begin   func(*testing.T, *site) (lift func()) // nil: it is in the SQL
	ends    []string                              // how a query may end meanwhile: ok, deadline, a Cause, an SQLSTATE
	must    string                                // how at least one query of each strategy has to end
	keeps   bool                                  // no connection is lost
	reruns  bool                                  // a statement may be run once more, with another lease
	unseen  bool                                  // backends that are lost stay, and can't be seen from here
}

// How a query may end, besides an SQLSTATE.
const (
	ok          = "ok"
	deadline    = "deadline" // the request's own
	unavailable = string(db.ServerUnavailable)
	opened      = string(db.CircuitOpen)
	waited      = string(db.PoolTimeout)
	slots       = string(db.SlotsExhausted)
)

var faults = []fault{
	{name: "killed while idle", begin: killed, ends: []string{ok, unavailable}, must: ok},
	{name: "killed at work", sql: "SELECT pg_terminate_backend(pg_backend_pid())", ends: []string{unavailable}, must: unavailable},
	{name: "restarted fast", own: &dbtest.Options{}, begin: restarted(dbtest.Fast), ends: []string{ok, unavailable, opened}, must: unavailable},
	{
		name: "restarted immediately", own: &dbtest.Options{}, begin: restarted(dbtest.Immediate),
		ends: []string{ok, unavailable, opened}, must: unavailable,
	},
	{name: "refused", own: &dbtest.Options{}, begin: stopped, ends: []string{unavailable, opened}, must: opened},
	{
		name: "stopped by SIGSTOP", own: &dbtest.Options{}, silent: true, begin: paused,
		ends: []string{deadline, unavailable, opened, waited}, must: "",
	},
	{
		name: "black-holed", proxied: true, silent: true, begin: toxic("timeout", `{"timeout": 0}`),
		ends: []string{deadline, unavailable, opened, waited}, must: "",
	},
	{name: "half-open", own: &dbtest.Options{}, silent: true, begin: halfOpen, ends: []string{ok, deadline, waited, unavailable, opened}, must: ok, unseen: true},
	{
		name: "reset", proxied: true, begin: toxic("reset_peer", `{"timeout": 0}`),
		ends: []string{unavailable, opened}, must: unavailable,
	},
	{
		// With sslmode prefer the TLS request passes, and what follows it does not.
		name: "reset after the first bytes", proxied: true, set: func(c *config.Database) { c.SSLMode = "prefer" },
		begin: toxic("limit_data", `{"bytes": 9}`),
		ends:  []string{unavailable, opened}, must: unavailable,
	},
	{name: "slow", proxied: true, begin: toxic("latency", `{"latency": 40, "jitter": 20}`), ends: []string{ok}, must: ok, keeps: true},
	{name: "narrow", proxied: true, begin: toxic("bandwidth", `{"rate": 10}`), ends: []string{ok}, must: ok, keeps: true},
	{
		name: "slots exhausted by others", own: &dbtest.Options{MaxConnections: 40}, begin: hogged,
		ends: []string{slots, unavailable}, must: slots,
	},
	{
		// Each backend reads the setting in its own time.
		name: "read-only", own: &dbtest.Options{}, begin: readOnly, ends: []string{ok, "25006"}, must: "25006", reruns: true,
		sql: "INSERT INTO polls_question (question_text, pub_date) VALUES ('q', now())",
	},
	{
		name: "statement timeout", set: func(c *config.Database) { c.StatementTimeout = 50 * time.Millisecond },
		sql: "SELECT pg_sleep(60)", ends: []string{"57014"}, must: "57014", keeps: true,
	},
	{
		name: "disk full", sql: "DO $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$",
		ends: []string{"53100"}, must: "53100", keeps: true,
	},
}

const (
	clients = 6 // of each strategy, twice the bound of those that have one
	rounds  = 2 // requests of each while the fault lasts, at least
)

var contenders = []struct {
	name  string
	set   func(*config.Database)
	bound int // of leases
}{
	{"per-request", perRequest, clients},
	{"persistent with workers", func(c *config.Database) { persistent(c); c.Persistent.Workers = 3 }, 3},
	{"persistent without", persistent, clients},
	{"pool, for the query", pool, 3},
	{"pool, for the request", poolRequest, 3},
	{"multiplex", multiplex, 3},
}

func TestEveryStrategyOutlivesEveryFault(t *testing.T) {
	zerolog.SetGlobalLevel(zerolog.Disabled) // toxiproxy's toxics know no other switch
	// A wire that both ends leave while bytes are on it waits for a reader.
	dbtest.NoLeaks(t, "github.com/Shopify/toxiproxy/v2/toxics.(*NoopToxic).Pipe")
	dbtest.Config(t) // the package's server, once started, is no leak
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, &f)
			for _, c := range s.cells {
				c.warm(t)
			}
			counted := s.countBackends(t)
			lift := func() {}
			if f.begin != nil {
				lift = sync.OnceFunc(f.begin(t, s))
				defer lift()
			}
			s.side(t, "a query has not ended", func(c *cell) { c.endure(t) })
			counted()
			lift()
			lifted := time.Now()
			s.side(t, "a strategy has not recovered", func(c *cell) { c.recover(t, lifted) })
			control := dbtest.Control(t, s.cfg)
			for _, c := range s.cells {
				c.check(t, control)
			}
		})
	}
}

// site is where a fault happens, with every strategy on it.
type site struct {
	fault  *fault
	server *dbtest.Server // of the fault; nil: the package's
	cfg    config.Database
	proxy  *toxiproxy.Proxy
	over   chan struct{} // closed when a fault that passes by itself is over
	cells  []*cell
}

func newSite(t *testing.T, f *fault) *site {
	t.Helper()
	s := &site{fault: f, over: make(chan struct{})}
	if f.own != nil {
		s.server = dbtest.NewServer(t, *f.own)
		s.cfg = s.server.Config(t)
	} else {
		s.cfg = dbtest.Config(t)
	}
	if f.proxied {
		s.proxy = proxied(t, &s.cfg)
	}
	s.cfg.ConnectTimeout, s.cfg.Pool.Timeout = 30*time.Second, 30*time.Second
	patience := time.Minute
	if f.silent {
		s.cfg.ConnectTimeout, s.cfg.Pool.Timeout, patience = time.Second, 1500*time.Millisecond, 2*time.Second
	}
	if f.set != nil {
		f.set(&s.cfg)
	}
	for i, c := range contenders {
		s.cells = append(s.cells, newCell(t, s, i, c.name, c.set, c.bound, patience))
	}
	return s
}

// proxied leads cfg over a toxiproxy, which goes with the test.
func proxied(t *testing.T, cfg *config.Database) *toxiproxy.Proxy {
	t.Helper()
	p := toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop()),
		"wire", "127.0.0.1:0", net.JoinHostPort(cfg.Host, strconv.Itoa(cfg.Port)))
	must(t, p.Start())
	t.Cleanup(p.Stop)
	host, port, err := net.SplitHostPort(p.Listen)
	must(t, err)
	cfg.Host = host
	if cfg.Port, err = strconv.Atoi(port); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAPoolsTimeoutBoundsTheSearchForAServerThatWasJustLost(t *testing.T) {
	var wire *toxiproxy.Proxy
	d, _, _ := open(t, func(c *config.Database) {
		pool(c)
		wire = proxied(t, c)
		c.Pool.Timeout, c.ConnectTimeout = 500*time.Millisecond, 20*time.Second
	})
	one(t, d, t.Context())
	must(t, wire.Update(&toxiproxy.Proxy{Listen: wire.Listen, Upstream: silent(t), Enabled: true})) // it closes what is open
	<-time.After(50 * time.Millisecond)                                                             // the connection was in use a moment ago
	began := time.Now()
	_, err := d.Exec(t.Context(), "SELECT 1")
	if took := time.Since(began); db.CauseOf(err) != db.ServerUnavailable || took > 10*time.Second {
		t.Errorf("%v after %v", err, took)
	}
}

// countBackends counts those of each strategy on the server, past the wire, whenever the server answers, until counted
// is called, which judges.
func (s *site) countBackends(t *testing.T) (counted func()) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	most, samples := map[string]int{}, 0
	cc := dbtest.Control(t, s.cfg).Config()
	var sampling sync.WaitGroup
	sampling.Go(func() {
		for ctx.Err() == nil {
			conn, err := pgx.ConnectConfig(ctx, cc.Copy())
			for err == nil {
				if err = sample(ctx, conn, most); err == nil {
					samples++
				}
				<-time.After(10 * time.Millisecond) // leaves the server to others
			}
			if conn != nil {
				_ = conn.Close(context.Background())
			}
			<-time.After(2 * time.Millisecond)
		}
	})
	return func() {
		stop()
		sampling.Wait()
		if samples == 0 && s.server == nil { // the package's, which answers all the time
			t.Error("the backends were never counted")
		}
		for _, c := range s.cells {
			bound := c.bound + c.shared
			if s.fault.unseen {
				bound *= 2 // a place is free again after a second of silence
			}
			t.Logf("%s: %d backends at most, in %d samples", c.name, most[c.app], samples)
			if n := most[c.app]; n > bound {
				t.Errorf("%s: %d backends at once, the bound is %d", c.name, n, bound)
			}
		}
	}
}

func sample(ctx context.Context, conn *pgx.Conn, most map[string]int) error {
	rows, err := conn.Query(ctx, "SELECT application_name, count(*) FROM pg_stat_activity WHERE application_name LIKE 'cell-%' AND datname = current_database() GROUP BY 1")
	if err != nil {
		return err
	}
	var app string
	var n int
	_, err = pgx.ForEachRow(rows, []any{&app, &n}, func() error {
		most[app] = max(most[app], n)
		return nil
	})
	return err
}

// side runs the same for every strategy, concurrently.
func (s *site) side(t *testing.T, failure string, do func(*cell)) {
	t.Helper()
	var wg sync.WaitGroup
	for _, c := range s.cells {
		wg.Go(func() { do(c) })
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		for _, c := range s.cells {
			t.Logf("%s: %+v", c.name, c.db.Stat())
		}
		t.Errorf("after a minute %s", failure)
		<-done // each request has its deadline
	}
}

// cell is one strategy under one fault.
type cell struct {
	*site
	name               string
	bound              int           // of leases
	shared             int           // connections beside them, for reads
	patience           time.Duration // of a request
	db                 *db.DB
	app                string            // its name on the server
	workers            []context.Context // of its clients
	requests, timeouts atomic.Int64
	warmed             db.Stat
}

func newCell(t *testing.T, s *site, i int, name string, set func(*config.Database), bound int, patience time.Duration) *cell {
	t.Helper()
	cfg := s.cfg
	set(&cfg)
	cfg.ApplicationName = fmt.Sprintf("cell-%d", i)
	d, err := db.Open(t.Context(), cfg)
	must(t, err)
	c := &cell{site: s, name: name, bound: bound, patience: patience, db: d, app: cfg.ApplicationName + "/" + cfg.Strategy}
	if cfg.Strategy == db.Multiplex {
		c.shared = cfg.Multiplex.Connections
	}
	for range clients {
		worker, gone := db.WithWorker(context.Background())
		t.Cleanup(gone)
		c.workers = append(c.workers, worker)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_ = d.Close(ctx) // closed by check, unless the test failed before
	})
	return c
}

// request is one of a client: one query, and how it ended.
func (c *cell) request(client int, query func(context.Context) error) string {
	ctx, cancel := context.WithTimeout(c.workers[client], c.patience)
	defer cancel()
	ctx, end := c.db.Begin(ctx)
	defer end()
	c.requests.Add(1)
	err := query(ctx)
	switch cause := db.CauseOf(err); {
	case err == nil:
		return ok
	case cause == db.PoolTimeout:
		c.timeouts.Add(1)
		return waited
	case cause != "":
		return string(cause)
	case ctx.Err() != nil:
		return deadline
	}
	if pe, is := errors.AsType[*pgconn.PgError](err); is {
		return pe.Code
	}
	return err.Error()
}

// read reads over the shared connections. Unlike another query it is tried again, until its deadline.
func (c *cell) read(ctx context.Context) error {
	if !c.fault.keeps { // under a fault that keeps connections nothing is tried again, and giving a read up may cost its connection
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Second)
		defer cancel()
	}
	_, err := c.db.Read().Exec(ctx, "SELECT 1")
	if errors.Is(err, context.DeadlineExceeded) {
		return nil // it was tried for as long as it might
	}
	return err
}

func (c *cell) exec(sql string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := c.db.Exec(ctx, sql)
		return err
	}
}

// warm has as many connections made as the strategy allows, and sees it work.
func (c *cell) warm(t *testing.T) {
	t.Helper()
	var leases []*db.Lease
	for i := range c.bound {
		dbtest.Eventually(t, c.name+" works before the fault", func() bool {
			return c.request(i, func(ctx context.Context) error {
				l, err := c.db.Acquire(ctx)
				if err == nil {
					leases = append(leases, l)
				}
				return err
			}) == ok
		})
	}
	for _, l := range leases {
		l.Release()
	}
	c.warmed = c.db.Stat()
}

// endure sends the requests of the clients while the fault lasts, and judges how they ended.
func (c *cell) endure(t *testing.T) {
	sql := c.fault.sql
	if sql == "" {
		sql = "SELECT 1"
	}
	var mu sync.Mutex
	ends := map[string]int{}
	var longest time.Duration
	var met atomic.Int64 // queries that ended as one must
	var wg sync.WaitGroup
	for client := range clients {
		wg.Go(func() {
			for round := 0; round < rounds || c.passing() || met.Load() == 0 && round < 10*rounds; round++ {
				began := time.Now()
				if c.shared > 0 && c.fault.sql == "" {
					c.readThrough(t, client)
				}
				end := c.request(client, c.exec(sql))
				if end == c.fault.must || c.fault.must == "" || c.shared > 0 { // the read before may have waited until the fault was over
					met.Add(1)
				}
				mu.Lock()
				ends[end]++
				longest = max(longest, time.Since(began))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	t.Logf("%s: %v, the longest took %v", c.name, ends, longest.Round(time.Millisecond))
	for end, n := range ends {
		if !slices.Contains(c.fault.ends, end) {
			t.Errorf("%s: %d queries ended with %q, which is none of %q", c.name, n, end, c.fault.ends)
		}
	}
	if met.Load() == 0 {
		t.Errorf("%s: no query ended with %q: %v", c.name, c.fault.must, ends)
	}
}

// readThrough sends a declared read: a fault ends it in no other way than a query, if it ends it at all.
func (c *cell) readThrough(t *testing.T, client int) {
	end := c.request(client, c.read)
	if ends := append([]string{ok, deadline, context.DeadlineExceeded.Error()}, c.fault.ends...); !slices.Contains(ends, end) {
		t.Errorf("%s: a read ended with %q", c.name, end)
	}
}

// passing reports whether the fault is one that passes by itself, and is not over yet. A client comes back after a moment.
func (c *cell) passing() bool {
	if !strings.HasPrefix(c.fault.name, "restarted") {
		return false
	}
	select {
	case <-c.over:
		return false
	case <-time.After(10 * time.Millisecond):
		return true
	}
}

// recover sends requests until one succeeds.
func (c *cell) recover(t *testing.T, lifted time.Time) {
	for c.request(0, c.exec("SELECT 1")) != ok {
		if time.Since(lifted) > 30*time.Second {
			t.Errorf("%s: no query works 30 s after the fault: %+v", c.name, c.db.Stat())
			return
		}
		<-time.After(5 * time.Millisecond) // a client that comes back
	}
	t.Logf("%s: works %v after the fault", c.name, time.Since(lifted).Round(time.Millisecond))
}

// check checks that the fault left nothing behind.
func (c *cell) check(t *testing.T, control *pgx.Conn) {
	t.Helper()
	dbtest.Eventually(t, c.name+" has no backend beyond its bound", func() bool { return dbtest.Backends(t, control, c.app) <= c.bound+c.shared })
	c.mustKeepBound(t)
	dbtest.Eventually(t, c.name+" has let go of what was lost", func() bool { return c.db.Stat().Leases == 0 })
	s := c.db.Stat()
	if s.Waiting != 0 || s.OldestWait != 0 {
		t.Errorf("%s: leases or waiters are left: %+v", c.name, s)
	}
	if n := s.Acquired + s.TimedOut; c.shared == 0 && (n < c.requests.Load() || n > c.requests.Load() && !c.fault.reruns || s.TimedOut != c.timeouts.Load()) {
		t.Errorf("%s: %d requests, of which %d timed out, are counted wrongly: %+v", c.name, c.requests.Load(), c.timeouts.Load(), s)
	}
	if s.Connected > s.Connects || s.Refused+s.Leaked+s.Reclaimed+s.Nested != 0 {
		t.Errorf("%s: counts what was not: %+v", c.name, s)
	}
	if c.fault.keeps && s.Strategy != db.PerRequest && s.Connects > c.warmed.Connects+2*int64(c.shared) { // a shared one that stalls is replaced
		t.Errorf("%s: a fault that leaves connections alone cost some: %d attempts before, %d after", c.name, c.warmed.Connects, s.Connects)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := c.db.Close(ctx); err != nil {
		t.Errorf("%s: Close: %v", c.name, err)
	}
	if s := c.db.Stat(); s.Open() != 0 {
		t.Errorf("%s: after Close: %+v", c.name, s)
	}
	dbtest.Eventually(t, c.name+" leaves no session on the server", func() bool { return dbtest.Backends(t, control, c.app) == 0 })
}

// mustKeepBound has all clients count the backends at once.
func (c *cell) mustKeepBound(t *testing.T) {
	t.Helper()
	var most atomic.Int64
	var wg sync.WaitGroup
	for client := range clients {
		wg.Go(func() {
			_ = c.request(client, func(ctx context.Context) error {
				var n int64
				err := c.db.QueryRow(ctx, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1",
					c.app).Scan(&n)
				for was := most.Load(); n > was && !most.CompareAndSwap(was, n); was = most.Load() {
				}
				return err
			})
		})
	}
	wg.Wait()
	if n := most.Load(); n > int64(c.bound+c.shared) {
		t.Errorf("%s: %d backends at once, the bound is %d", c.name, n, c.bound+c.shared)
	}
}

func killed(t *testing.T, s *site) func() {
	t.Helper()
	control := dbtest.Control(t, s.cfg)
	for _, c := range s.cells {
		dbtest.KillBackends(t, control, c.app)
		dbtest.Eventually(t, "the killed are gone", func() bool { return dbtest.Backends(t, control, c.app) == 0 })
	}
	return func() {}
}

func restarted(mode string) func(*testing.T, *site) func() {
	return func(t *testing.T, s *site) func() {
		go func() {
			defer close(s.over)
			s.server.Restart(t, mode)
		}()
		return func() { <-s.over }
	}
}

func stopped(t *testing.T, s *site) func() {
	t.Helper()
	s.server.Stop(t, dbtest.Fast)
	return func() { s.server.Start(t) }
}

func paused(t *testing.T, s *site) func() {
	t.Helper()
	s.server.Pause(t)
	return func() { s.server.Resume(t) }
}

// toxic does something to the data on the wire, both ways.
func toxic(kind, attributes string) func(*testing.T, *site) func() {
	return func(t *testing.T, s *site) func() {
		for _, way := range []string{"upstream", "downstream"} {
			if _, err := s.proxy.Toxics.AddToxicJson(strings.NewReader(fmt.Sprintf(
				`{"type": %q, "stream": %q, "attributes": %s}`, kind, way, attributes))); err != nil {
				t.Fatal(err)
			}
		}
		return func() { s.proxy.Toxics.ResetToxics(context.Background()) }
	}
}

// halfOpen silences the connections that are there, while new ones work: their backends are stopped, which looks from
// here as a NAT does that forgot them.
func halfOpen(t *testing.T, s *site) func() {
	t.Helper()
	pids := backendsOf(t, s)
	for _, pid := range pids {
		must(t, system.Kill(pid, system.Stop))
	}
	return func() {
		for _, pid := range pids {
			_ = system.Kill(pid, system.Continue)
		}
	}
}

func backendsOf(t *testing.T, s *site) []int {
	t.Helper()
	rows, err := dbtest.Control(t, s.cfg).Query(t.Context(), "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'cell-%'")
	must(t, err)
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil || len(pids) == 0 {
		t.Fatalf("no backend to stop (%v)", err)
	}
	return pids
}

// hogged makes other sessions take every slot.
func hogged(t *testing.T, s *site) func() {
	t.Helper()
	killed(t, s)
	cc := connConfig(t, s.cfg)
	var others []*pgx.Conn
	for {
		conn, err := db.Connect(t.Context(), cc)
		if db.CauseOf(err) == db.SlotsExhausted {
			break
		}
		must(t, err)
		others = append(others, conn)
	}
	return func() {
		for _, o := range others {
			_ = o.Close(context.Background())
		}
	}
}

// readOnly makes the server behave like one that became a standby.
func readOnly(t *testing.T, s *site) func() {
	t.Helper()
	control := dbtest.Control(t, s.cfg)
	set := func(sql, to string) {
		run(t, control, sql)
		run(t, control, "SELECT pg_reload_conf()")
		dbtest.Eventually(t, "the setting is in force", func() bool { return scan[string](t, control, "SHOW default_transaction_read_only") == to })
	}
	set("ALTER SYSTEM SET default_transaction_read_only = on", "on")
	return func() { set("ALTER SYSTEM RESET default_transaction_read_only", "off") }
}
