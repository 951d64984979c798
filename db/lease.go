package db

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// Lease is one connection in the hands of one holder, until Release. It is for one goroutine at a time.
type Lease struct {
	queue  *queue
	index  int // in queue.held; -1: not in it
	since  time.Time
	waited time.Duration
	pcs    [16]uintptr // who asked; resolved only when someone looks

	conn  *pgx.Conn
	slot  any  // what the lender needs to take the connection back
	dirty bool // the session was changed, and must be reset before another holder gets it

	pid  atomic.Uint32
	late atomic.Bool // it was told that the lease is out for long

	mu        sync.Mutex
	lender    lender // nil: nothing is lent yet, or not any more
	reclaimed bool
}

// lender is a strategy, as its leases see it.
type lender interface {
	giveBack(*Lease) // keeps the connection, or closes it
	detach(*Lease)   // forgets the connection, which is cut elsewhere
}

// Holder is who has a lease: since when, from which line, and which backend serves it.
type Holder struct {
	Since    time.Time
	Where    string // "store.go:42 polls.(*Store).Latest": the first line outside this package, or "unknown"
	Stack    []string
	PID      uint32 // of the backend; 0 while connecting
	Strategy string
}

func newLease(q *queue) *Lease {
	l := &Lease{queue: q, index: -1}
	runtime.Callers(4, l.pcs[:]) // 4: whoever called Acquire
	return l
}

// lend fills the lease.
func (l *Lease) lend(from lender, conn *pgx.Conn, slot any) *Lease {
	l.mu.Lock()
	l.lender, l.conn, l.slot = from, conn, slot
	l.pid.Store(conn.PgConn().PID())
	l.mu.Unlock()
	if l.queue.cut.Load() {
		l.Reclaim()
	}
	return l
}

// Conn is the connection itself, for what a Querier can't do. Since it can do anything to the session, the
// session is reset when the lease comes back.
func (l *Lease) Conn() *pgx.Conn {
	l.dirty = true
	return l.conn
}

// PID is that of the backend which serves the lease.
func (l *Lease) PID() uint32 { return l.pid.Load() }

// Release gives the connection back. It may be called twice; the lease must not be used after the first. Where the
// connection is lost, its place is free when the server's side is gone too, or after a second, and Release does not
// wait for that.
func (l *Lease) Release() {
	l.mu.Lock()
	from, reclaimed := l.lender, l.reclaimed
	l.lender, l.reclaimed = nil, false
	l.mu.Unlock()
	if from != nil && l.late.Load() {
		l.queue.watch.cameBack(l)
	}
	switch {
	case from != nil && l.conn.IsClosed():
		from.detach(l)
		l.late.Store(true) // it is no leak while it waits for the server
		go func() {        // the server may be silent: its end is not waited for by the holder, but by whoever wants the place
			hangUp(l.conn)
			l.queue.leave(l)
		}()
	case from != nil:
		from.giveBack(l)
		l.queue.leave(l)
	case reclaimed:
		hangUp(l.conn) // the socket is gone already: this tells the driver
	}
}

// Reclaim takes the lease back from its holder: the query under way is cancelled, the connection is cut, and
// when its backend is gone, or after a second, the place is free for the next. The holder finds ErrReclaimed at its
// next query. It tells whether there was something to take back. The holder may be in the middle of a query in another
// goroutine, so nothing of the connection is touched but its socket; what it reads from then on has gaps, which a Querier
// does not show, but Conn does.
func (l *Lease) Reclaim() bool {
	l.mu.Lock()
	from := l.lender
	if from == nil {
		l.mu.Unlock()
		return false
	}
	l.lender, l.reclaimed = nil, true
	l.mu.Unlock()
	cutOff(l.conn)
	from.detach(l)
	l.queue.leave(l)
	return true
}

func (l *Lease) wasReclaimed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reclaimed
}

// reuse makes the connection fit for another holder: the transaction is rolled back and the session reset. It
// tells whether that worked; a connection with which it did not must be closed.
func (l *Lease) reuse() bool {
	pc := l.conn.PgConn()
	if pc.IsClosed() || pc.IsBusy() {
		return false
	}
	if pc.TxStatus() == 'I' && !l.dirty {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), resetTimeout)
	defer cancel()
	return reset(ctx, l.conn) == nil
}

// resetTimeout bounds the two or three round trips of a reset, so that a dead network holds nobody up.
const resetTimeout = 2 * time.Second

func reset(ctx context.Context, conn *pgx.Conn) error {
	if conn.PgConn().TxStatus() != 'I' {
		if _, err := conn.Exec(ctx, "ROLLBACK"); err != nil {
			return err
		}
	}
	// DISCARD ALL drops prepared statements as well: the client's list of them must go first.
	if err := conn.DeallocateAll(ctx); err != nil {
		return err
	}
	_, err := conn.Exec(ctx, "DISCARD ALL", pgx.QueryExecModeSimpleProtocol)
	return err
}

// holder describes the lease. The queue's lock is held.
func (l *Lease) holder() Holder {
	h := Holder{Since: l.since, Strategy: l.queue.strategy, PID: l.pid.Load(), Stack: l.stack()}
	h.Where = h.Stack[0]
	return h
}

// stack is the lines that asked for the lease.
func (l *Lease) stack() []string { return stackOf(l.pcs[:]) }

// stackOf names lines, innermost first, without this package's own and the runtime's; there is always one.
func stackOf(pcs []uintptr) []string {
	var lines []string
	frames := runtime.CallersFrames(pcs)
	for {
		f, more := frames.Next()
		if f.Function != "" && !ownFrame(f) {
			lines = append(lines, fmt.Sprintf("%s:%d %s", base(f.File), f.Line, base(f.Function)))
		}
		if !more && len(lines) == 0 {
			return []string{"unknown"}
		}
		if !more {
			return lines
		}
	}
}

func ownFrame(f runtime.Frame) bool {
	return strings.HasPrefix(f.Function, "runtime.") ||
		strings.HasPrefix(f.Function, "ddtb/db.") && !strings.HasSuffix(f.File, "_test.go")
}

func base(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }
