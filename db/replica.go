package db

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
)

// How replicas are monitored.
const (
	replicaPoll    = 100 * time.Millisecond // between two polls of a server
	replicaSilence = time.Second            // a server that takes longer to answer counts as down
	replicaWait    = 5 * time.Millisecond   // how long a read waits for its caller's own write
	replicaRush    = 2 * time.Millisecond   // between two polls that readers request
	replicaHistory = 256                    // positions of the primary that are kept
)

// Follow sets the position up to which the caller of this request has seen the database. Its declared reads go to a
// replica that has replayed at least as much, or to the primary.
func (d *DB) Follow(ctx context.Context, p Position) {
	if r, ok := ctx.Value(requestKey{d}).(*request); ok {
		r.seen.Store(uint64(p))
	}
}

// Written returns the position that the caller of this request has to follow from now on, if the request may have
// written. It asks the primary, for at most one second; if that fails, the position is Unknown. Without replicas it
// asks nothing.
func (d *DB) Written(ctx context.Context) (p Position, wrote bool) {
	r, ok := ctx.Value(requestKey{d}).(*request)
	if !ok || !r.wrote.Load() || d.replicas.Load().list == nil {
		return 0, false
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), replicaSilence)
	defer cancel()
	var text string
	if err := d.QueryRow(ctx, "SELECT pg_current_wal_insert_lsn()::text").Scan(&text); err != nil {
		return Unknown, true
	}
	if p, ok = ParsePosition(text); !ok {
		return Unknown, true
	}
	return p, true
}

// ReplicaStat is a snapshot of one replica.
type ReplicaStat struct {
	Host     string
	Serves   bool
	Why      string        // why it does not serve reads; "" if it does
	Lag      time.Duration // behind the primary, by this process's clock
	Replayed Position
	Reads    int64 // reads that it answered
	Failed   int64 // reads that the primary had to answer, because the replica failed or cancelled them
	Behind   int64 // reads that went to the primary, because the replica had not replayed their caller's write
	Stat     Stat  // of its connections
}

// Replicas lists the replicas in the order of the settings. It needs no connection.
func (d *DB) Replicas() []ReplicaStat {
	all := d.replicas.Load()
	list := make([]ReplicaStat, len(all.list))
	for i, r := range all.list {
		now := r.state.Load()
		list[i] = ReplicaStat{
			Host: r.host, Serves: now.why == "", Why: now.why, Lag: now.lag, Replayed: now.replayed,
			Reads: r.reads.Load(), Failed: r.failed.Load(), Behind: r.behind.Load(), Stat: r.Stat(),
		}
	}
	return list
}

// MaxLag returns how far behind the primary a replica that serves reads may be; 0 without replicas. Once a write is
// older than that, its position need not be followed.
func (d *DB) MaxLag() time.Duration { return d.replicas.Load().maxLag }

// replicas are the replicas of a DB, and the recent positions of its primary.
type replicas struct {
	db       *DB
	settings *Settings // nil: there are none
	list     []*replica
	maxLag   time.Duration
	opened   time.Time
	next     atomic.Uint32
	stop     context.CancelFunc
	ended    sync.WaitGroup

	mu      sync.Mutex
	primary identity
	first   Position // of the primary, after opened
	history []sample // of the primary, oldest first
}

// sample is the primary's position at one time.
type sample struct {
	at       time.Time
	position Position
}

// replica is one replica, with connections of its own.
type replica struct {
	*Source
	host                  string
	all                   *replicas
	state                 atomic.Pointer[replicaState]
	rush                  chan struct{} // a reader requests a poll
	reads, failed, behind atomic.Int64
}

// replicaState is the result of the last poll of a replica.
type replicaState struct {
	why      string // why it may not serve reads; "" if it may
	replayed Position
	lag      time.Duration
	next     chan struct{}      // closed when there is a newer state
	up       context.Context    // of the running reads; nil: it has never served
	down     context.CancelFunc // ends them
}

// UseReplica puts the replicas of the settings in force, one for each host; nil: none. A read that runs on one of the
// previous replicas is answered by the primary. UseReplica does nothing if the settings are in force already, or are
// wrong.
func (d *DB) UseReplica(s *Settings) error {
	d.switches.Lock()
	defer d.switches.Unlock()
	old := d.replicas.Load()
	if d.closed.Load() {
		return ErrClosed
	}
	if s == old.settings || s != nil && old.settings != nil && *s == *old.settings {
		return nil
	}
	all := &replicas{db: d, settings: s, opened: time.Now()}
	if s != nil {
		if err := all.open(*s); err != nil {
			all.close(d.lifetime)
			return fmt.Errorf("replica of database %q: %w", s.Name, err)
		}
	}
	d.replicas.Store(all)
	d.draining.Go(func() { old.close(d.lifetime) })
	return nil
}

// Replica returns the settings that UseReplica put in force; nil: none.
func (d *DB) Replica() *Settings { return d.replicas.Load().settings }

// open begins to monitor the replicas.
func (all *replicas) open(s Settings) error {
	if err := atLeast("max_lag", s.MaxLag, replicaPoll); err != nil {
		return err
	}
	all.maxLag = s.MaxLag
	options := all.db.options
	options.Control = nil // it reaches the primary
	for _, one := range eachHost(s) {
		source, err := NewSource(one, options)
		if err != nil {
			return err
		}
		r := &replica{Source: source, host: net.JoinHostPort(one.Host, strconv.Itoa(one.Port)), all: all, rush: make(chan struct{}, 1)}
		r.state.Store(&replicaState{why: whyUnseen, next: make(chan struct{}), down: func() {}})
		all.list = append(all.list, r)
	}
	var ctx context.Context
	ctx, all.stop = context.WithCancel(context.Background())
	all.ended.Go(func() { pollServer(ctx, all.db.Config, primarySQL, nil, all.sawPrimary) })
	for _, r := range all.list {
		all.ended.Go(func() {
			pollServer(ctx, func() Settings { return r.settings }, replicaSQL, r.rush, r.saw)
		})
	}
	return nil
}

// eachHost returns the settings of each single host.
func eachHost(s Settings) (each []Settings) {
	s.TargetSessionAttrs = "any"                         // pollServer finds out the server's role
	s.Pool.Timeout = min(s.Pool.Timeout, replicaSilence) // the primary may have a place sooner
	if s.Hosts == "" {
		return []Settings{s}
	}
	for _, one := range s.Hosts.List() {
		host, port := SplitHost(one)
		single := s
		single.Host, single.Hosts = host, ""
		if n, err := strconv.Atoi(port); err == nil {
			single.Port = n
		}
		if !slices.Contains(each, single) {
			each = append(each, single)
		}
	}
	return each
}

// close stops what open started.
func (all *replicas) close(ctx context.Context) {
	if all.stop != nil {
		all.stop()
	}
	all.ended.Wait()
	var ends sync.WaitGroup
	for _, r := range all.list {
		r.state.Load().down()
		ends.Go(func() { _ = r.Close(ctx) })
	}
	ends.Wait()
}

// sawPrimary records the primary's position. A server that is itself a standby counts as no answer.
func (all *replicas) sawPrimary(got seenServer, err error) {
	if err != nil || got.recovers {
		return
	}
	all.mu.Lock()
	defer all.mu.Unlock()
	if all.primary != got.identity {
		all.primary, all.history = got.identity, nil
	}
	if all.first == 0 {
		all.first = got.position
	}
	now := time.Now()
	if n := len(all.history); n > 0 {
		last := all.history[n-1]
		if got.position == last.position || now.Sub(last.at) < all.maxLag/(replicaHistory/2) {
			return // a later poll records it: a later position at an earlier time would make the lag look too long
		}
	}
	all.history = append(all.history, sample{now, got.position})
	if len(all.history) > replicaHistory {
		all.history = append(all.history[:0], all.history[1:]...)
	}
}

// lagOf returns how long ago, at least, the primary was at the first position that is not replayed.
func (all *replicas) lagOf(replayed Position) time.Duration {
	for _, s := range all.history {
		if s.position > replayed {
			return time.Since(s.at)
		}
	}
	return 0
}

// saw decides whether a replica may serve. If it is no replica any more, or is down, its connections are closed: they are
// dead, or hold slots of a server that has other work now.
func (r *replica) saw(got seenServer, err error) {
	now := r.assess(got, err)
	if now.why == "" || now.lag > r.all.maxLag || r.Stat().Open() == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	r.strategy.Refresh(ctx)
}

// assess derives the replica's state from what was seen, and puts it in force.
func (r *replica) assess(got seenServer, err error) replicaState {
	r.all.mu.Lock()
	defer r.all.mu.Unlock()
	now := replicaState{replayed: got.position}
	switch primary := r.all.primary; {
	case err != nil:
		now.why = "down: " + whyDown(err)
	case primary == identity{}:
		now.why = whyNoPrimary
	case !got.recovers:
		now.why = "it is not a standby: it was promoted, or is another server"
	case got.system != primary.system:
		now.why = "it is not a replica of this primary: its system identifier differs"
	case got.database != primary.database:
		now.why = fmt.Sprintf("its database is %q, and the primary's is %q", got.database, primary.database)
	case got.timeline != primary.timeline:
		now.why = fmt.Sprintf("it is on timeline %d, and the primary on %d; after a failover, GRANT pg_monitor shows a change at once",
			got.timeline, primary.timeline)
	case got.position < r.all.first && time.Since(r.all.opened) < r.all.maxLag: // no cookie has a position before that
		now.why = whyStarting
	default:
		if now.lag = r.all.lagOf(got.position); now.lag > r.all.maxLag {
			now.why = fmt.Sprintf("it is %v behind, and max_lag is %v", now.lag.Round(time.Millisecond), r.all.maxLag)
		}
	}
	r.become(now)
	return now
}

// whyDown is the error message for people. If a privilege is missing, it says which.
func whyDown(err error) string {
	if sqlState(err) == pgerrcode.InsufficientPrivilege {
		return err.Error() + ": GRANT EXECUTE ON FUNCTION pg_control_system(), pg_control_checkpoint() to this role"
	}
	return err.Error()
}

// become puts the state in force. If the replica may no longer serve, its running reads end, and the primary answers them.
func (r *replica) become(now replicaState) {
	old := r.state.Load()
	now.next, now.up, now.down = make(chan struct{}), old.up, old.down
	if now.why == "" && old.why != "" {
		now.up, now.down = context.WithCancel(context.Background())
	}
	r.state.Store(&now)
	close(old.next)
	if now.why != "" {
		now.down()
		if old.why == "" || passing(old.why) && !passing(now.why) {
			r.options.Log.Warn("reads go past this replica", "host", r.host, "why", now.why)
		}
	} else if old.why != "" {
		r.options.Log.Info("reads go to this replica", "host", r.host)
	}
}

// Why a replica does not serve at first.
const (
	whyUnseen    = "not seen yet"
	whyNoPrimary = "the primary was not seen yet, so nothing can be compared"
	whyStarting  = "it has not replayed yet what was written before this process used it"
)

// passing reports whether the reason is one that every replica has at first.
func passing(why string) bool { return why == whyUnseen || why == whyNoPrimary || why == whyStarting }

// has reports whether the replica serves reads and has replayed p.
func (s *replicaState) has(p Position) bool { return s.why == "" && s.replayed >= p }

// mayWrite records that the request may write from now on: its reads need the primary.
func (d *DB) mayWrite(ctx context.Context) {
	if r, ok := ctx.Value(requestKey{d}).(*request); ok {
		r.wrote.Store(true)
	}
}

// choose returns a replica that has replayed the position that the caller has seen. Nil: the primary must serve. For a
// read outside of a request, the caller's position is unknown.
func (all *replicas) choose(ctx context.Context) *replica {
	if len(all.list) == 0 {
		return nil
	}
	r, ok := ctx.Value(requestKey{all.db}).(*request)
	if !ok || r.over.Load() || r.wrote.Load() {
		return nil
	}
	seen := Position(r.seen.Load())
	start := all.next.Add(1)
	var first *replica
	for i := range all.list {
		one := all.list[(start+uint32(i))%uint32(len(all.list))]
		if now := one.state.Load(); now.has(seen) {
			return one
		} else if now.why == "" && first == nil {
			first = one
		}
	}
	if first != nil {
		if first.waitFor(ctx, seen) {
			return first
		}
		first.behind.Add(1)
	}
	return nil
}

// waitFor waits up to replicaWait for the replica to replay the position.
func (r *replica) waitFor(ctx context.Context, p Position) bool {
	if p == Unknown {
		return false
	}
	t := time.NewTimer(replicaWait)
	defer t.Stop()
	for now := r.state.Load(); now.why == ""; now = r.state.Load() {
		if now.has(p) {
			return true
		}
		select {
		case r.rush <- struct{}{}:
		default:
		}
		select {
		case <-now.next:
		case <-t.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
	return false
}

// read runs a declared read on a replica. served is false if the primary must be asked: no replica is suitable, or the
// replica failed for a reason that is not the caller's. The primary's answer then counts. After errLarge it has to be
// streamed.
func (all *replicas) read(ctx context.Context, sql string, args []any, from callSite) (rows pgx.Rows, served bool, err error) {
	r := all.choose(ctx)
	if r == nil {
		return nil, false, nil
	}
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	state := r.state.Load()
	defer context.AfterFunc(state.up, cancel)()
	rows, err = r.read(within, sql, args, from) //nolint:sqlclosecheck // the caller closes them
	switch {
	case err == nil:
		r.reads.Add(1)
		return rows, true, nil
	case errors.Is(err, errLarge):
		return nil, false, err
	case ctx.Err() != nil:
		return nil, true, err
	case sqlState(err) == pgerrcode.QueryCanceled && state.up.Err() == nil: // statement_timeout: the primary's is usually the same
		return nil, true, err
	}
	r.failed.Add(1)
	if cause := CauseOf(err); cause == ServerUnavailable || cause == CircuitOpen {
		r.lost(state, err)
	}
	return nil, false, nil
}

// lost takes the replica out of use until the next successful poll.
func (r *replica) lost(state *replicaState, err error) {
	r.all.mu.Lock()
	defer r.all.mu.Unlock()
	if now := r.state.Load(); now == state && now.why == "" {
		r.become(replicaState{why: "down: " + err.Error(), replayed: now.replayed, lag: now.lag})
	}
}

// read runs the read once, by the replica's own strategy.
func (r *replica) read(ctx context.Context, sql string, args []any, from callSite) (pgx.Rows, error) {
	rows, err := r.readShared(ctx, sql, args) //nolint:sqlclosecheck // the caller closes them
	if rows != nil || !needsLease(err) {
		return rows, err
	}
	l, err := r.acquire(ctx, false, from)
	if err != nil {
		return nil, err
	}
	defer l.done()
	return l.buffer(ctx, sql, args) //nolint:sqlclosecheck // the caller closes them
}

// ReplicaFigures are the figures of a ReplicaStat.
var ReplicaFigures = []Figure[ReplicaStat]{
	{Name: "ddtb_replica_up", Help: "1 if declared reads go to this replica, else 0.", Gauge: func(r *ReplicaStat) float64 {
		if r.Serves {
			return 1
		}
		return 0
	}},
	{Name: "ddtb_replica_lag_seconds", Help: "Seconds the replica is behind the primary.", Gauge: func(r *ReplicaStat) float64 { return r.Lag.Seconds() }},
	{Name: "ddtb_replica_conns", Help: "Connections to the replica, held or not.", Gauge: func(r *ReplicaStat) float64 { return float64(r.Stat.Open()) }},

	{Name: "ddtb_replica_reads_total", Help: "Declared reads that the replica answered.", Counter: func(r *ReplicaStat) *int64 { return &r.Reads }},
	{Name: "ddtb_replica_failed_reads_total", Help: "Declared reads that failed on the replica, and were sent to the primary.", Counter: func(r *ReplicaStat) *int64 { return &r.Failed }},
	{Name: "ddtb_replica_behind_reads_total", Help: "Declared reads that went to the primary because the replica had not replayed their visitor's write.", Counter: func(r *ReplicaStat) *int64 { return &r.Behind }},
}
