// Package db gives a request its connection to PostgreSQL, by a strategy that can be switched while requests go on,
// and says why there was none. It is a folder to copy: it imports pgx and a few libraries, and no other package of the
// project.
//
// # The strategies
//
//	                  per-request       persistent         pool               multiplex
//	connects          each request      each worker        up to max_size     connections, for all reads;
//	                                                                          as pool for the rest
//	backends at most  requests at once  workers ever, or   max_size, or a     connections + max_size,
//	                                    N with workers=N   share of a budget  or a share of a budget
//	who waits         nobody, or        nobody, or         in line, timeout   as pool, but no read does
//	                  timeout           30 s
//	a lease lasts     for the request   for ever; with     for the query      reads need none
//	                                    reap, for its
//	                                    worker
//	200 clients in    0 refused         105 refused        0 refused          0 refused
//	turn, 100 slots   peak 2            peak 96            peak 2             peak 2
//	40 clients at     fails when there  as per-request     waits              waits
//	once              are fewer slots
//	cost of a lease   a new backend     nothing            about 1 µs         no lease for a read
//	                  and a login: 4 ms
//	is not for        many requests     clients that come  –                  slow statements, large
//	                                    and go                                results, session state
//
// The rows of 200 clients are what `make reproduce` prints; BenchmarkAcquire prints the costs beside bare pgxpool and
// bare pgx.Connect, and package app's BenchmarkPolls a whole page beside a bare handler. A worker is a client's TCP
// connection, as under a threaded server. The peaks count the application's monitoring connection as well.
//
// Take pool unless you know better. Take multiplex where most statements are short reads and slots are scarce: 500
// readers need two. Take per-request behind a pooler that expects it, and to see what it costs. Take persistent to see
// Django's mechanism fail, and its two fixes hold.
//
// # How a statement gets its connection
//
// [DB.Query] finds the request of its context ([DB.Begin]), which may keep a lease. Else [Source] takes a place in the
// queue (queue.go), lists the lease with the stack of its caller (leaks.go), and asks the [Strategy] for a connection
// (pool.go and the like), which makes one through the breaker (breaker.go, connect.go) if it has none. The way back is
// the same in reverse: the session is reset if it was changed (reset.go), the strategy keeps or closes the connection,
// and the place goes to the first in line. Lease.Release and Lease.Reclaim are the two ways to end a lease, and the state
// of the lease lets one of them do it, once.
//
// [DB.Read] is for statements that may run twice: read.go.
//
// # What it promises
//
//   - A request that never queries takes no connection.
//   - What a strategy bounds, it bounds on the server too: a cancelled query is cancelled there, and the place of a closed
//     connection is free only when its backend has ended, or was silent for a second. All processes together keep the
//     budget, where they have one.
//   - A lease comes back: rows that a request forgot are closed at its end, and a lease that is held for long is reported
//     with the line that asked for it.
//   - The next holder finds no open transaction and no changed session: see [ResetAuto] for what is not seen.
//   - A failure to get a connection, or its loss, is a [ConnError] with one [Cause], found by SQLSTATE and error type.
//   - A wait is bounded in time. A request that would wait too long, by the measured pace, is refused at once.
//
// # From 4 to 10,000 processes
//
// What runs out of connections is the sum: processes × pool, twice that while a deployment replaces them. With
// [PoolSettings].MaxSize = [Auto] the sum is fixed, and the processes share it. BenchmarkBudget simulates them in virtual
// time, with the function by which the real ones decide. Every 10 seconds each of them needs another number of
// connections, twice the budget in all:
//
//	processes   budget   peak ÷ budget   fair ± 1 after, median   at worst   looks at the server
//	4           40       1.0             1.3 s                    1.8 s      12 a second
//	100         200      1.0             0.9 s                    1.8 s      185 a second
//	1,000       2,000    1.0             5.0 s                    8.8 s      273 a second
//
// TestProcessesThatComeAndGoNeverHaveMoreConnectionsThanTheBudget has 8 real ones. Where the limits lie:
//
//   - The slots. Each process has one connection more, by which it monitors the server: a budget of 40 for 8 processes
//     takes 48 slots. PostgreSQL's own cost grows with its backends; a few hundred are usual.
//   - The tickets. A look at those of 1,000 processes takes the server 1 to 2 ms, so the more processes there are, the less
//     often each looks. Several hundred processes on one server want a pooler instead: PgBouncer carries thousands of
//     clients over a few server connections, and its max_db_connections is the budget. [Auto] is refused there, since a
//     ticket lives in a session.
//   - The reads of one primary. Next come replicas, in other regions too, for reads that can prove by a position in the
//     write-ahead log that they see the reader's own writes.
//   - The writes of one primary, at a few thousand commits a second on usual disks. Beyond that the tables are divided
//     between servers, by an engine that exists, such as Citus.
//
// Limits that a process keeps by itself add up: N processes send N times as many mails and events for one failure. Give
// [Options].Log and the reports of all processes one place that groups them, such as Sentry, and let one process send mail.
//
// A budget belongs to one database, since advisory locks do: processes that use another database of the same server don't
// share it. A process that is killed during a login may leave a backend without a ticket, until the server notices that its
// client is gone, a moment later.
//
// # Take it home
//
// The files of this directory, without tests and subdirectories, build alone. What you don't need can go; a test builds
// these sets:
//
//	without        delete                                            and the lines that name
//	per-request    perrequest.go                                     PerRequest in settings.go
//	persistent     persistent.go, worker.go                          Persistent in settings.go
//	multiplex and  multiplexed.go, multiplex.go, multiplexconn.go,   Multiplex in settings.go,
//	DB.Read        multiplexrows.go, read.go, replica.go             outage and replicas in db.go
//
// pool.go stays: its settings also bound the queue and the leak watch.
//
// The package does not depend on tables, on HTTP, or on what a person is told.
package db
