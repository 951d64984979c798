package db

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// Lease is one connection with one holder, until Release. It is for one goroutine at a time.
type Lease struct {
	source  *Source
	request *request // nil: outside of a request
	conn    *pgx.Conn
	owner   any           // what the strategy needs to take the connection back
	opened  int64         // when its session was opened, in ticks, once that has proved outdated
	waited  time.Duration // in the queue
	since   int64         // when it got its place, in ticks

	kept  bool // the request keeps it between its queries
	dirty bool // the holder may have changed the session
	stale bool // the session must not be used again
	final bool // its query is not run again on another session, even if this one is outdated

	state atomic.Int32
	rows  atomic.Pointer[openRows] // the open result
	below *Lease                   // in request.open
	index int32                    // in leases.out
	from  callSite                 // which requested it
	watched
}

// The states of a lease. It goes from acquiring to out. From there it goes straight to released, or through reclaimed
// or overdue if the connection was taken from its holder.
const (
	acquiring int32 = iota
	out
	reclaimed // after reclaim_after, at the end of its request, or because the program ended
	overdue   // a query took longer than query_timeout
	released
)

// ErrReclaimed is the error of a holder that uses a reclaimed lease.
var ErrReclaimed = errors.New("this lease was taken back: it was held for too long, or its request or the program ended")

// ErrQueryTimeout is the error of a query that took longer than query_timeout: the server did not respond even to its
// cancellation, or the statement has no statement_timeout. A change may or may not have been made.
var ErrQueryTimeout = errors.New("the query took longer than query_timeout, and was ended with its connection")

// Attach gives the lease its connection. It is for a Strategy's Acquire; owner is for its Release.
func (l *Lease) Attach(conn *pgx.Conn, owner any) {
	l.conn, l.owner = conn, owner
	l.state.Store(out)
	if l.source.ending.Load() {
		l.Reclaim()
	}
}

// Owner returns the owner that was passed to Attach. It is for a Strategy's Release and Forget, where Conn can't be
// called.
func (l *Lease) Owner() any { return l.owner }

// age returns how long ago it got its place.
func (l *Lease) age() time.Duration { return time.Duration(ticks() - l.since) }

// Conn returns the connection itself, for what a Querier can't do. The caller can change anything in the session, so
// the session is reset at the release. Conn panics after Release, because another holder may have the connection by
// then.
func (l *Lease) Conn() *pgx.Conn {
	if l.state.Load() == released {
		panic("db: Lease.Conn after Release")
	}
	l.dirty = true
	return l.conn
}

// PID returns the process ID of the backend; 0 while connecting.
func (l *Lease) PID() uint32 {
	if l.state.Load() == acquiring || l.conn == nil {
		return 0
	}
	return l.conn.PgConn().PID()
}

// Reusable reports whether the connection may serve another holder. It rolls back an open transaction and resets a changed
// session before. A connection for which it reports false must be closed.
func (l *Lease) Reusable() bool {
	pc := l.conn.PgConn()
	usable := !pc.IsClosed() && !pc.IsBusy() && !l.stale
	usable = usable && l.clean()
	return usable && pc.TxStatus() == 'I'
}

// awaited reports whether a request waits for a lease of the same source.
func (l *Lease) awaited() bool { return l.source.places.waiting() > 0 }

// Release releases the lease. It may be called twice, and after a Reclaim. If the connection is lost, its place is free
// when the server's side has ended too, or after a second. Release does not wait for that.
func (l *Lease) Release() {
	if l.end(out, released, Strategy.Release) {
		return
	}
	if was := l.state.Swap(released); was == reclaimed || was == overdue { // it was taken from its holder, which now releases it
		Disconnect(l.conn) // seize closes the socket, or has closed it: this marks the driver's side
	}
}

// Reclaim takes the lease back from its holder. The running query is cancelled and the connection is closed. When its
// backend has ended, or after a second, the place is free for the next request. The holder gets ErrReclaimed at its
// next query. Reclaim reports whether there was a lease to take back. Rows that the holder reads at that moment may
// have gaps; a Querier does not return them, but Conn does.
func (l *Lease) Reclaim() bool { return l.seize(reclaimed) }

func (l *Lease) seize(state int32) bool {
	return l.end(out, state, func(s Strategy, l *Lease) {
		abort(l.conn) // a goroutine may be using it: only its socket is touched
		s.Forget(l)
	})
}

// end is the one way to end a lease. One of its callers moves the state away from acquiring or out, and reports true.
// That one alone detaches the connection and returns the place.
func (l *Lease) end(from, to int32, detach func(Strategy, *Lease)) bool {
	if !l.state.CompareAndSwap(from, to) {
		return false
	}
	l.source.leaks.ended(l, to)
	if to != released || l.conn == nil || !l.conn.IsClosed() {
		l.takeBack(detach)
		return true
	}
	l.leakCounted.Store(true) // its holder has released it; closing takes up to a second, and is no leak
	go l.takeBack(detach)
	return true
}

// takeBack does the work of end: it detaches the connection, then frees the place.
func (l *Lease) takeBack(detach func(Strategy, *Lease)) {
	s := l.source
	detach(s.strategy, l)
	s.leases.remove(l)
	s.places.release()
}

// takenErr returns why the lease was taken from its holder, or nil.
func (l *Lease) takenErr() error {
	switch l.state.Load() {
	case reclaimed:
		return ErrReclaimed
	case overdue:
		return ErrQueryTimeout
	}
	return nil
}
