package activity

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Order is an order to end one session, or its running query. It holds the conditions that must still be true at that
// moment.
type Order struct {
	Cancel     bool      `json:"cancel"` // the query only
	PID        int32     `json:"pid"`
	Started    time.Time `json:"started"` // of the session: its PID may have been reused
	States     []string  `json:"states"`  // the allowed states; none: any
	Resting    Age       `json:"resting_seconds"`
	Since      time.Time `json:"since,omitzero"` // with States: its state has not changed after this; zero: at any time
	Superusers bool      `json:"superusers"`
}

// Outcome is the result of an Order.
type Outcome string

// The outcomes.
const (
	Closed    Outcome = "closed"         // the session has ended, and its slot is free
	Cancelled Outcome = "cancelled"      // the query was signalled, and has ended if Cancel waited
	StillRuns Outcome = "still running"  // the query was signalled, and still runs after endWait
	Signalled Outcome = "told to end"    // signalled, and still there after endWait, if End waited
	Gone      Outcome = "gone already"   // it ended by itself
	Changed   Outcome = "left: changed"  // no longer in the state in which it was chosen
	Refused   Outcome = "not permitted"  // the role lacks the privilege
	Failed    Outcome = "failed"         // see its error
	Planned   Outcome = "would be ended" // of a dry run
)

// signalSQL checks and signals in one statement, so that no session that has begun to work in between is ended. Only
// the delivery time of the signal itself remains. CASE prevents the function call for a session that does not match.
const signalSQL = `
SELECT fits, CASE WHEN NOT fits THEN false WHEN $1 THEN pg_cancel_backend(pid) ELSE pg_terminate_backend(pid) END
FROM (SELECT a.pid,
        a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()
        AND ($6 OR NOT coalesce(r.rolsuper, false))
        AND (cardinality($4::text[]) = 0
             OR coalesce(a.state, '') = ANY ($4::text[]) AND coalesce(a.state_change, a.backend_start)
                <= least(clock_timestamp() - $5::float8 * interval '1 second', nullif($7::timestamptz, '0001-01-01 00:00+00'))) AS fits
      FROM pg_stat_activity a LEFT JOIN pg_roles r ON r.oid = a.usesysid
      WHERE a.pid = $2 AND a.backend_start = $3) chosen`

// Signal carries out an order, over the kept connection.
func (o *Observer) Signal(ctx context.Context, order Order) (Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	var fits, done bool
	if order.States == nil {
		order.States = []string{}
	}
	err := o.Do(ctx, func(c *pgx.Conn) error {
		return c.QueryRow(ctx, signalSQL, order.Cancel, order.PID, order.Started, order.States,
			order.Resting.Duration().Seconds(), order.Superusers, order.Since).Scan(&fits, &done)
	})
	pe, refused := errors.AsType[*pgconn.PgError](err)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return Gone, nil
	case refused && pe.Code == pgerrcode.InsufficientPrivilege:
		return Refused, nil
	case err != nil:
		return "", fmt.Errorf("end session %d: %w", order.PID, err)
	case !fits:
		return Changed, nil
	case !done:
		return Gone, nil
	case order.Cancel:
		return Cancelled, nil
	}
	return Signalled, nil
}

// Poller polls and ends sessions: an Observer with its own connection, or a Remote with that of a running server.
type Poller interface {
	Snapshot(ctx context.Context) (Snapshot, error)
	Signal(ctx context.Context, order Order) (Outcome, error)
}

// Closing reports sessions that were ended, or would be.
type Closing struct {
	DryRun    bool     `json:"dry_run"`
	Sessions  []Ending `json:"sessions"`
	Unseen    int      `json:"unseen"`     // not chosen: their state can't be seen by this role
	Superuser int      `json:"superusers"` // not chosen: a superuser's
	Listeners int      `json:"listeners"`  // not chosen: idle, and waiting for notifications
	Before    Slots    `json:"slots_before"`
	After     *Slots   `json:"slots_after"` // null for a dry run
}

// Ending is one of these sessions.
type Ending struct {
	Session
	Outcome Outcome `json:"outcome"`
	Error   string  `json:"error,omitempty"`
}

// Count returns how many sessions had that outcome.
func (c Closing) Count(o Outcome) (n int) {
	for _, e := range c.Sessions {
		if e.Outcome == o {
			n++
		}
	}
	return n
}

// Plan chooses sessions of a snapshot, and ends none.
func Plan(s Snapshot, f Filter) Closing {
	c := f.choose(s)
	c.DryRun, c.Before, c.Sessions = true, s.Slots, append([]Ending{}, c.Sessions...) // an empty list in JSON, not null
	return c
}

// endWait is how long signalled sessions may take to free their slots.
const endWait = 5 * time.Second

// End ends the sessions of a plan, each only if the filter still matches it, and waits until their slots are free. The
// report contains the failures; the error is that of the last poll.
func End(ctx context.Context, a Poller, plan Closing, f Filter) (Closing, error) {
	plan.DryRun = false
	for i := range plan.Sessions {
		e := &plan.Sessions[i]
		outcome, err := a.Signal(ctx, Order{
			PID: e.PID, Started: e.Started, States: f.states(), Resting: Age(f.OlderThan), Superusers: f.Superusers,
		})
		e.Outcome = outcome
		if err != nil {
			e.Outcome, e.Error = Failed, err.Error()
		}
	}
	now, err := waitUntil(ctx, a, func(now Snapshot) bool { return stillThere(now, plan.Sessions) == 0 })
	if err != nil {
		return plan, err
	}
	plan.After = &now.Slots
	return plan, nil
}

// Cancel cancels the query that a session ran at the snapshot, and waits until it has ended. A session that waits for
// its client (Client/ClientWrite) does not react: the outcome is StillRuns, and it must be terminated.
func Cancel(ctx context.Context, a Poller, x Session, superusers bool) (Ending, error) {
	e := Ending{Session: x}
	var err error
	e.Outcome, err = a.Signal(ctx, Order{
		Cancel: true, PID: x.PID, Started: x.Started, States: []string{Active}, Since: x.Since(), Superusers: superusers,
	})
	if err != nil || e.Outcome != Cancelled {
		return e, err
	}
	began := time.Now()
	runs := func(now Snapshot) bool {
		return slices.ContainsFunc(now.Sessions, func(s Session) bool {
			same := s.PID == x.PID && s.Started.Equal(x.Started) && s.State == Active
			return same && s.InQuery.Duration() >= time.Since(began) // a later query is younger
		})
	}
	now, err := waitUntil(ctx, a, func(now Snapshot) bool { return !runs(now) })
	if err == nil && runs(now) {
		e.Outcome = StillRuns
	}
	return e, err
}

// waitUntil polls until done returns true, or endWait has passed. It returns the last snapshot.
func waitUntil(ctx context.Context, a Poller, done func(Snapshot) bool) (Snapshot, error) {
	end := time.Now().Add(endWait)
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		now, err := a.Snapshot(ctx)
		if err != nil || done(now) || time.Now().After(end) {
			return now, err
		}
		select {
		case <-ctx.Done():
			return now, ctx.Err()
		case <-time.After(pause):
		}
	}
}

// stillThere marks ended sessions as closed, and counts the others.
func stillThere(now Snapshot, endings []Ending) (left int) {
	for i, e := range endings {
		switch {
		case e.Outcome != Signalled:
		case now.has(e.Session):
			left++
		default:
			endings[i].Outcome = Closed
		}
	}
	return left
}
