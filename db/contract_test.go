package db_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

// conformance tests the contract of db.Source. Each strategy passes it on a real PostgreSQL. set chooses the strategy
// and its settings in an otherwise complete configuration. bound is how many leases it gives out at once; 0: no bound.
func conformance(t *testing.T, bound int, set func(*config.Database)) {
	const patience = time.Minute // it costs time only where a test fails
	cfg := dbtest.Config(t)
	cfg.Pool.Timeout, cfg.PerRequest.Timeout = patience, patience
	set(&cfg)
	control := dbtest.Control(t, cfg)
	for i, c := range contract {
		if c.bounded && bound == 0 {
			continue
		}
		t.Run(c.promise, func(t *testing.T) {
			s := &subject{T: t, cfg: cfg, bound: bound, control: control}
			s.cfg.ApplicationName = fmt.Sprintf("%s-%d", cfg.ApplicationName, i) // one database; the names differ
			s.Source = s.open()
			c.check(s)
			s.mustLeaveNothing()
		})
	}
}

var contract = []struct {
	promise string
	bounded bool // only for strategies with a bound
	check   func(*subject)
}{
	{"connects when the first lease is asked for", false, connectsLate},
	{"names itself in application_name", false, namesItself},
	{"counts what is out", false, countsLeases},
	{"names its holders, since when and from which line", false, saysWhoHolds},
	{"releases once, however often it is asked to", false, releasesOnce},
	{"rolls back what a holder left open", false, rollsBack},
	{"resets the session before another holder gets it", false, resetsSession},
	{"closes a connection whose rows were left open", false, closesBusy},
	{"cancels a cancelled query on the server", false, cancelsOnServer},
	{"recovers from a killed backend at the cost of one error", false, recoversFromKill},
	{"reports that the slots are exhausted", false, reportsSlotsExhausted},
	{"reports that the login was rejected", false, reportsLoginRejected},
	{"reports that the server is unavailable", false, reportsUnavailable},
	{"does not count a cancelled caller as a failure", false, callerGone},
	{"takes a lease back from its holder", false, reclaims},
	{"keeps nothing once it is retired", false, retires},
	{"closes although a lease is out", false, closesAnyway},
	{"never gives out more than its bound", true, keepsBound},
	{"serves first come first served", true, servesInOrder},
	{"gives the place of a waiter that gave up to the next", true, passesPlaceOn},
	{"survives anything in any order", false, survivesAnything},
}

type subject struct {
	*testing.T
	*db.Source
	cfg     config.Database
	bound   int
	control *pgx.Conn
}

func (s *subject) open() *db.Source {
	s.Helper()
	strategy, err := db.NewSource(s.cfg, db.Options{})
	must(s, err)
	s.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = strategy.Close(ctx)
	})
	return strategy
}

// worker returns a context that a worker of its own serves, as for a request. It ends with the test.
func (s *subject) worker() context.Context {
	ctx, gone := db.WithWorker(s.Context())
	s.Cleanup(gone)
	return ctx
}

func (s *subject) acquire(ctx context.Context) *db.Lease {
	s.Helper()
	l, err := s.Acquire(ctx)
	must(s, err)
	return l
}

// backends counts the strategy's sessions on the server.
func (s *subject) backends() int {
	s.Helper()
	return dbtest.Backends(s, s.control, s.cfg.ApplicationName+"/"+s.cfg.Strategy)
}

func (s *subject) mustLeaveNothing() {
	s.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = s.Close(ctx)
	must(s, ctx.Err())
	if st := s.Stat(); st.Open() != 0 || st.Waiting != 0 {
		s.Errorf("after Close: %+v", st)
	}
	dbtest.Eventually(s, "no backend is left after Close", func() bool { return s.backends() == 0 })
}

func connectsLate(s *subject) {
	if n := s.backends(); n != 0 {
		s.Errorf("%d backends before the first lease", n)
	}
	s.acquire(s.worker()).Release()
}

func namesItself(s *subject) {
	l := s.acquire(s.worker())
	defer l.Release()
	var name string
	must(s, l.Conn().QueryRow(s.Context(), "SHOW application_name").Scan(&name))
	if want := s.cfg.ApplicationName + "/" + s.cfg.Strategy; name != want {
		s.Errorf("application_name is %q, want %q", name, want)
	}
}

func countsLeases(s *subject) {
	a, b := s.acquire(s.worker()), s.acquire(s.worker())
	if st := s.Stat(); st.Leases != 2 || st.Acquired != 2 || st.Connects != 2 || st.Connected != 2 {
		s.Errorf("with two leases out: %+v", st)
	}
	if n := s.backends(); n != 2 {
		s.Errorf("%d backends, want 2", n)
	}
	a.Release()
	b.Release()
	if st := s.Stat(); st.Leases != 0 {
		s.Errorf("after both came back: %+v", st)
	}
}

func saysWhoHolds(s *subject) {
	l := s.acquire(s.worker())
	defer l.Release()
	hs := s.Holders()
	if len(hs) != 1 || hs[0].PID != l.PID() || time.Since(hs[0].Since) > time.Minute {
		s.Fatalf("holders: %+v", hs)
	}
	const want = "(*subject).acquire"
	if !slices.ContainsFunc(hs[0].Stack, func(line string) bool { return strings.HasSuffix(line, want) }) {
		s.Errorf("the holder's stack lacks %s: %q", want, hs[0].Stack)
	}
}

func releasesOnce(s *subject) {
	l := s.acquire(s.worker())
	l.Release()
	l.Release()
	if st := s.Stat(); st.Leases != 0 {
		s.Errorf("%+v", st)
	}
}

func rollsBack(s *subject) {
	ctx := s.worker()
	l := s.acquire(ctx)
	_, err := l.Conn().Exec(ctx, "BEGIN; CREATE TABLE left_open (n int)")
	must(s, err)
	l.Release()
	var found *string
	must(s, s.control.QueryRow(ctx, "SELECT to_regclass('left_open')::text").Scan(&found))
	if found != nil {
		s.Error("the table of an unfinished transaction is there")
	}
	l = s.acquire(ctx)
	defer l.Release()
	if status := l.Conn().PgConn().TxStatus(); status != 'I' {
		s.Errorf("the next holder is in transaction status %q", status)
	}
}

func resetsSession(s *subject) {
	ctx := s.worker()
	l := s.acquire(ctx)
	for _, sql := range []string{
		"SET work_mem = '77MB'", "CREATE TEMP TABLE mine (n int)", "PREPARE p AS SELECT 1", "LISTEN news",
		"SELECT pg_advisory_lock(42)", "SET ROLE pg_monitor; RESET ROLE", "SELECT set_config('a.b', 'c', false)",
	} {
		if _, err := l.Conn().Exec(ctx, sql); err != nil && sql[:8] != "SET ROLE" {
			s.Fatalf("%s: %v", sql, err)
		}
	}
	l.Release()
	l = s.acquire(ctx)
	defer l.Release()
	var workMem, ab, app string
	var temp *string
	var prepared, locks, channels int
	must(s, l.Conn().QueryRow(ctx, `SELECT current_setting('work_mem'), coalesce(current_setting('a.b', true), ''),
		current_setting('application_name'), to_regclass('pg_temp.mine')::text,
		(SELECT count(*) FROM pg_prepared_statements WHERE name = 'p'),
		(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 42 AND pid = pg_backend_pid()),
		(SELECT count(*) FROM pg_listening_channels())`).
		Scan(&workMem, &ab, &app, &temp, &prepared, &locks, &channels))
	if workMem == "77MB" || ab != "" || temp != nil || prepared+locks+channels != 0 || app == "" {
		s.Errorf("left over: work_mem %s, a.b %q, temporary table %v, %d prepared, %d locks, %d channels; application_name %q",
			workMem, ab, temp, prepared, locks, channels, app)
	}
}

func closesBusy(s *subject) {
	l := s.acquire(s.worker())
	_, err := l.Conn().Query(s.Context(), "SELECT generate_series(1, 1000000)")
	must(s, err)
	l.Release()
	dbtest.Eventually(s, "the backend of the unread result is gone", func() bool { return s.backends() == 0 })
	s.acquire(s.worker()).Release()
}

func cancelsOnServer(s *subject) {
	at := cmp.Or(s.bound, 4)
	for range 3 {
		var wg sync.WaitGroup
		for range at {
			wg.Go(func() {
				l, err := s.Acquire(s.worker())
				if err != nil {
					s.Error(err)
					return
				}
				defer l.Release()
				ctx, cancel := context.WithTimeout(s.Context(), 30*time.Millisecond)
				defer cancel()
				if _, err := l.Conn().Exec(ctx, "SELECT pg_sleep(60)"); !cancelled(err) {
					s.Errorf("a cancelled query ended with %v", err)
				}
			})
		}
		wg.Wait()
		if st := s.Stat(); s.bound > 0 && s.backends() > s.bound {
			s.Errorf("%d backends, the bound is %d: %+v", s.backends(), s.bound, st)
		}
	}
	dbtest.Eventually(s, "no cancelled query runs on the server", func() bool { // without the cancellation it would run for a minute
		return s.running("pg_sleep") == 0
	})
}

// cancelled: the server's answer to the cancel request, or the client's own deadline, whichever was first.
func cancelled(err error) bool {
	pe, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pe.Code == pgerrcode.QueryCanceled || errors.Is(err, context.DeadlineExceeded)
}

func recoversFromKill(s *subject) {
	ctx := s.worker()
	l := s.acquire(ctx)
	pid := l.PID()
	l.Release()
	_, err := s.control.Exec(ctx, "SELECT pg_terminate_backend($1)", pid)
	must(s, err)
	dbtest.Eventually(s, "the killed backend is gone", func() bool { return s.backends() == 0 })
	failures := 0
	for range 3 {
		l := s.acquire(ctx)
		if _, err := l.Conn().Exec(ctx, "SELECT 1"); err != nil {
			failures++
		}
		l.Release()
	}
	if failures > 1 {
		s.Errorf("%d of 3 queries after the kill failed, at most one should", failures)
	}
}

func reportsSlotsExhausted(s *subject) {
	_, err := s.control.Exec(s.Context(), "ALTER DATABASE "+pgx.Identifier{s.cfg.Name}.Sanitize()+" CONNECTION LIMIT 0")
	must(s, err)
	dbtest.Eventually(s, "the server refuses", func() bool { // a login that takes too long on a busy machine has another cause
		_, err = s.Acquire(s.worker())
		return db.CauseOf(err) == db.SlotsExhausted
	})
	if ce, ok := errors.AsType[*db.ConnError](err); !ok || ce.SQLState() != "53300" {
		s.Errorf("SQLSTATE is not 53300: %v", err)
	}
	_, err = s.control.Exec(s.Context(), "ALTER DATABASE "+pgx.Identifier{s.cfg.Name}.Sanitize()+" CONNECTION LIMIT -1")
	must(s, err)
	dbtest.Eventually(s, "the next attempt is made", func() bool {
		l, err := s.Acquire(s.worker())
		if err == nil {
			l.Release()
		}
		return err == nil
	})
}

func reportsLoginRejected(s *subject) {
	s.cfg.Password = "wrong"
	_, err := s.open().Acquire(s.worker())
	s.wantCause(err, db.LoginRejected)
}

func reportsUnavailable(s *subject) {
	s.cfg.Host, s.cfg.Port = "127.0.0.1", 1 // tcpmux: no server listens there
	_, err := s.open().Acquire(s.worker())
	s.wantCause(err, db.ServerUnavailable)
}

func (s *subject) wantCause(err error, want db.Cause) {
	s.Helper()
	if got := db.CauseOf(err); got != want {
		s.Errorf("cause %q, want %q (%v)", got, want, err)
	}
}

func callerGone(s *subject) {
	ctx, cancel := context.WithCancel(s.worker())
	cancel()
	if _, err := s.Acquire(ctx); !errors.Is(err, context.Canceled) || db.CauseOf(err) != "" {
		s.Errorf("a caller that is gone got %v", err)
	}
}

func reclaims(s *subject) {
	ctx := s.worker()
	l := s.acquire(ctx)
	failed := make(chan error, 1)
	go func() {
		_, err := l.Conn().Exec(ctx, "SELECT pg_sleep(60)")
		failed <- err
	}()
	dbtest.Eventually(s, "the query runs", func() bool { return s.running("pg_sleep") == 1 })
	began := time.Now()
	if !l.Reclaim() || l.Reclaim() {
		s.Error("Reclaim should do it once")
	}
	took := time.Since(began)
	if n := s.backends(); n != 0 && took < time.Second { // it waits no longer for a backend
		s.Errorf("the place of a lease that was taken back is free, but %d backends are there", n)
	}
	if err := <-failed; err == nil {
		s.Error("the holder's query went on")
	}
	if st := s.Stat(); st.Leases != 0 {
		s.Errorf("%+v", st)
	}
	s.acquire(ctx).Release()
	l.Release()
}

func (s *subject) running(word string) (n int) {
	s.Helper()
	must(s, s.control.QueryRow(s.Context(), `SELECT count(*) FROM pg_stat_activity
		WHERE datname = current_database() AND state = 'active' AND pid <> pg_backend_pid() AND query LIKE '%'||$1||'%'`, word).Scan(&n))
	return n
}

func retires(s *subject) {
	s.acquire(s.worker()).Release()
	held := s.acquire(s.worker())
	s.Retire(s.Context())
	if n := s.backends(); n != 1 {
		s.Errorf("%d backends after Retire with one lease out", n)
	}
	s.acquire(s.worker()).Release() // running ones may still query
	held.Release()
	dbtest.Eventually(s, "nothing is kept", func() bool { return s.backends() == 0 })
}

func closesAnyway(s *subject) {
	l := s.acquire(s.worker())
	ctx, cancel := context.WithTimeout(s.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		s.Errorf("Close with a lease out: %v", err)
	}
	dbtest.Eventually(s, "its backend is gone", func() bool { return s.backends() == 0 })
	l.Release()
	must(s, s.Close(s.Context()))
}

func keepsBound(s *subject) {
	var wg sync.WaitGroup
	peak := make(chan int, 8*s.bound)
	for range 8 * s.bound {
		wg.Go(func() {
			ctx := s.worker()
			l, err := s.Acquire(ctx)
			if err != nil {
				s.Error(err)
				return
			}
			defer l.Release()
			var n int
			if err := l.Conn().QueryRow(ctx, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1",
				s.cfg.ApplicationName+"/"+s.cfg.Strategy).Scan(&n); err != nil {
				s.Error(err)
			}
			peak <- n
		})
	}
	wg.Wait()
	close(peak)
	for n := range peak {
		if n > s.bound {
			s.Errorf("%d backends at once, the bound is %d", n, s.bound)
		}
	}
}

// fill takes every place.
func (s *subject) fill() []*db.Lease {
	ls := make([]*db.Lease, s.bound)
	for i := range ls {
		ls[i] = s.acquire(s.worker())
	}
	return ls
}

func servesInOrder(s *subject) {
	held := s.fill()
	served := make(chan int, 5)
	for i := range 5 {
		go func() {
			l, err := s.Acquire(s.worker())
			if err != nil {
				s.Error(err)
			} else {
				defer l.Release()
			}
			served <- i
		}()
		dbtest.Eventually(s, "it waits", func() bool { return s.Stat().Waiting == i+1 })
	}
	if st := s.Stat(); st.OldestWait <= 0 {
		s.Errorf("the age of the oldest waiter is missing: %+v", st)
	}
	held[0].Release()
	for i := range 5 {
		if got := <-served; got != i {
			s.Errorf("waiter %d was served as number %d", got, i)
		}
	}
	for _, l := range held[1:] {
		l.Release()
	}
}

func passesPlaceOn(s *subject) {
	held := s.fill()
	for range 50 { // the end of the wait and the release, at the same moment
		ctx, cancel := context.WithCancel(s.worker())
		done := make(chan struct{})
		go func() {
			defer close(done)
			if l, err := s.Acquire(ctx); err == nil {
				l.Release()
			}
		}()
		dbtest.Eventually(s, "it waits", func() bool { return s.Stat().Waiting == 1 })
		go cancel()
		held[0].Release()
		<-done
		held[0] = s.acquire(s.worker())
	}
	if st := s.Stat(); st.Waiting != 0 || st.Leases != s.bound {
		s.Errorf("%+v", st)
	}
	for _, l := range held {
		l.Release()
	}
}

func survivesAnything(s *subject) {
	began := time.Now()
	s.acquire(s.worker()).Release()
	unit := max(time.Millisecond, time.Since(began)/4) // some logins are given up, and the server keeps up with them
	var wg sync.WaitGroup
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 1))
		wg.Go(func() {
			for range 12 {
				s.anything(r, unit)
			}
		})
	}
	wg.Wait()
	dbtest.Eventually(s, "no lease and no waiter is left", func() bool { // the place of a lost connection is free a moment later
		st := s.Stat()
		return st.Leases == 0 && st.Waiting == 0
	})
	s.acquire(s.worker()).Release()
}

// anything does one random thing that a request may do, correct or not. It has less than 40 units of time.
func (s *subject) anything(r *rand.Rand, unit time.Duration) {
	worker, gone := db.WithWorker(s.Context())
	defer gone()
	ctx, cancel := context.WithTimeout(worker, time.Duration(r.IntN(40))*unit)
	defer cancel()
	l, err := s.Acquire(ctx)
	if err != nil {
		return
	}
	defer l.Release()
	switch r.IntN(7) {
	case 0:
		_, _ = l.Conn().Exec(ctx, "SELECT pg_sleep(0.02)")
	case 1:
		_, _ = l.Conn().Exec(ctx, "BEGIN; SELECT 1/0")
	case 2:
		_, _ = l.Conn().Query(ctx, "SELECT generate_series(1, 10000)")
	case 3:
		_, _ = l.Conn().Exec(ctx, "SELECT pg_terminate_backend(pg_backend_pid())")
	case 4:
		l.Reclaim()
	case 5:
		_ = l.Conn().Close(ctx)
	default:
		_, _ = l.Conn().Exec(ctx, fmt.Sprintf("SET work_mem = '%dMB'", 1+r.IntN(9)))
	}
}
