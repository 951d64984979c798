// Package db gives each request its connection to PostgreSQL. It does so by a strategy that can be switched while
// requests run, and it reports why a request got no connection. The directory can be copied into another project: it
// imports pgx and a few libraries, and no other package of this project.
//
// A slot is one of the server's max_connections. A lease is one connection in the hands of one holder. A place is the
// right to a lease. A ticket is the right to a slot where many processes share a budget.
//
// # The strategies
//
//	                  per-request       persistent         pool               multiplex
//	connects          each request      each worker        up to max_size     connections, for all reads;
//	                                                                          as pool for the rest
//	backends at most  requests at once  workers that ever  max_size, or a     connections + max_size,
//	                                    connected, or N    share of a budget  or a share of a budget
//	                                    with workers=N
//	requests wait     never, or up to   never, or up to    in a queue, up to  as pool, except for reads
//	                  timeout           30 s               timeout
//	a lease lasts     for the request   for the request    for the query, or  as pool; reads
//	                                                       request with hold  need none
//	a connection      for the request   forever; with      up to              up to max_lifetime
//	lasts                               reap, as long as   max_lifetime
//	                                    its worker
//	200 clients in    0 refused         105 refused        0 refused          0 refused
//	turn, 100 slots   peak 2            peak 96            peak 2             peak 2
//	40 clients at     fails when there  as per-request     waits              waits
//	once              are fewer slots
//	500 clients at    61-75 % refused   91-96 % refused    0 refused          0 refused
//	once, 22 slots    23 pages/s        170 pages/s        7,400 pages/s      14,000 pages/s
//	cost of a lease   a new backend     nothing            about 1 µs         no lease for a read
//	                  and a login: 4 ms
//	is not for        many requests     clients that come  –                  slow statements, large
//	                                    and go                                results, session state
//
// `make reproduce` prints the rows of 200 clients. `make bench` prints those of 500 clients, the cost of a lease beside
// bare pgxpool and pgx.Connect, and whole pages beside bare handlers. A worker is a client's TCP connection, as under a
// threaded server. The peaks include the application's monitoring connection.
//
// Use pool by default. Use multiplex where most statements are short reads and slots are scarce: 500 readers need two.
// Where the CPUs are busy, statements seem slow, and some readers get a lease of the pool.
// Use per-request behind a pooler that expects it, or to see what it costs. Use persistent to see Django's mechanism
// fail, and to see its two fixes work.
//
// # Taking it home
//
// Copy the files of this directory, without tests and subdirectories, to a directory of your module, which then needs Go
// 1.26:
//
//	mkdir db && cp ../ddtb/db/*.go db/ && rm db/*_test.go && go mod tidy
//
// `go mod tidy` adds pgx and the few libraries, in their newest versions. This project's go.mod has those with which it is
// tested. A program then has these lines:
//
//	s := db.DefaultSettings() // the strategy pool, with its queue
//	s.Host, s.Name, s.User, s.PasswordFile = "127.0.0.1", "shop", "shop", "/run/secrets/shop"
//	s.ApplicationName = "shop" // in pg_stat_activity: shop/pool
//	s.Pool.MaxSize, s.Pool.Timeout = 5, 2*time.Second
//	d, err := db.OpenWith(s, db.Options{Log: slog.Default()})
//	...
//	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second) // for outstanding leases
//	defer cancel()
//	err = d.Close(ctx)
//
// In a middleware, each HTTP request becomes a request of the DB. Its handlers query with r.Context():
//
//	ctx, end := d.Begin(r.Context())
//	defer end() // nothing that the handler forgot stays open
//	next.ServeHTTP(w, r.WithContext(ctx))
//
// A read that changes nothing and may run twice goes through [DB.Read]. A handler that gets no connection answers 503.
// [ConnError] has the cause, with a sentence for visitors, and RetryAfter if it is known:
//
//	err := d.Read().QueryRow(r.Context(), "SELECT name FROM products WHERE id = $1", id).Scan(&name)
//	if err != nil && errors.Is(r.Context().Err(), context.Canceled) { // the client has gone
//		return
//	}
//	if ce, ok := errors.AsType[*db.ConnError](err); ok {
//		w.Header().Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(ce.RetryAfter.Seconds())))))
//		http.Error(w, ce.Cause.Spec().Sentence(ce), http.StatusServiceUnavailable)
//		return
//	}
//	if err != nil { // pgx.ErrNoRows is a 404, and the rest is a bug
//		...
//	}
//
// You can leave out what you don't need. Delete the files of the part. Then delete each line of which the compiler complains,
// with the block or the case that the line begins, until there is none. Then run gofmt and `go mod tidy`. A test does just
// that, for each part and for all of them together:
//
//	part               files                                              other lines
//	per-request        perrequest.go                                      2
//	persistent         persistent.go, persistentsettings.go, worker.go    2
//	multiplex, Read    multiplexed.go, multiplex.go, multiplexconn.go,    11
//	                   multiplexjoin.go, multiplexrows.go, read.go,
//	                   replica.go, serverpoll.go, position.go, hosts.go
//	queue and budget   queue.go, budget.go, tickets.go                    68
//	budget alone       budget.go, tickets.go                              55
//	circuit breaker    breaker.go                                         15
//	leak detection     leaks.go                                           21
//	session reset      reset.go                                           9
//	tracing            trace.go                                           6
//
// What is left does this:
//
//   - Without the queue, a request that finds no free place is refused at once.
//   - Without the circuit breaker, each request tries to connect by itself while the server is away, and keeps its place
//     meanwhile. Others are refused or time out, and not every read survives a restart.
//   - Without the leak detection, leases have no query_timeout. After a Switch, the replaced pool keeps the connections that it
//     kept for waiting requests until its last lease has ended.
//   - Without the session reset, a connection with an open transaction is closed, and a changed session goes to the next
//     holder.
//   - Settings and Options of a part that is gone do nothing. Options.OnAcquire is never called without tracing.
//
// Without all of these parts, a pool with half of the lines is left. Nearly half of those are what every strategy needs:
// libpq's settings, the causes of failures, rows that release their lease. What stays names a part in lines of their own, some
// of which would otherwise be one line with the next.
//
// # How a statement gets its connection
//
// There are four frames between [DB.Query] and the driver's own Acquire:
//
//	DB.Query              db.go         one query; InTx and Exec go the same way
//	 DB.onLease           db.go         runs it, and again if the session proved outdated
//	  DB.lease            request.go    the request's lease (DB.Begin), if it keeps one; else a new one
//	   Source.acquire     source.go     a place (places.go, queue.go); listed with its caller's stack (leases.go)
//	    Strategy.Acquire  pool.go, …    a kept connection, or a new one through the breaker (connect.go, breaker.go)
//
// The way back begins in Lease.done: the query has ended, and its request does not keep the lease.
//
//	Lease.done            request.go    or Lease.Release, or Lease.Reclaim
//	 Lease.end            lease.go      one of them ends the lease, and only once
//	  Strategy.Release    pool.go, …    resets a changed session (reset.go), then keeps or closes the connection
//	  places.release      places.go     the place goes to the first waiter (queue.go)
//
// [DB.Read] is for statements that may run twice: read.go.
//
// # What it promises
//
//   - A request that never queries takes no connection.
//   - A strategy's bounds hold on the server too. A cancelled query is cancelled there. The place of a closed connection
//     is free only when its backend has ended, or has not answered for a second. Where there is a budget, all processes
//     together stay within it.
//   - Every lease is released. Rows that a request left open are closed when the request ends. A lease that is held for
//     long is reported with the line that acquired it.
//   - The next holder finds no open transaction and no changed session. [ResetAuto] lists what it does not detect.
//   - A failure to get a connection, or its loss, is a [ConnError] with one [Cause], found by SQLSTATE and error type.
//   - Every wait is bounded: for a lease by the strategy's timeout, for an answer by QueryTimeout. A request that would
//     probably wait for more than a third of the timeout is refused at once: a page of several queries waits several times.
//     The pace is measured while requests wait, so the first of a burst may wait for their whole timeout.
//
// # From 4 to 10,000 processes
//
// The server's slots must hold the sum: processes × pool, and twice that while a deployment replaces them. With
// [PoolSettings].MaxSize = [Auto] the sum is fixed, and the processes share it. BenchmarkBudget simulates them in virtual
// time, with the function by which real processes decide. Every 10 seconds the demand of each process changes; the
// demands add up to twice the budget:
//
//	processes   budget   peak ÷ budget   fair ± 1 after, median   at worst   polls of the server
//	4           40       1.0             1.3 s                    1.8 s      12 a second
//	100         200      1.0             0.9 s                    1.8 s      185 a second
//	1,000       2,000    1.0             5.0 s                    8.8 s      273 a second
//
// TestProcessesThatComeAndGoNeverHaveMoreConnectionsThanTheBudget runs 8 real processes. The limits are:
//
//   - The slots. Each process has one more connection, by which it monitors the server: a budget of 40 for 8 processes
//     takes 48 slots. PostgreSQL's own cost grows with its backends; a few hundred are usual.
//   - The tickets. A poll that sees 1,000 processes takes the server 1 to 2 ms, so with more processes each polls less
//     often. For several hundred processes on one server, use a pooler instead. PgBouncer serves thousands of clients over
//     a few server connections, and its max_db_connections is the budget. [Auto] is refused there, since a ticket lives in
//     a session.
//   - The reads of one primary. The next step is replicas, also in other regions. They serve reads whose position in the
//     write-ahead log proves that they see the reader's own writes.
//   - The writes of one primary: a few thousand commits a second on usual disks. Beyond that, divide the tables between
//     servers with an existing engine, such as Citus.
//
// Per-process limits add up: N processes send N times as many mails and events for one failure. Send [Options].Log and
// the reports of all processes to one place that groups them, such as Sentry, and let one process send mail.
//
// A budget belongs to one database, as advisory locks do. Processes that use another database of the same server don't
// share it. A process that is killed during a login may leave a backend without a ticket until the server notices, a
// moment later, that its client is gone.
//
// The package does not depend on tables, on HTTP, or on messages to people.
package db
