package db

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// Auto is the PoolSettings.MaxSize that leaves the size to the budget: all processes that use the same database share
// Settings.Budget connections.
//
// There are as many tickets as the budget has slots. A ticket is an advisory lock, (TicketClass, 1) to (TicketClass,
// budget). Each connection of the pool holds one in its session, so the ticket is free as soon as the server's process
// has ended, even if the client crashed. No heartbeat, expiry or coordinator is needed. A process reserves the ticket
// before it connects, in the session of its monitoring connection. The new session then takes it over. So no
// more connections than the budget are in use. In three cases the server lists one more for a moment: a backend that ends
// frees its ticket before it leaves the list; a session whose reservation was lost with the monitoring connection is
// refused, and closed, once it has logged in; and a session whose holder has unlocked its ticket is closed, at its release,
// when another one of its process has that. The monitoring connection, one for each process, is additional.
//
// Each process publishes how many connections it needs, as another advisory lock, (DemandClass, need), of its
// monitoring connection. From these demands, every process computes the fair shares in the same way.
//
// Advisory locks belong to one database of the server, and so does a budget. A pooler in transaction mode can't carry
// them.
const Auto = -1

// The classes of the advisory locks.
const (
	TicketClass = 0x64647462 // "ddtb": 1684304994 in pg_locks.classid
	DemandClass = TicketClass + 1
)

// Control runs f on a connection that is kept outside of the strategies, one call at a time. A lost connection is
// replaced by the next call, or in the same call: then f runs again.
type Control func(ctx context.Context, f func(*pgx.Conn) error) error

// How often a process polls the budget: every 250 ms while it needs more than it got, every second while it has
// tickets. With many processes, all of them together poll at most 250 times a second: a poll that sees a thousand
// processes takes the server about 1.5 ms.
const (
	budgetRetry   = 250 * time.Millisecond
	budgetEvery   = time.Second
	budgetIdle    = 5 * time.Second
	budgetPerPeer = 4 * time.Millisecond
	budgetPause   = 2 * time.Millisecond // least time between two polls

	budgetTimeout = 2 * time.Second // of one poll, with the wait for its turn
	budgetTurn    = 2 * time.Second // how long one process keeps a ticket when there are fewer tickets than processes
	budgetDead    = 2 * time.Second // after that time without an answer from the server, waiters fail
	ticketWait    = time.Second     // how long an attempt to connect waits for its ticket
)

var (
	errNoTicket = errors.New("no ticket of the connection budget is free")
	errUnpolled = errors.New("the server that keeps the connection budget can't be reached")
	errLost     = fmt.Errorf("%w: that of this one was lost with the monitoring connection that had reserved it", errNoTicket)
)

// ErrPooledBudget explains why max_size = "auto" does not work through a pooler.
var ErrPooledBudget = errors.New(`max_size = "auto" keeps its tickets in sessions, which a pooler in transaction mode ` +
	`can't carry: set pool.max_size to a number; the pooler's own limit, max_db_connections, is the budget there`)

// start begins to poll: at once if the connection of control exists already, else at the first demand.
func (t *tickets) start(s Strategy) {
	if t == nil {
		return
	}
	if p, ok := s.(interface{ shrink() }); ok {
		t.shrink = p.shrink
	}
	if t.own == nil {
		t.rouse()
	}
	t.loop.Go(t.run)
}

// rouse makes the loop poll now.
func (t *tickets) rouse() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

func (t *tickets) run() {
	timer := time.NewTimer(budgetIdle)
	defer timer.Stop()
	pause := budgetPause
	for {
		select {
		case <-t.until.Done():
			return
		case <-t.wake:
		case <-timer.C:
		}
		select {
		case <-t.until.Done():
			return
		case <-time.After(pause):
		}
		var next time.Duration
		pause, next = t.poll()
		timer.Reset(next)
	}
}

// poll polls the budget once, and acts on the result. It returns the least time until the next poll, and the most.
func (t *tickets) poll() (pause, next time.Duration) {
	ctx, cancel := context.WithTimeout(t.until, budgetTimeout)
	defer cancel()
	demand := t.demand()
	short := false
	err := t.control(ctx, func(c *pgx.Conn) (err error) {
		short, err = t.pollSession(ctx, c, demand)
		return err
	})
	if err != nil {
		t.fails(ctx, err)
		return budgetRetry, budgetRetry
	}
	t.failing = time.Time{}
	t.mu.Lock()
	t.failed = nil
	peers, holds := time.Duration(t.processes)*budgetPerPeer, t.total() > 0
	t.mu.Unlock()
	jitter := func(d time.Duration) time.Duration { return d*3/4 + rand.N(d/2) } //nolint:gosec // a jitter is no secret
	switch {
	case short:
		retry := jitter(max(budgetRetry, peers))
		return retry, retry
	case holds:
		return budgetPause, jitter(max(budgetEvery, peers))
	}
	t.recent = 0
	return budgetPause, jitter(max(budgetIdle, peers))
}

// fails records that the server can't be polled. If that lasts and this process has no ticket, the waiting requests
// fail.
func (t *tickets) fails(ctx context.Context, err error) {
	if errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	if t.failing.IsZero() {
		t.failing = time.Now()
	}
	had, ok := errors.AsType[*ConnError](err)
	if !ok { // the monitoring connection is busy or was lost: the next poll will show which
		return
	}
	ce := &ConnError{Cause: had.Cause, Strategy: t.settings.Strategy, Err: fmt.Errorf("%w: %w", errUnpolled, had.Err)}
	lasts := time.Since(t.failing) > budgetDead || !ce.Cause.Passes()
	t.mu.Lock()
	if lasts {
		t.failed = ce
	}
	none := t.total() == 0
	t.mu.Unlock()
	if lasts && none {
		t.places.fail(ce)
	}
}

// demand returns how many connections are needed: the most at once since the previous poll, or in the interval before
// it.
func (t *tickets) demand() int {
	now := t.places.demand()
	demand := max(now, t.recent)
	t.recent = now
	t.mu.Lock()
	defer t.mu.Unlock()
	if shared := t.shared + t.sharedWaiting; shared > 0 {
		demand = max(1, demand) + shared // see take
	}
	demand = max(demand, t.settings.Pool.MinSize, min(1, t.total()))
	if t.attemptsWaiting > 0 {
		demand = max(demand, t.total()-len(t.ready)+t.attemptsWaiting)
	}
	return demand
}

// total returns the number of tickets of this process. The lock is held.
func (t *tickets) total() int { return len(t.ready) + len(t.connecting) + len(t.open) }

// resize sets the number of leases that the queue allows. A shared connection that waits for a ticket has precedence over
// all leases but one. The lock is held.
func (t *tickets) resize() {
	leases := max(0, t.total()-t.shared-t.closeLeased)
	t.places.resize(leases - min(t.sharedWaiting, max(0, leases-1)))
}

// pollSession polls in the session of the monitoring connection, and reserves or gives up tickets there. It reports whether
// this process needs more tickets than it has.
func (t *tickets) pollSession(ctx context.Context, c *pgx.Conn, demand int) (short bool, err error) {
	if err := t.enter(ctx, c); err != nil {
		return false, err
	}
	if err := t.publish(ctx, c, demand); err != nil {
		return false, err
	}
	if err := t.unlock(ctx, c); err != nil { // what was given up since the last poll is free in this view
		return false, err
	}
	v, taken, err := t.view(ctx, c)
	if err != nil {
		return false, err
	}
	change := v.change()
	got := 0
	if change > 0 {
		if got, err = t.reserve(ctx, c, v.budget, taken, change); err != nil {
			return false, err
		}
	}
	shrink := t.settle(v, change, got)
	err = t.unlock(ctx, c)
	if shrink { // even so: the next poll may not ask for it
		t.shrink()
	}
	if err != nil {
		return false, err
	}
	t.warn(ctx, c, v)
	return v.held+got < demand, nil
}

// giveUp divides n tickets to give up: first reserved ones, then those of connections for leases, then those of shared
// connections. The last ticket is for a lease: one of the first two kinds is kept, and where there is none, a shared one more
// is given up.
func giveUp(n, reserved, leased, shared int) (fromReserved, fromLeased, fromShared int) {
	fromShared = min(shared, max(0, n-(reserved+leased-1)))
	n = max(0, n-fromShared)
	fromReserved = min(n, reserved)
	return fromReserved, n - fromReserved, fromShared
}

// settle records the outcome of a poll. It reports whether connections have to be closed.
func (t *tickets) settle(v budgetView, change, got int) (shrink bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	over := 0
	for n := range t.open {
		if n > v.budget {
			over++
		}
	}
	reserved, leased, shared := giveUp(max(0, -change), len(t.ready), t.total()-t.shared-len(t.ready), t.shared)
	t.closeLeased, t.closeShared = max(over, leased), shared
	kept := len(t.ready) - reserved
	t.unlockLater(t.ready[kept:]...)
	t.ready = t.ready[:kept]
	if t.sharedWaiting > 0 && change <= 0 && kept == 0 && t.total()-t.shared-t.closeLeased > 1 {
		t.closeLeased++ // its ticket is for a shared connection
	}
	t.budget, t.free, t.processes = v.budget, max(0, v.free-got), len(v.demands)
	t.lastOthers = max(0, v.budget-t.free-t.total())
	t.resize()
	shrink, t.orphaned = t.closeLeased > 0 || t.closeShared > 0 || t.orphaned, false
	return shrink
}

// enter detects a new session: the tickets reserved in the previous one are lost.
func (t *tickets) enter(ctx context.Context, c *pgx.Conn) error {
	if t.session == c.PgConn() {
		return nil
	}
	shared, err := throughPooler(ctx, c)
	if err != nil {
		return err
	}
	if shared {
		return &ConnError{Cause: SettingRefused, Strategy: t.settings.Strategy, Err: ErrPooledBudget}
	}
	t.session, t.published, t.mayBePublished, t.measured = c.PgConn(), 0, nil, time.Time{}
	t.found()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pid, t.ready, t.toUnlock = c.PgConn().PID(), nil, nil
	t.resize()
	return nil
}

// publish publishes the demand to the other processes. A process without tickets and demand does not count as a
// process.
func (t *tickets) publish(ctx context.Context, c *pgx.Conn, demand int) error {
	if t.mayBePublished != nil {
		if err := unlockAll(ctx, c, DemandClass, t.mayBePublished); err != nil {
			return err
		}
		t.published, t.mayBePublished = 0, nil
	}
	if demand == t.published {
		return nil
	}
	_, err := c.Exec(ctx, `SELECT CASE WHEN $2 > 0 THEN pg_try_advisory_lock_shared($1::int, $2::int) END,
		CASE WHEN $3 > 0 THEN pg_advisory_unlock_shared($1::int, $3::int) END`, DemandClass, demand, t.published)
	if err != nil {
		t.mayBePublished = []int{t.published, demand}
		return err
	}
	t.published = demand
	return nil
}

// unlock releases the locks on tickets that sessions have taken over, that were given up, or that no request needs. One
// ticket for a lease is kept beside shared connections.
func (t *tickets) unlock(ctx context.Context, c *pgx.Conn) error {
	t.mu.Lock()
	if t.places.waiting() == 0 {
		least := min(1, t.shared)
		for len(t.ready) > 0 && t.total()-t.shared > least && time.Since(t.ready[0].at) > budgetEvery {
			t.unlockLater(t.ready[0])
			t.ready = t.ready[1:]
		}
		t.resize()
	}
	numbers := t.toUnlock
	t.toUnlock = nil
	t.mu.Unlock()
	if len(numbers) == 0 {
		return nil
	}
	err := unlockAll(ctx, c, TicketClass, numbers)
	if err != nil { // the session still holds some, unless it was lost
		t.mu.Lock()
		t.toUnlock = append(t.toUnlock, numbers...)
		t.mu.Unlock()
	}
	return err
}

func unlockAll(ctx context.Context, c *pgx.Conn, class int, numbers []int) error {
	_, err := c.Exec(ctx, `SELECT pg_advisory_unlock_shared($1::int, n) FROM unnest($2::int[]) AS n`, class, numbers)
	return err
}

// unlockLater leaves our locks on these tickets to the next unlock. The lock is held.
func (t *tickets) unlockLater(reserved ...ticket) {
	for _, r := range reserved {
		t.toUnlock = append(t.toUnlock, r.n)
	}
}

const readBudget = `SELECT classid::bigint, objid::bigint, pid, extract(epoch FROM clock_timestamp())::bigint FROM pg_locks
	WHERE locktype = 'advisory' AND objsubid = 2 AND granted AND classid IN ($1::oid, $2::oid)
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`

// view reads the locks. taken are the tickets that any session holds.
func (t *tickets) view(ctx context.Context, c *pgx.Conn) (v budgetView, taken map[int]bool, err error) {
	var class, n, pid, epoch int
	demands, holders, taken := map[int]int{int(t.session.PID()): 0}, map[int]bool{}, map[int]bool{}
	rows, err := c.Query(ctx, readBudget, TicketClass, DemandClass)
	if err != nil {
		return v, nil, err
	}
	if _, err = pgx.ForEachRow(rows, []any{&class, &n, &pid, &epoch}, func() error {
		if class == DemandClass {
			demands[pid] += n
		} else {
			taken[n], holders[pid] = true, true
		}
		return nil
	}); err != nil {
		return v, nil, err
	}
	v.turn = epoch / int(budgetTurn/time.Second)
	for i, pid := range slices.Sorted(maps.Keys(demands)) {
		if v.demands = append(v.demands, demands[pid]); pid == int(t.session.PID()) {
			v.me = i
		}
		delete(holders, pid) // a monitoring connection, which holds a ticket for a moment
	}
	if v.budget, err = t.measure(ctx, c, len(holders)); err != nil {
		return v, nil, err
	}
	v.free = v.budget
	for n := range taken {
		if n >= 1 && n <= v.budget {
			v.free--
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	v.held = t.total()
	return v, taken, nil
}

// BudgetReserve returns how many of the usable slots a default budget leaves free: for the monitoring connections of
// more processes, for migrations and for people.
func BudgetReserve(usable int) int { return max(3, usable/10) }

// DefaultBudget returns the budget where none is set: the usable slots, less the sessions of others, less the reserve.
func DefaultBudget(usable, others int) int { return max(1, usable-others-BudgetReserve(usable)) }

// measure returns the budget. Every 5 seconds it counts the sessions that hold no ticket: those of other applications
// and of people, and the monitoring connections. A session that was present at only one of two measurements, such as a
// login under way, does not count. The kind of another role's session may be hidden.
func (t *tickets) measure(ctx context.Context, c *pgx.Conn, holders int) (int, error) {
	if time.Since(t.measured) > budgetIdle {
		var clients int
		err := c.QueryRow(ctx, `SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
				- coalesce(current_setting('reserved_connections', true), '0')::int,
			(SELECT count(*) FROM pg_stat_activity a WHERE backend_type = 'client backend'
				OR backend_type IS NULL AND datid IS NOT NULL AND usesysid IS NOT NULL
					AND NOT EXISTS (SELECT FROM pg_stat_replication s WHERE s.pid = a.pid))::int`).Scan(&t.usable, &clients)
		if err != nil {
			return 0, err
		}
		before := t.others
		if t.others = max(0, clients-holders); t.measured.IsZero() {
			before = t.others
		}
		t.measured = time.Now()
		t.mu.Lock()
		t.limitTo(min(before, t.others))
		t.mu.Unlock()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.budget, nil
}

// limitTo sets the budget for the given number of other sessions. A configured budget is limited to the slots that are
// left. The lock is held.
func (t *tickets) limitTo(others int) {
	possible := max(1, t.usable-others)
	if t.budget = t.settings.Budget; t.budget == 0 {
		t.budget = DefaultBudget(t.usable, others)
	}
	if t.budget > possible {
		if time.Since(t.logged) > time.Minute {
			t.logged = time.Now()
			t.log.Warn("the budget is larger than the server's slots: set fleet.budget to what there is, or raise max_connections",
				"budget", t.budget, "usable", t.usable, "others", others, "in force", possible)
		}
		t.budget = possible
	}
}

// reserve locks up to n tickets for new connections. Another process may be faster.
func (t *tickets) reserve(ctx context.Context, c *pgx.Conn, budget int, taken map[int]bool, n int) (got int, err error) {
	var free []int
	for i := 1; i <= budget; i++ {
		if !taken[i] {
			free = append(free, i)
		}
	}
	rand.Shuffle(len(free), func(i, j int) { free[i], free[j] = free[j], free[i] }) //nolint:gosec // guessing the order gains nothing
	free = free[:min(n, len(free))]
	// An exclusive lock excludes other processes; a shared lock then lets the new session have the ticket too.
	rows, _ := c.Query(ctx, `SELECT n FROM unnest($2::int[]) AS n WHERE CASE WHEN pg_try_advisory_lock($1::int, n)
		THEN CASE WHEN pg_try_advisory_lock_shared($1::int, n) THEN pg_advisory_unlock($1::int, n) END END`,
		TicketClass, free) // the rows carry the error too
	numbers, err := pgx.CollectRows(rows, pgx.RowTo[int])
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil { // any of them may be locked, unless the session was lost
		t.toUnlock = append(t.toUnlock, free...)
		return 0, err
	}
	for _, n := range numbers {
		t.reserved(n)
	}
	return len(numbers), nil
}

// reserved makes a ticket available that the monitoring session holds. The lock is held.
func (t *tickets) reserved(n int) {
	t.ready = append(t.ready, ticket{n: n, pid: t.pid, at: time.Now()})
	t.retake()
}

// retake lets the attempts to connect that wait look again. The lock is held.
func (t *tickets) retake() {
	close(t.more)
	t.more = make(chan struct{})
}

// warn logs which sessions hold the tickets, when this process has been without one for a while.
func (t *tickets) warn(ctx context.Context, c *pgx.Conn, v budgetView) {
	t.mu.Lock()
	none := t.total() == 0 && v.demands[v.me] > 0
	t.mu.Unlock()
	switch {
	case !none:
		t.starved = time.Time{}
	case t.starved.IsZero():
		t.starved = time.Now()
	case time.Since(t.starved) > budgetDead && time.Since(t.logged) > time.Minute:
		t.logged = time.Now()
		t.log.Warn("this process waits for a ticket of the connection budget, which other sessions hold: raise fleet.budget, run fewer "+
			"processes, or end what holds the tickets and is not a process of this application",
			"budget", v.budget, "processes", len(v.demands), "holders", cmp.Or(t.holders(ctx, c), "unknown"))
	}
}

// holders names the applications that hold tickets, each with its number of tickets.
func (t *tickets) holders(ctx context.Context, c *pgx.Conn) (names string) {
	_ = c.QueryRow(ctx, `SELECT string_agg(name || ': ' || n, ', ' ORDER BY n DESC) FROM (
		SELECT coalesce(nullif(a.application_name, ''), 'unnamed') AS name, count(DISTINCT l.objid) AS n
		FROM pg_locks l JOIN pg_stat_activity a USING (pid)
		WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted AND l.classid = $1::oid AND a.datname = current_database()
		GROUP BY 1 ORDER BY 2 DESC LIMIT 5) AS held`, TicketClass).Scan(&names)
	return names
}

// close stops the polls and releases the reserved tickets. Connections keep their tickets until they are closed.
func (t *tickets) close() {
	if t == nil {
		return
	}
	t.closes.Do(func() {
		t.stop()
		t.loop.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		if t.session != nil {
			_ = t.control(ctx, func(c *pgx.Conn) error {
				if c.PgConn() != t.session {
					return nil
				}
				t.mu.Lock()
				t.unlockLater(t.ready...)
				t.unlockLater(t.connecting...)
				t.ready = nil
				t.mu.Unlock()
				return errors.Join(t.publish(ctx, c, 0), t.unlock(ctx, c))
			})
		}
		if t.own != nil {
			t.own.close()
		}
	})
}

// addStat adds the figures of the last poll.
func (t *tickets) addStat(s *Stat) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s.Budget, s.Tickets, s.TicketsFree, s.TicketsOthers = t.budget, t.total(), t.free, t.lastOthers
}
