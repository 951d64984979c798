package db_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

// open returns a DB with one of the strategies, and a monitoring connection.
func open(t *testing.T, set func(*config.Database)) (*db.DB, *pgx.Conn, config.Database) {
	t.Helper()
	cfg := dbtest.Config(t)
	set(&cfg)
	d, err := db.Open(t.Context(), cfg)
	must(t, err)
	t.Cleanup(func() {
		if err := d.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return d, dbtest.Control(t, cfg), cfg
}

func perRequest(c *config.Database)  { c.Strategy = db.PerRequest }
func persistent(c *config.Database)  { c.Strategy = db.Persistent }
func pool(c *config.Database)        { c.Strategy, c.Pool.MaxSize = db.Pool, 3 }
func multiplex(c *config.Database)   { pool(c); c.Strategy = db.Multiplex }
func poolRequest(c *config.Database) { pool(c); c.Pool.Hold = db.HoldRequest }

var strategies = map[string]func(*config.Database){
	"per-request": perRequest, "persistent": persistent, "pool": pool, "pool, for the request": poolRequest,
	"multiplex": multiplex,
}

func everyStrategy(t *testing.T, test func(t *testing.T, set func(*config.Database))) {
	for name, set := range strategies {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // each waits for the server more than it works
			test(t, set)
		})
	}
}

func one(t *testing.T, q db.Querier, ctx context.Context) (n int) { //nolint:revive // t first, as in every helper here
	t.Helper()
	must(t, q.QueryRow(ctx, "SELECT 1").Scan(&n))
	return n
}

func TestARequestThatNeverQueriesTakesNoConnection(t *testing.T) {
	everyStrategy(t, func(t *testing.T, set func(*config.Database)) {
		d, _, _ := open(t, set)
		_, end := d.Begin(t.Context())
		end()
		if s := d.Stat(); s.Acquired != 0 || s.Connects != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestARequestHoldsItsLeaseAsItsStrategySays(t *testing.T) {
	for name, c := range map[string]struct {
		set  func(*config.Database)
		held int // between two queries
	}{
		"per-request": {perRequest, 1}, "persistent": {persistent, 1}, "pool": {pool, 0}, "pool, for the request": {poolRequest, 1},
	} {
		t.Run(name, func(t *testing.T) {
			d, _, _ := open(t, c.set)
			ctx, end := d.Begin(t.Context())
			one(t, d, ctx)
			one(t, d, ctx)
			if s := d.Stat(); s.Leases != c.held {
				t.Errorf("between queries %d leases are out, want %d", s.Leases, c.held)
			}
			if s := d.Stat(); c.held == 1 && s.Acquired != 1 {
				t.Errorf("%d leases for one request", s.Acquired)
			}
			end()
			end()
			if s := d.Stat(); s.Leases != 0 {
				t.Errorf("after the request %d leases are out", s.Leases)
			}
		})
	}
}

func TestAGoroutineThatOutlivesItsRequestLeavesNoLeaseBehind(t *testing.T) {
	everyStrategy(t, func(t *testing.T, set func(*config.Database)) {
		d, _, _ := open(t, set)
		ctx, end := d.Begin(t.Context())
		one(t, d, ctx)
		end()
		one(t, d, ctx)
		if s := d.Stat(); s.Leases != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestReleaseGivesTheLeaseBackBeforeTheRequestEnds(t *testing.T) {
	everyStrategy(t, func(t *testing.T, set func(*config.Database)) {
		d, _, _ := open(t, set)
		ctx, end := d.Begin(t.Context())
		defer end()
		one(t, d, ctx)
		d.Release(ctx)
		if s := d.Stat(); s.Leases != 0 {
			t.Errorf("%+v", s)
		}
		one(t, d, ctx)
	})
}

func TestALeaseComesBackFromEveryWayToQuery(t *testing.T) {
	everyStrategy(t, func(t *testing.T, set func(*config.Database)) {
		d, _, _ := open(t, set)
		ctx := t.Context()
		var n int
		_ = d.QueryRow(ctx, "SELECT 1 WHERE false").Scan(&n)
		_ = d.QueryRow(ctx, "SELECT 'x'").Scan(&n)
		_ = d.QueryRow(ctx, "no SQL").Scan(&n)
		_, _ = d.Exec(ctx, "no SQL")
		_, _ = d.Query(ctx, "no SQL")
		rows, err := d.Query(ctx, "SELECT generate_series(1, 100000)")
		if err != nil || !rows.Next() {
			t.Fatal(err)
		}
		rows.Close()
		rows, _ = d.Query(ctx, "SELECT 1/(3-n) FROM generate_series(1, 5) n")
		if _, err := pgx.CollectRows(rows, pgx.RowTo[int]); err == nil {
			t.Error("a division by zero was not reported")
		}
		rows, _ = d.Query(ctx, "SELECT 'x'")
		for rows.Next() {
			_ = rows.Scan(&n)
		}
		_ = d.InTx(ctx, func(q db.Querier) error { return errors.New("no") })
		func() {
			defer func() { _ = recover() }()
			_ = d.InTx(ctx, func(q db.Querier) error { panic("oh") })
		}()
		if s := d.Stat(); s.Leases != 0 {
			t.Errorf("%+v", s)
		}
		one(t, d, ctx)
	})
}

func TestATransactionIsAllOrNothing(t *testing.T) {
	everyStrategy(t, func(t *testing.T, set func(*config.Database)) {
		d, control, _ := open(t, set)
		ctx := t.Context()
		if _, err := control.Exec(ctx, "CREATE TABLE done (n int UNIQUE)"); err != nil {
			t.Fatal(err)
		}
		if _, err := control.Exec(ctx, "GRANT ALL ON done TO PUBLIC"); err != nil {
			t.Fatal(err)
		}
		insert := func(n int, fail error) error {
			return d.InTx(ctx, func(q db.Querier) error {
				if _, err := q.Exec(ctx, "INSERT INTO done VALUES ($1)", n); err != nil {
					return err
				}
				return fail
			})
		}
		must(t, insert(1, nil))
		if err := insert(2, errors.New("no")); err == nil || err.Error() != "no" {
			t.Errorf("got %v", err)
		}
		if err := insert(1, nil); err == nil || db.CauseOf(err) != "" {
			t.Errorf("a broken constraint is %v, of cause %q", err, db.CauseOf(err))
		}
		gone, cancel := context.WithCancel(ctx)
		_ = d.InTx(gone, func(q db.Querier) error {
			_, err := q.Exec(gone, "INSERT INTO done VALUES (3)")
			cancel()
			return err
		})
		var got string
		if err := control.QueryRow(ctx, "SELECT string_agg(n::text, ',' ORDER BY n) FROM done").Scan(&got); err != nil || got != "1" {
			t.Errorf("committed: %q, %v", got, err)
		}
	})
}

func TestASecondQueryOnAHeldLeaseIsRefusedWhileItsRowsAreOpen(t *testing.T) {
	d, _, _ := open(t, poolRequest)
	ctx, end := d.Begin(t.Context())
	defer end()
	rows, err := d.Query(ctx, "SELECT generate_series(1, 3)")
	must(t, err)
	if err := d.QueryRow(ctx, "SELECT 1").Scan(new(int)); !errors.Is(err, db.ErrInUse) {
		t.Errorf("got %v", err)
	}
	rows.Close()
	one(t, d, ctx)
}

func TestWhatOneCallerOfARequestsLeaseFindsOutdatedDoesNotRunTheOthersStatementAgain(t *testing.T) {
	d, control, _ := open(t, poolRequest)
	run(t, control, "CREATE SEQUENCE runs; GRANT ALL ON runs TO PUBLIC")
	one(t, d, t.Context()) // so that the request's session is not new, and may be outdated
	ctx, end := d.Begin(t.Context())
	defer end()
	one(t, d, ctx)
	ended := make(chan error)
	go func() {
		_, err := d.Exec(ctx, "DO $$ BEGIN PERFORM nextval('runs'), pg_sleep(0.2); RAISE unique_violation; END $$")
		ended <- err
	}()
	dbtest.Eventually(t, "the first statement runs", func() bool {
		return scan[int](t, control, "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'DO %'") == 1
	})
	second := db.ErrInUse
	for errors.Is(second, db.ErrInUse) {
		_, second = d.Exec(ctx, "DO $$ BEGIN RAISE SQLSTATE '57P05'; END $$") // as if the session had been idle for too long
	}
	for _, err := range []error{<-ended, second} {
		if _, ok := errors.AsType[*pgconn.PgError](err); !ok {
			t.Error(err)
		}
	}
	if n := scan[int](t, control, "SELECT last_value FROM runs"); n != 1 {
		t.Errorf("the first statement ran %d times", n)
	}
}

func TestALostConnectionIsReportedAsServerUnavailableAndTheRequestGoesOn(t *testing.T) {
	everyStrategy(t, func(t *testing.T, set func(*config.Database)) {
		d, _, _ := open(t, set)
		ctx, end := d.Begin(t.Context())
		defer end()
		_, err := d.Exec(ctx, "SELECT pg_terminate_backend(pg_backend_pid())")
		if db.CauseOf(err) != db.ServerUnavailable {
			t.Errorf("cause %q of %v", db.CauseOf(err), err)
		}
		one(t, d, ctx)
	})
}

func TestAHolderIsNamedByItsLineOfCode(t *testing.T) {
	everyStrategy(t, func(t *testing.T, set func(*config.Database)) {
		d, _, _ := open(t, set)
		ctx, end := d.Begin(t.Context())
		defer end()
		rows, err := d.Query(ctx, "SELECT 1")
		must(t, err)
		defer rows.Close()
		hs := d.Holders()
		if len(hs) != 1 || !strings.HasPrefix(hs[0].Where, "db_test.go:") {
			t.Errorf("holders: %+v", hs)
		}
	})
}

func TestAPoolTimeoutSpeaksPsycopgsWords(t *testing.T) {
	d, _, _ := open(t, func(c *config.Database) { pool(c); c.Pool.MaxSize, c.Pool.Timeout = 1, time.Second })
	l, err := d.Acquire(t.Context())
	must(t, err)
	defer l.Release()
	_, err = d.Acquire(t.Context())
	if db.CauseOf(err) != db.PoolTimeout || err.Error() != "couldn't get a connection after 1.00 sec" {
		t.Errorf("%q: %v", db.CauseOf(err), err)
	}
	ce, ok := errors.AsType[*db.ConnError](err)
	if !ok || ce.Size != 1 || ce.Leases != 1 || ce.Strategy != "pool" {
		t.Errorf("%+v", ce)
	}
}

func TestAFullQueueRefusesAtOnce(t *testing.T) {
	d, _, _ := open(t, func(c *config.Database) { pool(c); c.Pool.MaxSize, c.Pool.MaxWaiting = 1, 1 })
	l, err := d.Acquire(t.Context())
	must(t, err)
	waited := make(chan error)
	go func() {
		second, err := d.Acquire(context.Background())
		if err == nil {
			second.Release()
		}
		waited <- err
	}()
	dbtest.Eventually(t, "one waits", func() bool { return d.Stat().Waiting == 1 })
	_, err = d.Acquire(t.Context())
	if db.CauseOf(err) != db.QueueFull {
		t.Errorf("%q: %v", db.CauseOf(err), err)
	}
	l.Release()
	if err := <-waited; err != nil {
		t.Error(err)
	}
}

// The bug of source 000, true to its mechanism: a request for each client connection, one after another.
func TestAWorkerThatIsGoneLeavesItsConnectionBehindUnlessItIsReaped(t *testing.T) {
	for name, c := range map[string]struct {
		set  func(*config.Database)
		left int
	}{
		"persistent":         {persistent, 20},
		"persistent, reaped": {func(c *config.Database) { persistent(c); c.Persistent.Reap = true }, 0},
		"persistent, five workers": {func(c *config.Database) {
			persistent(c)
			c.Persistent.Workers = 5
		}, 5},
		"per-request": {perRequest, 0},
		"pool":        {pool, 1},
	} {
		t.Run(name, func(t *testing.T) {
			d, control, cfg := open(t, c.set)
			var hold []*db.Lease
			for range 5 { // five at once first, so that a bounded strategy shows its bound
				if c.left != 5 {
					break
				}
				l, err := d.Acquire(t.Context())
				must(t, err)
				hold = append(hold, l)
			}
			for _, l := range hold {
				l.Release()
			}
			for range 20 {
				client, gone := db.WithWorker(t.Context())
				request, end := d.Begin(client)
				one(t, d, request)
				end()
				gone()
			}
			app := cfg.ApplicationName + "/" + cfg.Strategy
			dbtest.Eventually(t, fmt.Sprintf("%d backends after 20 clients", c.left), func() bool {
				return dbtest.Backends(t, control, app) == c.left
			})
		})
	}
}

func TestAPersistentConnectionPastItsAgeIsReplacedByItsOwnerOnly(t *testing.T) {
	d, control, cfg := open(t, func(c *config.Database) { persistent(c); c.Persistent.ConnMaxAge = time.Millisecond })
	client, gone := db.WithWorker(t.Context())
	defer gone()
	var pids []int
	for range 2 {
		request, end := d.Begin(client)
		var pid int
		must(t, d.QueryRow(request, "SELECT pg_backend_pid() FROM pg_sleep(0.002)").Scan(&pid))
		pids = append(pids, pid)
		end()
	}
	if pids[0] == pids[1] {
		t.Error("the connection outlived its age although its owner served again")
	}
	if n := dbtest.Backends(t, control, cfg.ApplicationName+"/persistent"); n != 0 {
		t.Errorf("%d backends: the owner closes at the end of the request what is past its age", n)
	}
}

func TestASwitchFailsNoRequest(t *testing.T) {
	d, control, cfg := open(t, pool)
	ctx, stop := context.WithCancel(t.Context())
	var done atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				client, gone := db.WithWorker(context.Background())
				request, end := d.Begin(client)
				for range 2 {
					if err := d.QueryRow(request, "SELECT 1").Scan(new(int)); err != nil {
						t.Errorf("a request failed during a switch: %v", err)
						stop()
					}
				}
				end()
				gone()
				done.Add(1)
			}
		})
	}
	for i := range 12 {
		next := cfg
		next.Persistent.Reap = true
		[]func(*config.Database){perRequest, persistent, pool, poolRequest}[i%4](&next)
		before := done.Load()
		must(t, d.Switch(ctx, next))
		dbtest.Eventually(t, "20 requests were served", func() bool { return done.Load() >= before+20 || ctx.Err() != nil })
	}
	stop()
	wg.Wait()
	if err := d.Close(context.Background()); err != nil {
		t.Error(err)
	}
	for _, s := range []string{"per-request", "persistent", "pool"} {
		if n := dbtest.Backends(t, control, cfg.ApplicationName+"/"+s); n != 0 {
			t.Errorf("%d backends of %s are left", n, s)
		}
	}
	if _, err := d.Exec(t.Context(), "SELECT 1"); !errors.Is(err, db.ErrClosed) {
		t.Errorf("a query after Close: %v", err)
	}
}

func TestRequestsThatWaitedAtASwitchShareTheConnectionsThatThereWere(t *testing.T) {
	d, control, cfg := open(t, func(c *config.Database) { pool(c); c.Pool.MaxSize = 4 })
	var held []*db.Lease
	for range 4 {
		l, err := d.Acquire(t.Context())
		must(t, err)
		held = append(held, l)
	}
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() {
			if _, err := d.Exec(t.Context(), "SELECT pg_sleep(0.001)"); err != nil {
				t.Error(err)
			}
		})
	}
	dbtest.Eventually(t, "40 wait", func() bool { return d.Stat().Waiting == 40 })
	next := cfg
	perRequest(&next)
	must(t, d.Switch(t.Context(), next))
	for _, l := range held[1:] {
		l.Release()
	}
	wg.Wait()
	if n := d.Totals()[db.Pool].Connects; n > 10 { // those that ended together with the last ones were closed too early
		t.Errorf("%d connections were made", n)
	}
	dbtest.Eventually(t, "only the held one is left", func() bool { return dbtest.Backends(t, control, cfg.ApplicationName+"/pool") == 1 })
	held[0].Release()
	dbtest.Eventually(t, "none is left", func() bool { return dbtest.Backends(t, control, cfg.ApplicationName+"/pool") == 0 })
}

func TestASwitchFreesTheSlotsThatTheOldStrategyTook(t *testing.T) {
	d, control, cfg := open(t, persistent)
	if _, err := control.Exec(t.Context(), "ALTER DATABASE "+pgx.Identifier{cfg.Name}.Sanitize()+" CONNECTION LIMIT 10"); err != nil {
		t.Fatal(err)
	}
	var err error
	for err == nil {
		client, gone := db.WithWorker(t.Context())
		request, end := d.Begin(client)
		_, err = d.Exec(request, "SELECT 1")
		end()
		gone()
	}
	if db.CauseOf(err) != db.SlotsExhausted {
		t.Fatal(err)
	}
	next := cfg
	pool(&next)
	must(t, d.Switch(t.Context(), next))
	one(t, d, t.Context())
}

func TestARequestUnderWayFinishesOnTheOldStrategy(t *testing.T) {
	d, control, cfg := open(t, persistent)
	request, end := d.Begin(t.Context())
	one(t, d, request)
	next := cfg
	pool(&next)
	must(t, d.Switch(t.Context(), next))
	var app string
	if err := d.QueryRow(request, "SHOW application_name").Scan(&app); err != nil || app != "ddtb/persistent" {
		t.Errorf("application_name %q, %v", app, err)
	}
	end()
	dbtest.Eventually(t, "the old strategy's connection is closed", func() bool {
		return dbtest.Backends(t, control, "ddtb/persistent") == 0
	})
}

func TestARequestGoesOnWithTheStrategyInForceOnceItsOwnIsClosed(t *testing.T) {
	d, _, cfg := open(t, pool)
	request, end := d.Begin(t.Context())
	defer end()
	one(t, d, request)
	persistent(&cfg)
	must(t, d.Switch(t.Context(), cfg))
	dbtest.Eventually(t, "the pool is closed", func() bool {
		var app string
		must(t, d.QueryRow(request, "SHOW application_name").Scan(&app))
		return app == "ddtb/persistent"
	})
}

func TestAQueryThatBeginsAsItsRequestEndsKeepsNothing(t *testing.T) {
	everyStrategy(t, func(t *testing.T, set func(*config.Database)) {
		d, _, _ := open(t, set)
		request, end := d.Begin(t.Context())
		must(t, d.ExecAsItEnds(request, end, "SELECT 1"))
		if s := d.Stat(); s.Leases != 0 {
			t.Errorf("%d leases are out", s.Leases)
		}
	})
}

func TestCloseLeavesNoGoroutine(t *testing.T) {
	for _, set := range strategies {
		cfg := dbtest.Config(t)
		set(&cfg)
		before := goleak.IgnoreCurrent()
		d, err := db.Open(t.Context(), cfg)
		must(t, err)
		client, gone := db.WithWorker(t.Context())
		request, end := d.Begin(client)
		one(t, d, request)
		end()
		gone()
		for range 2 {
			if err := d.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
		goleak.VerifyNone(t, before)
	}
}

func TestASettingMadeByAStoredFunctionDoesNotReachTheNextHolder(t *testing.T) {
	d, control, _ := open(t, func(c *config.Database) { pool(c); c.Pool.MaxSize, c.Reset = 1, db.ResetAlways })
	if _, err := control.Exec(t.Context(), `CREATE FUNCTION remember() RETURNS void LANGUAGE plpgsql AS
		$$ BEGIN PERFORM set_config('app.tenant', 'first', false); END $$`); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Exec(t.Context(), "SELECT remember()"); err != nil {
		t.Fatal(err)
	}
	var tenant string
	must(t, d.QueryRow(t.Context(), "SELECT coalesce(current_setting('app.tenant', true), '')").Scan(&tenant))
	if tenant != "" {
		t.Errorf("the next holder is %q", tenant)
	}
}

func TestCloseTakesBackAlsoTheLeaseThatIsHandedOverMeanwhile(t *testing.T) {
	everyStrategy(t, func(t *testing.T, set func(*config.Database)) {
		d, control, _ := open(t, func(c *config.Database) {
			set(c)
			c.Pool.MaxSize, c.PerRequest.MaxSize, c.Persistent.Workers = 1, 1, 1
		})
		held, err := d.Acquire(t.Context())
		must(t, err)
		var second sync.WaitGroup
		second.Go(func() {
			l, err := d.Acquire(t.Context())
			if err != nil {
				return // refused, because the strategy is closed: also correct
			}
			if _, err := l.Conn().Exec(t.Context(), "SELECT 1"); err == nil {
				t.Error("a lease that came after Close works")
			}
			l.Release()
		})
		dbtest.Eventually(t, "the second waits", func() bool { return d.Stat().Waiting == 1 })
		over, cancel := context.WithCancel(t.Context())
		cancel()
		if err := d.Close(over); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("Close: %v", err)
		}
		second.Wait()
		held.Release()
		if n := d.Stat().Leases; n != 0 {
			t.Errorf("%d leases are out", n)
		}
		if err := d.Switch(t.Context(), d.Config()); !errors.Is(err, db.ErrClosed) {
			t.Errorf("Switch after Close: %v", err)
		}
		dbtest.Eventually(t, "no backend is left", func() bool {
			return dbtest.Backends(t, control, d.Config().ApplicationName+"/"+d.Config().Strategy) == 0
		})
	})
}

func TestTotalsKeepWhatReplacedStrategiesCountToTheEnd(t *testing.T) {
	d, _, cfg := open(t, func(c *config.Database) { pool(c); c.Pool.MinSize = 0 })
	ctx, end := d.Begin(t.Context())
	one(t, d, ctx) // on the first pool
	held, err := d.Acquire(t.Context())
	must(t, err)
	persistent(&cfg)
	must(t, d.Switch(t.Context(), cfg))
	one(t, d, t.Context())
	one(t, d, ctx) // on the first pool still, which is replaced
	if got := d.Totals(); got["pool"].Acquired != 3 || got["persistent"].Acquired != 1 || d.Stat().Acquired != 1 {
		t.Errorf("while it is drained: %+v", got)
	}
	end()
	held.Release()
	pool(&cfg)
	must(t, d.Switch(t.Context(), cfg))
	one(t, d, t.Context())
	must(t, d.Close(t.Context()))
	got := d.Totals()
	if p := got["pool"]; p.Acquired != 4 || p.Connects < 2 || p.Connected != p.Connects || p.Leases != 0 {
		t.Errorf("of two pools: %+v", p)
	}
	if p := got["persistent"]; p.Acquired != 1 || p.Connects != 1 {
		t.Errorf("of persistent: %+v", p)
	}
}

func TestHowTheLastAttemptFailedIsKnownUntilALeaseIsGiven(t *testing.T) {
	everyStrategy(t, func(t *testing.T, set func(*config.Database)) {
		d, control, cfg := open(t, set)
		allow := func(connections int) {
			run(t, control, fmt.Sprintf("ALTER ROLE %s CONNECTION LIMIT %d", pgx.Identifier{cfg.User}.Sanitize(), connections))
		}
		allow(0)
		began := time.Now()
		_, failure := d.Exec(t.Context(), "SELECT 1")
		if at, err := d.Failing(); db.CauseOf(err) != db.SlotsExhausted || !errors.Is(failure, err) || at.Before(began) {
			t.Errorf("after a failure: %v, %v", at, err)
		}
		allow(-1)
		dbtest.Eventually(t, "the next attempt is made", func() bool {
			return d.QueryRow(t.Context(), "SELECT 1").Scan(new(int)) == nil
		})
		if at, err := d.Failing(); err != nil || !at.IsZero() {
			t.Errorf("after a success: %v, %v", at, err)
		}
	})
}

func TestAttemptsUnderWayAndConnectionsClosedForTheirAgeAreCounted(t *testing.T) {
	d, _, cfg := open(t, func(c *config.Database) {
		pool(c)
		c.Pool.MinSize, c.Pool.MaxIdle, c.Pool.HealthCheckPeriod = 0, time.Millisecond, 10*time.Millisecond
	})
	one(t, d, t.Context())
	dbtest.Eventually(t, "an idle connection is closed", func() bool { return d.Stat().IdledOut == 1 })
	cfg.Pool.MaxIdle, cfg.Pool.MaxLifetime = time.Hour, time.Millisecond
	must(t, d.Switch(t.Context(), cfg))
	one(t, d, t.Context())
	dbtest.Eventually(t, "an old connection is closed", func() bool { return d.Stat().AgedOut > 0 }) // several, where a query takes longer than their lifetime to begin
	if s := d.Stat(); s.IdledOut != 0 || s.Connecting != 0 {
		t.Errorf("%+v", s)
	}
	dbtest.Eventually(t, "the pool that was replaced keeps its count", func() bool { return d.Totals()["pool"].IdledOut == 1 })

	hung, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0") // accepts connections, and sends nothing
	must(t, err)
	defer func() { _ = hung.Close() }()
	cfg.Host, cfg.Port, cfg.ConnectTimeout = "127.0.0.1", hung.Addr().(*net.TCPAddr).Port, time.Second
	must(t, d.Switch(t.Context(), cfg))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { _, err := d.Exec(ctx, "SELECT 1"); done <- err }()
	dbtest.Eventually(t, "an attempt is under way", func() bool { return d.Stat().Connecting == 1 })
	cancel()
	if err := <-done; err == nil {
		t.Error("a server that says nothing took a query")
	}
	dbtest.Eventually(t, "the attempt has ended", func() bool { return d.Stat().Connecting == 0 })
}
