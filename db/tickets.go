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

// take gives an attempt to connect one of the reserved tickets, or waits for one.
func (t *tickets) take(ctx context.Context, within time.Duration, shared bool) error {
	end := time.NewTimer(within)
	defer end.Stop()
	for {
		t.mu.Lock()
		if len(t.ready) > 0 {
			t.connecting = append(t.connecting, t.ready[0])
			t.ready = t.ready[1:]
			if shared {
				t.shared++
				t.resize()
			}
			t.mu.Unlock()
			return nil
		}
		more, failed, budget := t.more, t.failed, t.budget
		if failed == nil {
			t.short++
		}
		t.mu.Unlock()
		if failed != nil {
			return failed
		}
		t.rouse()
		err := t.await(ctx, more, end.C, budget)
		t.mu.Lock()
		t.short--
		t.mu.Unlock()
		if err != nil {
			return err
		}
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
// process may have it.
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
			r.pid = 0
			t.rouse()
		}
		t.connecting = append(t.connecting, r) // the caller calls gaveUp
		return err
	}
	t.open[r.n] = true
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

// gaveUp takes back the ticket of an attempt to connect that failed.
func (t *tickets) gaveUp() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.connecting) == 0 {
		return
	}
	r := t.connecting[0]
	t.connecting = t.connecting[1:]
	if r.pid == t.pid && r.pid != 0 {
		t.reserved(r.n)
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

// unshare corrects the count after an attempt to open a shared connection failed.
func (t *tickets) unshare() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.shared--
	t.resize()
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
	if data[sharedKey] != nil {
		t.shared--
	} else if t.excess > 0 {
		t.excess--
	}
	t.resize()
}

// unwanted reports whether a released connection must be closed so that another process can have its ticket. If so, the
// ticket no longer counts.
func (t *tickets) unwanted(conn *pgx.Conn) bool {
	if t == nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	n, has := conn.PgConn().CustomData()[ticketKey].(int)
	if !has || t.excess == 0 && n <= t.budget {
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
