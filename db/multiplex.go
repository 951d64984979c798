package db

import (
	"cmp"
	"container/list"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	muxStatements   = 256                    // prepared at a time on each connection
	muxAttempts     = 5                      // of one query, after failures that other queries caused
	muxStuck        = 100 * time.Millisecond // a statement that runs longer has the connection to itself
	muxSlow         = 50 * time.Millisecond  // a statement that runs longer, and longer than most, is slow
	muxSlowRuns     = 20                     // two slow runs within that many runs prove that a statement is slow
	muxMinExclusion = time.Second            // how long a slow statement is unsuitable, doubled each time
	muxMaxExclusion = 10 * time.Minute
	muxRedial       = time.Second // after a failed connect, if another connection serves
	muxCancel       = 2 * time.Second
	muxOutdated     = time.Second // a description younger than this is trusted
	muxAhead        = 4           // a batch is written when at most 1/muxAhead of the statements in flight are at the server
	muxBuffer       = 1 << 20     // bytes: a larger buffer is not kept
	muxHint         = 16 << 10    // bytes: the largest buffer to allocate ahead of a result
)

// errUnsuitable reports that a query needs a connection of its own. Its result is too large (errLarge), its statement
// returns no rows or proved slow, its arguments can't be encoded, every shared connection is busy with a slow statement,
// or none is open and there is no ticket for one. Nothing was changed.
var errUnsuitable = errors.New("multiplex: the statement needs a connection of its own")

// errLarge is errUnsuitable because this result is larger than max_result. Whoever reads it again has to stream it.
var errLarge = fmt.Errorf("%w: its result is larger than max_result", errUnsuitable)

// errStuck is errUnsuitable because slow statements, or a stalled machine, hold up every shared connection, or have just
// made this statement slow.
var errStuck = fmt.Errorf("%w: the shared connections are held up", errUnsuitable)

// errMultiplexClosed reports that the multiplexer no longer takes queries.
var errMultiplexClosed = errors.New("multiplex: closed")

// lostShared returns the error of the callers of a shared connection that was lost before their answers were complete.
func lostShared(cause error) error {
	return &ConnError{Cause: ServerUnavailable, Strategy: Multiplex, Err: cause}
}

var (
	errMoved = &retryError{errors.New("a statement ahead of this one holds up the connection")}
	errStale = &retryError{errors.New("the types of the statement have changed")}
)

// multiplexer sends the reads of any number of callers over a few shared connections. Each read has its own Sync, and
// does not wait for the answers to earlier reads. Connections are made when they are needed.
//
// One lock guards the multiplexer, its connections' queues and its statements. Functions that need it say so; the others
// take it themselves. The code never waits while it holds the lock.
type multiplexer struct {
	settings   MultiplexSettings
	connect    func(context.Context) (*pgx.Conn, error)
	closeConn  func(*pgx.Conn)
	timeout    time.Duration   // of the server, for one statement; 0: none
	lifetime   time.Duration   // of a connection; 0: no limit
	ticketed   bool            // a connection needs a ticket of the budget, for which no read waits: it is unsuitable meanwhile
	dialing    context.Context // ends with close
	stop       context.CancelFunc
	goroutines sync.WaitGroup
	idle       chan struct{} // closed once close was called and every caller has an answer

	mu         sync.Mutex
	conns      []*muxConn // including closing ones, which the server still counts
	dials      int
	dialAfter  time.Time
	waiting    list.List // of *muxCall, for which no connection has room
	waiters    int       // their callers
	offers     map[muxKey]*muxCall
	unanswered int   // calls whose callers have no answer
	joined     int64 // answers that were those to other calls
	statements map[string]*muxStatement
	generation uint64
	stuckAfter time.Duration // see muxStuck
	pooled     bool          // a pooler shares the server's sessions: see func pooled
	pace       time.Duration // the usual duration of a statement
	agedOut    int64         // connections closed at the end of their lifetime
	closing    bool
	closed     bool
}

// newMultiplexer does not connect yet. connect makes one connection; its error goes to the callers unchanged. closeConn
// closes one connection, within its own time limit.
func newMultiplexer(s MultiplexSettings, connect func(context.Context) (*pgx.Conn, error), closeConn func(*pgx.Conn)) *multiplexer {
	m := &multiplexer{
		settings: s, connect: connect, closeConn: closeConn,
		idle: make(chan struct{}), statements: map[string]*muxStatement{}, offers: map[muxKey]*muxCall{},
		stuckAfter: muxStuck,
	}
	m.dialing, m.stop = context.WithCancel(context.Background())
	return m
}

// query runs one read: one statement that returns rows, changes nothing, needs no session and may run twice. The rows
// are complete, in memory. After errUnsuitable, the caller runs the read on a connection of its own. After a ConnError, or
// an error for which retryable is true, the caller may retry it. If ctx ends, query returns at once.
func (m *multiplexer) query(ctx context.Context, sql string, args []any) (pgx.Rows, error) {
	sql, args, err := rewritten(ctx, sql, args)
	if err != nil {
		return nil, err
	}
	alone := false
	for n := 0; n < muxAttempts; n++ {
		var rows *muxRows
		rows, err = m.attempt(ctx, sql, args, alone)
		if err == nil {
			return rows, nil
		}
		again, ok := err.(*retryError) //nolint:errorlint // never wrapped
		if !ok {
			return nil, err
		}
		if again == errAlone {
			alone = true
			n = -1 // the others' attempt is not its own
		}
	}
	if pe, ok := errors.AsType[*pgconn.PgError](err); ok && !unprepared(pe) {
		return nil, pe
	}
	return nil, err
}

// rewritten resolves named arguments. Options of pgx that concern one connection are unsuitable for a shared one.
func rewritten(ctx context.Context, sql string, args []any) (string, []any, error) {
	if len(args) == 0 {
		return sql, args, nil
	}
	switch a := args[0].(type) {
	case pgx.NamedArgs:
		return a.RewriteQuery(ctx, nil, sql, args[1:])
	case pgx.StrictNamedArgs:
		return a.RewriteQuery(ctx, nil, sql, args[1:])
	case pgx.QueryRewriter, pgx.QueryExecMode, pgx.QueryResultFormats, pgx.QueryResultFormatsByOID:
		return sql, args, errUnsuitable
	}
	return sql, args, nil
}

// attempt runs the read once. alone: it shares no answer with other callers.
func (m *multiplexer) attempt(ctx context.Context, sql string, args []any, alone bool) (*muxRows, error) {
	s, fresh, err := m.describe(ctx, sql, alone)
	if err != nil {
		return nil, err
	}
	call := newMuxCall(s, alone)
	call.fresh, call.rows = fresh, &muxRows{fields: s.Fields, codec: muxCodecs.Get().(*muxCodec)}
	if err := call.bind(args); err != nil {
		call.rows.codec.release()
		m.outdated(s)
		return nil, errUnsuitable
	}
	if err := m.do(ctx, call); err != nil {
		call.rows.codec.release()
		return nil, err
	}
	rows := call.rows
	call.release()
	return rows, nil
}

// outdated forgets the description of a statement whose arguments can't be encoded, because its types may have changed.
// The caller's own connection finds out whether the arguments are wrong. Recent descriptions are kept, since wrong
// arguments are the usual cause.
func (m *multiplexer) outdated(s *muxStatement) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if time.Since(s.since) > muxOutdated {
		m.drop(s)
	}
}

// describe returns the statement of sql. At its first use it asks the server for the statement's types.
func (m *multiplexer) describe(ctx context.Context, sql string, alone bool) (s *muxStatement, fresh bool, err error) {
	m.mu.Lock()
	s = m.statement(sql)
	described, err := s.described, s.unsuitable()
	m.mu.Unlock()
	if described || err != nil {
		return s, false, err
	}
	return s, true, m.do(ctx, newMuxCall(s, alone))
}

func (m *multiplexer) do(ctx context.Context, call *muxCall) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	err := m.submit(call)
	m.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case <-call.done:
		return call.err
	case <-ctx.Done():
	}
	m.mu.Lock()
	m.answer(call, m.leave(call, ctx.Err()))
	m.mu.Unlock()
	<-call.done
	return call.err
}

// submit sends the call, or lets it wait for room. The lock is held.
func (m *multiplexer) submit(call *muxCall) error {
	switch {
	case m.closing:
		return errMultiplexClosed
	case call.dropped:
		return errStale
	}
	var c *muxConn
	if m.waiting.Len() == 0 {
		c = m.pick()
	}
	if m.join(call, c) {
		return nil
	}
	if c == nil || c.inFlight() > 0 {
		m.grow()
	}
	if c == nil && m.stuck() {
		return m.whyStuck()
	}
	m.unanswered++
	if c != nil {
		c.send(call)
		return nil
	}
	m.waiters++
	call.queued = time.Now()
	call.place = m.waiting.PushBack(call)
	m.offer(call)
	return nil
}

// answer ends the wait of the call's caller, once. The lock is held.
func (m *multiplexer) answer(call *muxCall, err error) {
	if call.gone {
		return
	}
	call.gone, call.err = true, err
	call.done <- struct{}{}
	m.unanswered--
	if m.closing && m.unanswered == 0 {
		close(m.idle)
	}
}

// pick returns the connection with the fewest statements in flight, or nil if none has room. The lock is
// held.
func (m *multiplexer) pick() (best *muxConn) {
	room := m.settings.MaxInFlight
	if m.pooled {
		room = min(room, 1)
	}
	for _, c := range m.conns {
		if n := c.inFlight(); !c.stuck && !c.mute && !c.retireAged() && n < room && (best == nil || n < best.inFlight()) {
			best = c
		}
	}
	return best
}

// stuck reports whether a slow statement holds up every connection that is available now, or none is and the next needs
// a ticket. The lock is held.
func (m *multiplexer) stuck() bool {
	for _, c := range m.conns {
		if !c.stuck && !c.closed || c.closed && !m.ticketed {
			return false
		}
	}
	return m.ticketed || len(m.conns) > 0 && m.dials == 0 && !m.canGrow()
}

// whyStuck returns errStuck, or errUnsuitable if no connection is open, and the next needs a ticket. The lock is
// held.
func (m *multiplexer) whyStuck() error {
	if slices.ContainsFunc(m.conns, func(c *muxConn) bool { return !c.closed }) {
		return errStuck
	}
	return errUnsuitable
}

// grow makes another connection, if the settings allow one. The lock is held.
func (m *multiplexer) grow() {
	if m.canGrow() {
		m.dials++
		m.goroutines.Go(m.dial)
	}
}

// canGrow reports whether another connection may be made now. The lock is held.
func (m *multiplexer) canGrow() bool {
	room := !m.closed && len(m.conns)+m.dials < m.settings.Connections && (m.dials == 0 || !m.ticketed)
	return room && (len(m.conns) == 0 || m.dialAfter.IsZero() || time.Now().After(m.dialAfter))
}

// dial makes a connection and serves it until it ends.
func (m *multiplexer) dial() {
	conn, shared, err := m.connection()
	m.mu.Lock()
	m.dials--
	if err != nil {
		m.dialAfter = time.Now().Add(muxRedial)
		if len(m.conns) == 0 {
			m.refuse(err) // even if another connect is under way: it would fail alike and be followed by a third
		}
		m.dispatch()
		m.mu.Unlock()
		return
	}
	if m.closed {
		m.mu.Unlock()
		m.closeConn(conn)
		return
	}
	c := newMuxConn(m, conn, shared)
	m.conns = append(m.conns, c)
	m.dispatch()
	m.mu.Unlock()
	c.serve()
}

// connection makes a connection and finds out whether a pooler shares it.
func (m *multiplexer) connection() (conn *pgx.Conn, shared bool, err error) {
	if conn, err = m.connect(m.dialing); err != nil {
		return nil, false, err
	}
	if shared, err = pooled(m.dialing, conn); err != nil {
		m.closeConn(conn)
		return nil, false, lostShared(err)
	}
	return conn, shared, nil
}

// dispatch sends waiting calls, in order, as far as there is room. The lock is held.
func (m *multiplexer) dispatch() {
	for m.waiting.Len() > 0 {
		c := m.pick()
		if c == nil {
			break
		}
		if call := m.unqueue(); call.dropped {
			m.settle(call, errStale)
		} else {
			c.send(call)
		}
	}
	if m.waiting.Len() > 0 {
		if m.stuck() {
			m.refuse(m.whyStuck())
		} else {
			m.grow()
		}
	}
}

// refuse answers every waiting call with err. The lock is held.
func (m *multiplexer) refuse(err error) {
	for m.waiting.Len() > 0 {
		m.settle(m.unqueue(), err)
	}
}

// addStat adds the figures of the shared connections: open, or being opened or closed; and of the statements sent and not
// yet answered, including those whose callers left.
func (m *multiplexer) addStat(s *Stat) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.conns {
		s.InFlight += c.inFlight()
	}
	s.Shared = len(m.conns) + m.dials
	s.AgedOut += m.agedOut
	s.Joined = m.joined
}

// close accepts no more queries, waits for those in flight until ctx ends, and closes the connections. It returns ctx's
// error if queries were aborted. No connection and no goroutine is left after it. It may be called more than once.
func (m *multiplexer) close(ctx context.Context) (err error) {
	m.mu.Lock()
	if !m.closing {
		if m.closing = true; m.unanswered == 0 {
			close(m.idle)
		}
	}
	m.mu.Unlock()
	select {
	case <-m.idle:
	case <-ctx.Done():
		err = ctx.Err()
	}
	m.mu.Lock()
	m.closed = true
	m.refuse(errMultiplexClosed)
	for _, c := range m.conns {
		c.retire(errMultiplexClosed)
	}
	m.mu.Unlock()
	m.stop()
	m.goroutines.Wait()
	return err
}

// refresh replaces the connections that are outdated. Calls under way are retried by their callers.
func (m *multiplexer) refresh(outdated func(*pgx.Conn) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.conns {
		if outdated(c.conn) {
			c.retire(errMoved)
		}
	}
}

// muxStatement is one SQL text with its types, as the server described them. If the types change, a new muxStatement
// replaces it.
type muxStatement struct {
	pgconn.StatementDescription
	named, described bool
	rowless          bool      // it returns no rows, so it isn't a read
	dropped          bool      // no longer in the cache
	changed          bool      // its description is wrong, so its answers can't be read
	since            time.Time // when it was first used
	used             uint64
	size             atomic.Int64  // bytes of a recent result
	slowAt           time.Time     // when a slow run was last recorded
	slowScore        int           // rises by muxSlowRuns with each slow run, falls by 1 with each other
	excludedFor      time.Duration // the length of its last exclusion; 0: none lately
	excludedUntil    time.Time
}

// statement returns the cached statement of sql. A new one replaces the least recently used. The lock is held.
func (m *multiplexer) statement(sql string) *muxStatement {
	m.generation++
	s := m.statements[sql]
	if s == nil {
		if len(m.statements) >= muxStatements {
			byUse := func(a, b *muxStatement) int { return cmp.Compare(a.used, b.used) }
			m.drop(slices.MinFunc(slices.Collect(maps.Values(m.statements)), byUse))
		}
		s = &muxStatement{since: time.Now()}
		s.SQL = strings.Clone(sql)
		m.statements[s.SQL] = s
	}
	s.used = m.generation
	return s
}

// drop removes the statement from the cache and from the connections. The lock is held.
func (m *multiplexer) drop(s *muxStatement) {
	if s.dropped {
		return
	}
	s.dropped = true
	delete(m.statements, s.SQL)
	for _, c := range m.conns {
		c.deallocate(s)
	}
}

// name names the statement before it is sent for the first time. The same name always means the same text, even if an
// undeclared pooler shares the server's session with other clients. The lock is held.
func (m *multiplexer) name(s *muxStatement) {
	if s.named = true; !m.pooled {
		sum := sha256.Sum256([]byte(s.SQL))
		s.Name = fmt.Sprintf("mux_%x_%x", sum[:10], m.generation)
	}
}

// unsuitable returns why the statement needs a connection of its own, or nil. The first exclusion of a statement gives
// errStuck, because the machine may have stalled rather than the statement. The lock is held.
func (s *muxStatement) unsuitable() error {
	excluded := s.excludedFor > 0 && time.Now().Before(s.excludedUntil)
	switch {
	case s.rowless, excluded && s.excludedFor > muxMinExclusion:
		return errUnsuitable
	case excluded:
		return errStuck
	}
	return nil
}

// recordRun records how long the server took. A statement that is slow twice within muxSlowRuns runs is excluded from the
// shared connections for a while. The lock is held.
func (m *multiplexer) recordRun(s *muxStatement, began time.Time, took time.Duration) {
	if took > muxSlow && took > 10*m.pace {
		m.recordSlowRun(s, began)
		return
	}
	m.pace += (took - m.pace) / 64
	if s.slowScore = max(s.slowScore-1, 0); s.slowScore == 0 {
		s.excludedFor = 0
	}
}

// recordSlowRun counts a slow run that began then. Overlapping slow runs count once: the whole machine may have stalled.
// The lock is held.
func (m *multiplexer) recordSlowRun(s *muxStatement, began time.Time) {
	if began.Before(s.slowAt) {
		return
	}
	s.slowAt = time.Now()
	if s.slowScore += muxSlowRuns; s.slowScore <= muxSlowRuns {
		return
	}
	s.slowScore = muxSlowRuns
	s.excludedFor = min(max(2*s.excludedFor, muxMinExclusion), muxMaxExclusion)
	s.excludedUntil = s.slowAt.Add(s.excludedFor)
}

// readmit ends the first exclusion of a statement that was fast on a connection of its own: the machine had stalled, not
// the statement.
func (m *multiplexer) readmit(sql string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.statements[sql]; s != nil && s.excludedFor == muxMinExclusion {
		s.excludedUntil, s.slowScore = time.Time{}, 0
	}
}
