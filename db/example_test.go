package db_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"ddtb/db"
	"ddtb/db/dbtest"
	"ddtb/db/logtest"
)

// A program opens the database once. A middleware makes each HTTP request a request of the DB. A handler that gets no
// connection answers 503.
func ExampleOpen() {
	tb := &exampleTB{}
	defer tb.end()
	s := dbtest.Config(tb) // in a program: db.DefaultSettings(), with Host, Name, User and PasswordFile
	s.Pool.MaxSize = 1
	d, err := db.Open(context.Background(), s)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second) // for outstanding leases
		defer cancel()
		_ = d.Close(ctx)
	}()

	product := func(w http.ResponseWriter, r *http.Request) {
		var name string
		err := d.QueryRow(r.Context(), "SELECT 'tea ' || $1::int", 7).Scan(&name)
		if ce, ok := errors.AsType[*db.ConnError](err); ok {
			w.Header().Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(ce.RetryAfter.Seconds())))))
			http.Error(w, ce.Cause.Spec().Sentence(ce), http.StatusServiceUnavailable)
			return
		}
		if err != nil {
			http.Error(w, "This is a bug, or no such product.", http.StatusInternalServerError)
			return
		}
		_, _ = fmt.Fprintln(w, name)
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // the middleware
		ctx, end := d.Begin(r.Context())
		defer end()
		product(w, r.WithContext(ctx))
	})

	get := func(ctx context.Context) {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil))
		fmt.Print(w.Code, " ", w.Body)
	}
	get(context.Background())
	held, err := d.Acquire(context.Background()) // the only connection of the pool
	if err != nil {
		fmt.Println(err)
		return
	}
	defer held.Release()
	short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	get(short)
	// Output:
	// 200 tea 7
	// 503 All database connections of this application (1) were busy for 0.05 seconds.
}

// The strategy per-request connects at a request's first query, and closes at its end.
func Example_perRequest() {
	d, end := exampleDB(func(s *db.Settings) { s.Strategy = db.PerRequest })
	defer end()
	for range 3 {
		ctx, done := d.Begin(context.Background())
		for range 2 {
			if _, err := d.Exec(ctx, "SELECT 1"); err != nil {
				fmt.Println(err)
			}
		}
		done()
	}
	fmt.Println(d.Stat().Connected, "connections for 3 requests;", d.Stat().Open(), "open")
	// Output: 3 connections for 3 requests; 0 open
}

// The strategy persistent lets each worker keep its connection. The connection outlives a worker that leaves, unless
// Reap is set.
func Example_persistent() {
	for _, reap := range []bool{false, true} {
		d, tb, end := exampleWith(func(s *db.Settings) {
			s.Strategy, s.Persistent.Reap = db.Persistent, reap
		}, db.Options{})
		for range 5 {
			worker, leaves := db.WithWorker(context.Background()) // like a client's TCP connection
			ctx, done := d.Begin(worker)
			if _, err := d.Exec(ctx, "SELECT 1"); err != nil {
				fmt.Println(err)
			}
			done()
			leaves()
		}
		if reap {
			dbtest.Eventually(tb, "the connections are closed", func() bool { return d.Stat().Open() == 0 })
		}
		fmt.Printf("reap = %v: %d connections for 0 workers\n", reap, d.Stat().Open())
		end()
	}
	// Output:
	// reap = false: 5 connections for 0 workers
	// reap = true: 0 connections for 0 workers
}

// The strategy pool shares at most MaxSize connections. If none is free, a request waits in a queue.
func Example_pool() {
	d, end := exampleDB(func(s *db.Settings) { s.Strategy, s.Pool.MaxSize = db.Pool, 2 })
	defer end()
	var clients sync.WaitGroup
	for range 40 {
		clients.Go(func() {
			if _, err := d.Exec(context.Background(), "SELECT pg_sleep(0.001)"); err != nil {
				fmt.Println(err)
			}
		})
	}
	clients.Wait()
	fmt.Println(d.Stat().Acquired, "queries; more than two connections:", d.Stat().Connected > 2)
	// Output: 40 queries; more than two connections: false
}

// The strategy multiplex sends declared reads over two shared connections. They need no lease.
func Example_multiplex() {
	d, end := exampleDB(func(s *db.Settings) { s.Strategy = db.Multiplex })
	defer end()
	var readers sync.WaitGroup
	for i := range 500 {
		readers.Go(func() {
			var n int
			if err := d.Read().QueryRow(context.Background(), "SELECT $1::int", i).Scan(&n); err != nil || n != i {
				fmt.Println(n, err)
			}
		})
	}
	readers.Wait()
	s := d.Stat()
	fmt.Println(s.Reads, "reads,", s.Acquired, "leases; more than two connections:", s.Connected > 2)
	// Output: 500 reads, 0 leases; more than two connections: false
}

// A request that waits longer than the timeout, or would have to, gets a ConnError with its cause.
func ExampleConnError() {
	d, end := exampleDB(func(s *db.Settings) {
		s.Pool.MaxSize, s.Pool.MaxWaiting, s.Pool.Timeout = 1, 1, time.Second
	})
	defer end()
	ctx := context.Background()
	held, err := d.Acquire(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer held.Release()

	waits := make(chan error)
	go func() { _, err := d.Exec(ctx, "SELECT 1"); waits <- err }()
	for d.Stat().Waiting == 0 { // until it is in the queue
		<-time.After(time.Millisecond)
	}
	_, err = d.Exec(ctx, "SELECT 1")
	fmt.Printf("%s: %v\n", db.CauseOf(err), err)

	err = <-waits
	if ce, ok := errors.AsType[*db.ConnError](err); ok {
		fmt.Println(ce.Cause, "with", ce.Leases, "of", ce.Size, "leases out")
	}
	// Output:
	// queue full: couldn't get a connection: 1 request is waiting for one already
	// pool timeout with 1 of 1 leases out
}

// After five consecutive attempts that find no server, the circuit opens: the next request fails at once.
func ExampleCause_circuitOpen() {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	s := db.DefaultSettings()
	s.Host, s.Port, s.Name, s.User = "127.0.0.1", listener.Addr().(*net.TCPAddr).Port, "app", "app"
	_ = listener.Close() // no server listens there now
	ctx := context.Background()
	d, err := db.Open(ctx, s)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = d.Close(ctx) }()
	for range 2 {
		_, err := d.Exec(ctx, "SELECT 1")
		fmt.Println(db.CauseOf(err))
	}
	fmt.Println(d.Stat().Connects, "attempts")
	// Output:
	// server unavailable
	// circuit open
	// 5 attempts
}

// Holders names the line of code that has a lease. A lease that is held longer than LeakAfter is logged.
func ExampleDB_Holders() {
	log := &logtest.Log{}
	d, tb, end := exampleWith(func(s *db.Settings) { s.Pool.LeakAfter = 100 * time.Millisecond },
		db.Options{Log: slog.New(slog.NewTextHandler(log, nil))})
	defer end()
	lease, err := d.Acquire(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	file, _, _ := strings.Cut(d.Holders()[0].Where, ":")
	fmt.Println(file, d.Holders()[0].PID == lease.PID())
	dbtest.Eventually(tb, "it is logged", func() bool { return log.Count("a lease is held for long", "example_test.go") == 1 })
	lease.Release()
	fmt.Println(len(d.Holders()), "holders,", d.Stat().Leaked, "leak reported")
	// Output:
	// example_test.go true
	// 0 holders, 1 leak reported
}

// A lease that is held longer than ReclaimAfter is reclaimed, so that another request gets its place.
func ExampleLease_Reclaim() {
	d, end := exampleDB(func(s *db.Settings) { s.Pool.MaxSize, s.Pool.ReclaimAfter = 1, 200*time.Millisecond })
	defer end()
	if _, err := d.Acquire(context.Background()); err != nil { // and forgets it
		fmt.Println(err)
	}
	_, err := d.Exec(context.Background(), "SELECT 1") // waits for the only place
	fmt.Println(err, d.Stat().Reclaimed)
	// Output: <nil> 1
}

// The next holder does not see changes of a session by its previous holder.
func ExampleLease_Reusable() {
	d, end := exampleDB(func(s *db.Settings) { s.Pool.MaxSize = 1 })
	defer end()
	ctx := context.Background()
	if _, err := d.Exec(ctx, "SET statement_timeout = '17s'"); err != nil {
		fmt.Println(err)
	}
	var timeout string
	if err := d.QueryRow(ctx, "SHOW statement_timeout").Scan(&timeout); err != nil {
		fmt.Println(err)
	}
	fmt.Println(timeout, "on", d.Stat().Connected, "connection")
	// Output: 0 on 1 connection
}

// A declared read whose connection is lost is retried. A statement that may change data is not.
func ExampleDB_Read() {
	d, tb, end := exampleWith(func(s *db.Settings) { s.Pool.MaxSize = 1 }, db.Options{})
	defer end()
	control := dbtest.Control(tb, d.Config())
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second) // the limit for retries
	defer cancel()
	_, _ = d.Exec(ctx, "SELECT 1") // there is a connection
	dbtest.KillBackends(tb, control, d.Config().ApplicationName+"/pool")
	var n int
	err := d.Read().QueryRow(ctx, "SELECT 42").Scan(&n)
	fmt.Println(n, err)
	_, err = d.Exec(ctx, "SELECT pg_terminate_backend(pg_backend_pid())") // a write is not retried
	fmt.Println(db.CauseOf(err))
	// Output:
	// 42 <nil>
	// server unavailable
}

// Queries with the context of Begin belong to one request. Its end releases any forgotten lease.
func ExampleDB_Begin() {
	d, end := exampleDB(func(s *db.Settings) { s.Pool.MaxSize = 1 })
	defer end()
	func() {
		ctx, done := d.Begin(context.Background()) // in a middleware
		defer done()
		rows, err := d.Query(ctx, "SELECT generate_series(1, 1000000)")
		if err != nil || !rows.Next() {
			fmt.Println(err)
		}
		fmt.Println(d.Stat().Leases, "lease while the rows are open")
		// It returns early, and forgets to close the rows.
	}()
	fmt.Println(d.Stat().Leases, "leases after the request,", d.Stat().Reclaimed, "taken back")
	// Output:
	// 1 lease while the rows are open
	// 0 leases after the request, 1 taken back
}

// A transaction has one lease. It is rolled back unless the function returns nil.
func ExampleDB_InTx() {
	d, end := exampleDB(func(*db.Settings) {})
	defer end()
	ctx := context.Background()
	if _, err := d.Exec(ctx, "CREATE TABLE votes (n int CHECK (n > 0))"); err != nil {
		fmt.Println(err)
	}
	err := d.InTx(ctx, func(q db.Querier) error {
		if _, err := q.Exec(ctx, "INSERT INTO votes VALUES (1)"); err != nil {
			return err
		}
		_, err := q.Exec(ctx, "INSERT INTO votes VALUES (-1)")
		return err
	})
	var n int
	if err := d.QueryRow(ctx, "SELECT count(*) FROM votes").Scan(&n); err != nil {
		fmt.Println(err)
	}
	pe, ok := errors.AsType[*pgconn.PgError](err)
	fmt.Println(ok && pe.Code == "23514", n, "votes")
	// Output: true 0 votes
}

// printer is a Tracer. One that makes spans for OpenTelemetry has the same methods.
type printer struct{}

func (printer) TraceAcquire(ctx context.Context, strategy string) (context.Context, func(error)) {
	fmt.Println("a lease by", strategy)
	return ctx, func(err error) { fmt.Println("given:", err == nil) }
}

func (printer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, q pgx.TraceQueryStartData) context.Context {
	fmt.Println("query:", q.SQL)
	return ctx
}

func (printer) TraceQueryEnd(_ context.Context, _ *pgx.Conn, q pgx.TraceQueryEndData) {
	fmt.Println("answer:", q.CommandTag)
}

// A Tracer follows each request for a lease, and each query.
func ExampleTracer() {
	d, _, end := exampleWith(func(*db.Settings) {}, db.Options{Tracer: printer{}})
	defer end()
	if _, err := d.Exec(context.Background(), "SELECT 1"); err != nil {
		fmt.Println(err)
	}
	// Output:
	// a lease by pool
	// given: true
	// query: SELECT 1
	// answer: SELECT 1
}

// Switch changes the strategy while requests run. A request that holds a lease finishes on the old one.
func ExampleDB_Switch() {
	d, end := exampleDB(func(s *db.Settings) { s.Strategy = db.PerRequest })
	defer end()
	ctx, done := d.Begin(context.Background())
	show := func(ctx context.Context) {
		var name string
		if err := d.QueryRow(ctx, "SHOW application_name").Scan(&name); err != nil {
			fmt.Println(err)
		}
		fmt.Println(name)
	}
	show(ctx)
	next := d.Config()
	next.Strategy = db.Pool
	if err := d.Switch(context.Background(), next); err != nil {
		fmt.Println(err)
	}
	show(ctx)
	done()
	show(context.Background())
	// Output:
	// ddtb/per-request
	// ddtb/per-request
	// ddtb/pool
}
