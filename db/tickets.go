package db

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// The tickets of a budget, as the connections of this process use them: see Auto.

// sharedAttempt is the context key of an attempt to open a shared connection, which is not for leases. The driver hands
// the context to its hooks.
type sharedAttempt struct{}

func isShared(ctx context.Context) bool { return ctx.Value(sharedAttempt{}) != nil }

// take gives an attempt to connect one of the reserved tickets, or waits for one. A shared connection gets one only if
// another is left for a lease.
func (t *tickets) take(ctx context.Context) error {
	shared := isShared(ctx)
	end := time.NewTimer(ticketWait)
	defer end.Stop()
	t.mu.Lock()
	defer t.mu.Unlock()
	for waits := false; ; waits = true {
		if len(t.ready) > 0 && (!shared || t.total()-t.shared-t.excess > 1) {
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
			t.waits(shared, 1)
			defer t.waits(shared, -1)
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

// waits counts the attempts to connect that wait for a ticket. The lock is held.
func (t *tickets) waits(shared bool, n int) {
	t.short += n
	if shared {
		t.wanted += n
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
		t.connecting = append(t.connecting, r) // the caller calls gaveUp
		return err
	}
	t.open[r.n] = true
	t.unlockLater(r)
	pc.CustomData()[ticketKey] = r.n
	if isShared(ctx) {
		pc.CustomData()[sharedKey] = true
	}
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

// gaveUp takes back the ticket of an attempt to connect that failed.
func (t *tickets) gaveUp(ctx context.Context) {
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
		r := t.connecting[0]
		t.connecting = t.connecting[1:]
		switch {
		case r.pid != t.pid:
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
	t.drop(conn)
}

// drop is closed, with the lock held.
func (t *tickets) drop(conn *pgx.Conn) {
	data := conn.PgConn().CustomData()
	n, has := data[ticketKey].(int)
	if !has {
		return
	}
	delete(data, ticketKey)
	delete(t.open, n)
	left := t.leftOver(data)
	*left = max(0, *left-1)
	if left == &t.surplus {
		t.shared--
		t.retake()
	}
	t.resize()
}

// leftOver is how many connections to close of the kind that has this custom data. The lock is held.
func (t *tickets) leftOver(data map[string]any) *int {
	if data[sharedKey] != nil {
		return &t.surplus
	}
	return &t.excess
}

// unwanted reports whether a connection must be closed, once it is released or if it is shared, so that another process
// can have its ticket. If so, the ticket no longer counts.
func (t *tickets) unwanted(conn *pgx.Conn) bool {
	if t == nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	data := conn.PgConn().CustomData()
	n, has := data[ticketKey].(int)
	if !has || *t.leftOver(data) == 0 && n <= t.budget {
		return false
	}
	t.drop(conn)
	return true
}

// Keys of a connection's custom data.
const (
	ticketKey = "db.ticket" // int
	sharedKey = "db.shared" // bool: the connection is not for leases
)
