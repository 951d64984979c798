// Package db gets a request its connection to PostgreSQL, by a strategy that can be switched while requests go
// on, and tells why there was none.
//
// # The strategies
//
//	                       per-request     persistent      persistent      persistent      pool
//	                                                       reap            workers = N
//	connects               each request    each worker     each worker     up to N times   up to max_size
//	backends at most       requests at     workers that    workers that    N               max_size
//	                       once            ever were       there are
//	who waits              nobody          nobody          nobody          in line, 30 s   in line, timeout;
//	                                                                                       at most a third of it, or
//	                                                                                       they are refused at once
//	holds a connection     the request     for ever        its worker      the worker      the query
//	200 clients in turn,   0 refused       105 refused     0 refused       0 refused       0 refused
//	100 slots              peak 2          peak 96         peak 3          peak 2          peak 2
//	40 clients at once     fails when 40 > free slots                      waits           waits
//	cost of a lease        a new backend   nothing         nothing         nothing         1 µs
//	                       and a login:
//	                       4 ms
//
// The rows of 200 clients are what `make reproduce` prints; the costs are BenchmarkAcquire's, which prints them
// beside bare pgxpool and bare pgx.Connect. A worker is a client's TCP connection, as under a threaded server.
// The peaks count the application's connection that looks at the server as well.
//
// Under "pool" a lease is given back between the queries of a request; with hold = "request", and under all the
// others, the request keeps it to its end. Release gives it back early.
//
// # What it promises
//
//   - A request that never queries takes no connection.
//   - Whatever a strategy bounds, it bounds on the server too: a cancelled query is cancelled there, and the place
//     of a closed connection is free only when its backend is gone, or was silent for a second.
//   - A lease comes back: rows that a request forgot are closed at its end, and whoever holds one for long is told of
//     with the line that asked for it.
//   - The next holder finds no open transaction and no changed session.
//   - A failure to get a connection, or its loss, is a ConnError with one Cause, told by SQLSTATE and error type.
//
// It must not know tables, requests of HTTP, or what a person is told.
package db
