package db

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// tickets are the budget's tickets as one Source uses them: see Auto. This file has what its connections do with them, and
// budget.go the polls of the server.
type tickets struct {
	settings Settings
	control  Control
	own      *monitor // whose connection control provides; nil: control is the caller's
	log      *slog.Logger
	places   *places
	shrink   func() // closes connections whose tickets are revoked
	found    func() // is called when a new monitoring connection has found the server

	wake   chan struct{}
	until  context.Context // ends with close
	stop   context.CancelFunc
	loop   sync.WaitGroup
	closes sync.Once

	// Only the loop uses these.
	session        *pgconn.PgConn // of control; it holds the locks
	published      int
	mayBePublished []int // demands, after a failure; nil: only published
	recent         int   // the demand at the previous poll
	measured       time.Time
	others         int // sessions without a ticket, at the last measurement
	usable         int
	failing        time.Time // since when control has failed
	starved        time.Time // since when this process has had no ticket
	logged         time.Time // when this was last logged

	mu              sync.Mutex
	pid             uint32               // of session
	ready           []ticket             // reserved and not yet used
	connecting      []ticket             // of attempts to connect; any attempt may use any of them
	toUnlock        []int                // not needed any more, and still locked by our session: see unlock
	open            map[int]ticketHolder // by ticket
	shared          int                  // how many of those in use or connecting are not for leases
	closeLeased     int                  // how many connections for leases are to be closed
	closeShared     int                  // how many shared connections are to be closed
	orphaned        bool                 // a session has lost its ticket to another one of this pool, and is to be closed
	attemptsWaiting int                  // attempts to connect that wait for a ticket
	sharedWaiting   int                  // how many of them are for shared connections
	more            chan struct{}        // closed when tickets were reserved
	budget          int                  // in force; 0 until the first poll
	free            int
	lastOthers      int // tickets of other processes
	processes       int
	failed          error // why control can't be used
}

// ticket is a lock of the budget that the session of a monitoring connection holds until a new connection takes it over.
type ticket struct {
	n    int       // its number
	pid  uint32    // of the session
	at   time.Time // when it was reserved
	lost bool      // a new session did not find it held by pid
}

// keepBudget lets the number of places follow the tickets of this process, if the settings say so.
func (s *Source) keepBudget() {
	if s.places.size != Auto {
		return
	}
	s.places.size, s.places.tickets = 0, true
	s.conns.tickets = newTickets(s.settings, &s.places, s.options)
	s.conns.tickets.found = s.conns.breaker.circuit.Close
}

func newTickets(s Settings, p *places, o Options) *tickets {
	t := &tickets{
		settings: s, places: p, log: o.Log, control: o.Control,
		wake: make(chan struct{}, 1), open: map[int]ticketHolder{}, more: make(chan struct{}), shrink: func() {}, found: func() {},
	}
	t.until, t.stop = context.WithCancel(context.Background())
	p.onWait = t.rouse
	if t.control == nil {
		t.own = &monitor{name: "monitor", settings: func() Settings { return s }}
		t.control = t.own.do
	}
	return t
}

// sharedAttempt is the context key of an attempt to open a shared connection, which is not for leases. The driver hands
// the context to its hooks.
type sharedAttempt struct{}

// withoutLease returns the context of an attempt to open a shared connection.
func withoutLease(ctx context.Context) context.Context {
	return context.WithValue(ctx, sharedAttempt{}, true)
}

func isShared(ctx context.Context) bool { return ctx.Value(sharedAttempt{}) != nil }

// take gives an attempt to connect one of the reserved tickets, or waits for one. A shared connection gets one only if
// another is left for a lease.
func (t *tickets) take(ctx context.Context) error {
	if t == nil {
		return nil
	}
	shared := isShared(ctx)
	end := time.NewTimer(ticketWait)
	defer end.Stop()
	t.mu.Lock()
	defer t.mu.Unlock()
	for waits := false; ; waits = true {
		if len(t.ready) > 0 && (!shared || t.total()-t.shared-t.closeLeased > 1) {
			t.connecting = append(t.connecting, t.ready[0])
			t.ready = t.ready[1:]
			if shared {
				t.shared++
				t.resize()
			}
			return nil
		}
		if t.failed != nil {
			return t.failed
		}
		if !waits {
			t.countWaiting(shared, 1)
			defer t.countWaiting(shared, -1)
		}
		more, budget := t.more, t.budget
		t.mu.Unlock()
		t.rouse()
		err := t.await(ctx, more, end.C, budget)
		t.mu.Lock()
		if err != nil {
			return err
		}
	}
}

// countWaiting counts n more attempts to connect that wait for a ticket. The lock is held.
func (t *tickets) countWaiting(shared bool, n int) {
	t.attemptsWaiting += n
	if shared {
		t.sharedWaiting += n
		t.resize()
	}
}

func (t *tickets) await(ctx context.Context, more <-chan struct{}, end <-chan time.Time, budget int) error {
	select {
	case <-more:
		return nil
	case <-t.until.Done():
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	case <-end:
		return &ConnError{
			Cause: SlotsExhausted, Strategy: t.settings.Strategy, Err: fmt.Errorf("%w (the budget is %d)", errNoTicket, budget),
		}
	}
}

// holdDuring lets the attempt of cc take its ticket over while the driver still chooses among hosts: one that does not
// keep the budget is not chosen.
func (t *tickets) holdDuring(cc *pgx.ConnConfig) {
	if t == nil {
		return
	}
	suitable, dial, lost := cc.ValidateConnect, cc.DialFunc, map[string]bool{}
	cc.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if lost[addr] { // the driver would log in again, without TLS
			return nil, errLost
		}
		return dial(ctx, network, addr)
	}
	cc.ValidateConnect = func(ctx context.Context, pc *pgconn.PgConn) error {
		if suitable != nil {
			if err := suitable(ctx, pc); err != nil {
				return err
			}
		}
		err := t.hold(ctx, pc)
		if errors.Is(err, errLost) {
			lost[pc.Conn().RemoteAddr().String()] = true
		}
		return err
	}
	cc.AfterConnect = func(ctx context.Context, pc *pgconn.PgConn) error { // a host that is only not preferred was not validated
		if pc.CustomData()[ticketKey] != nil {
			return nil
		}
		ctx, cancel := context.WithTimeout(ctx, cc.ConnectTimeout) // the driver bounds ValidateConnect alone
		defer cancel()
		return t.hold(ctx, pc)
	}
}

// hold takes the ticket over into a new session. The monitoring connection must still hold it: otherwise another
// process may have it, or this is another server that takes writes, and the driver tries the next host.
func (t *tickets) hold(ctx context.Context, pc *pgconn.PgConn) error {
	t.mu.Lock()
	r := t.connecting[0]
	t.connecting = t.connecting[1:]
	t.mu.Unlock()
	err := holdTicket(ctx, pc, r)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		if errors.Is(err, errLost) {
			r.lost = true
			t.rouse()
		}
		t.connecting = append(t.connecting, r) // the caller calls takeBack
		return err
	}
	if old, has := t.open[r.n]; has { // that session has lost its ticket, and this side has not noticed
		t.forget(r.n, old)
		t.orphaned = true
	}
	t.open[r.n] = ticketHolder{pc, isShared(ctx)}
	t.resize()
	t.unlockLater(r)
	pc.CustomData()[ticketKey] = r.n
	return nil
}

func holdTicket(ctx context.Context, pc *pgconn.PgConn, r ticket) error {
	results, err := pc.Exec(ctx, fmt.Sprintf(`SELECT CASE WHEN pg_try_advisory_lock_shared(%d, %d) THEN EXISTS (
		SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = %[1]d AND objid = %[2]d AND objsubid = 2 AND granted AND pid = %[3]d)
		END, pg_backend_pid()`, TicketClass, r.n, r.pid)).ReadAll()
	switch {
	case err != nil:
		return err
	case string(results[0].Rows[0][1]) != strconv.FormatUint(uint64(pc.PID()), 10):
		return &ConnError{Cause: SettingRefused, Err: ErrPooledBudget}
	case string(results[0].Rows[0][0]) != "t":
		return &ConnError{Cause: SlotsExhausted, Err: errLost}
	}
	return nil
}

// takeBack takes back the ticket of an attempt to connect that failed.
func (t *tickets) takeBack(ctx context.Context) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if isShared(ctx) {
		t.shared--
		t.retake()
	}
	if len(t.connecting) > 0 {
		i := max(0, slices.IndexFunc(t.connecting, func(r ticket) bool { return r.lost || r.pid != t.pid })) // it is worth least to the other attempts
		r := t.connecting[i]
		t.connecting = slices.Delete(t.connecting, i, i+1)
		switch {
		case r.pid != t.pid: // that session has ended, and its locks with it
		case r.lost:
			t.unlockLater(r)
		default:
			t.reserved(r.n)
		}
	}
	t.resize()
}

// doubt gives up the reserved tickets, because an attempt to connect found no server: after a failover they are those of
// another. The next poll finds the server in force.
func (t *tickets) doubt() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unlockLater(t.ready...)
	t.ready = nil
	t.resize()
	t.rouse()
}

// closed records the end of a connection. Its ticket is freed when its session ends.
func (t *tickets) closed(conn *pgx.Conn) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if n, has := t.ticketOf(conn); has {
		t.forget(n, t.open[n])
	}
}

// ticketHolder is a session of the pool that holds a ticket.
type ticketHolder struct {
	*pgconn.PgConn
	shared bool // it is not for leases
}

// ticketOf returns the ticket that the connection holds. The lock is held.
func (t *tickets) ticketOf(conn *pgx.Conn) (n int, has bool) {
	n, _ = conn.PgConn().CustomData()[ticketKey].(int)
	return n, t.open[n].PgConn == conn.PgConn()
}

// forget no longer counts the ticket. The lock is held.
func (t *tickets) forget(n int, holder ticketHolder) {
	delete(t.open, n)
	left := t.toClose(holder)
	*left = max(0, *left-1)
	if holder.shared {
		t.shared--
		t.retake()
	}
	t.resize()
}

// toClose is the count of connections to close of the holder's kind. The lock is held.
func (t *tickets) toClose(holder ticketHolder) *int {
	if holder.shared {
		return &t.closeShared
	}
	return &t.closeLeased
}

// revoke takes its ticket from a connection that is released or shared, if another process is to have it, or another session
// of this pool has it. It reports whether the caller must close the connection.
func (t *tickets) revoke(conn *pgx.Conn) bool {
	if t == nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	n, has := t.ticketOf(conn)
	if !has {
		return true
	}
	if *t.toClose(t.open[n]) == 0 && n <= t.budget {
		return false
	}
	t.forget(n, t.open[n])
	return true
}

// shrink closes idle connections for which the budget no longer has a ticket.
func (p *pool) shrink() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	var surplus []*pgxpool.Conn
	for _, c := range p.allIdle(ctx) {
		if p.tickets.revoke(c.Conn()) {
			surplus = append(surplus, c)
			continue
		}
		c.Release()
	}
	p.destroy(ctx, surplus)
}

// ticketKey is the key of a connection's custom data for the ticket with which it was opened, an int.
const ticketKey = "db.ticket"

// errLocks is why a session can't be reset.
var errLocks = errors.New("the session has advisory locks beside its ticket, or no ticket")

// onlyTicket returns an error unless the session's ticket is its only advisory lock.
func onlyTicket(ctx context.Context, conn *pgx.Conn, n int) error {
	var mine, all int
	err := conn.QueryRow(ctx, `SELECT count(*) FILTER (WHERE classid::bigint = $1 AND objid::bigint = $2 AND objsubid = 2), count(*)
		FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()`, pgx.QueryExecModeExec, int64(TicketClass), int64(n)).Scan(&mine, &all)
	if err == nil && (mine != 1 || all != 1) {
		err = errLocks
	}
	return err
}
