package db

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// muxConn is one shared connection. Calls append their messages to out. One goroutine writes everything that has
// accumulated at once; another reads the answers in the order of the queue. The driver only connects and closes.
type muxConn struct {
	m     *multiplexer
	conn  *pgx.Conn
	front *pgproto3.Frontend
	wake  chan struct{} // wakes the writer; closed at the end
	wrote chan struct{} // closed by the writer at its end
	tag   string        // the reader's last command tag: most are the same

	// Guarded by m.mu:
	out, spare []byte
	unsent     int  // calls whose messages are in out
	writing    bool // the writer is awake
	queue      []*muxCall
	head       int                      // of queue
	prepared   map[*muxStatement]uint64 // by which Parse message each statement was prepared
	parses     uint64
	since      time.Time // when the server began to run the head
	timer      *time.Timer
	armed      bool
	until      time.Time // the end of its lifetime; zero: none
	stuck      bool      // the head has run longer than m.stuckAfter: nothing more is sent
	mute       bool      // the writer has ended: nothing more is sent
	closed     bool      // nothing more is sent or answered
	cause      error
}

var syncMessage, _ = (&pgproto3.Sync{}).Encode(nil)

// newMuxConn takes a connection over. pooled means that a pooler owns its session.
func newMuxConn(m *multiplexer, conn *pgx.Conn, pooled bool) *muxConn {
	c := &muxConn{
		m: m, conn: conn, front: conn.PgConn().Frontend(), prepared: map[*muxStatement]uint64{},
		wake: make(chan struct{}, 1), wrote: make(chan struct{}),
	}
	c.front.SetMaxBodyLen(int(m.settings.MaxResult) + 1<<16)
	m.pooled = m.pooled || pooled
	wait := time.Hour
	if m.lifetime > 0 {
		wait = m.lifetime + rand.N(m.lifetime/10+1) //nolint:gosec // guessing it gains nothing
		c.until = time.Now().Add(wait)
	}
	c.timer = time.AfterFunc(wait, c.check)
	return c
}

// pooled reports whether there is a pooler: the settings name one, or the process that answers is not the one that accepted
// the login. A pooler can mix up pipelined statements: PgBouncer 1.18 sent parts of one to another server, and that
// server's client received its error. So behind a pooler each connection carries one statement at a time, and nothing stays
// prepared.
func pooled(ctx context.Context, conn *pgx.Conn) (bool, error) {
	if conn.Config().DefaultQueryExecMode != pgx.QueryExecModeCacheStatement {
		return true, nil
	}
	return throughPooler(ctx, conn)
}

// inFlight returns how many statements were sent and not yet answered. The lock is held.
func (c *muxConn) inFlight() int { return len(c.queue) - c.head }

// send queues the call and gives its messages to the writer. The lock is held.
func (c *muxConn) send(call *muxCall) {
	s := call.muxStatement
	if !s.named {
		c.m.name(s)
	}
	prepared := c.prepared[s]
	call.parse = prepared == 0
	call.verify = call.parse || call.rows == nil
	if call.parse {
		c.encode(&pgproto3.Parse{Name: s.Name, Query: s.SQL, ParameterOIDs: s.ParamOIDs})
		if s.Name != "" {
			c.parses++
			prepared = c.parses
			c.prepared[s] = prepared
		}
	}
	call.prepared, call.conn = prepared, c
	if call.verify {
		c.encode(&pgproto3.Describe{ObjectType: 'S', Name: s.Name})
	}
	c.out = append(append(c.out, call.message...), syncMessage...)
	if c.inFlight() == 0 {
		c.since = time.Now()
		if !c.armed {
			c.armed = true
			c.timer.Reset(c.m.stuckAfter)
		}
	}
	c.queue = append(c.queue, call)
	c.unsent++
	c.m.offer(call)
	c.rouse()
}

// rouse wakes the writer if there is a batch to write. The lock is held.
func (c *muxConn) rouse() {
	if !c.writing && c.ready() {
		c.writing = true
		c.wake <- struct{}{}
	}
}

// ready reports whether the server will soon be idle. Until then, calls are collected for one packet. The lock is
// held.
func (c *muxConn) ready() bool {
	return c.unsent > 0 && c.inFlight()-c.unsent <= c.inFlight()/muxAhead
}

// encode appends a message. One of more than a gigabyte is left out, and the server rejects what follows. The lock is held.
func (c *muxConn) encode(msg pgproto3.FrontendMessage) {
	if out, err := msg.Encode(c.out); err == nil {
		c.out = out
	}
}

// deallocate closes the prepared statement with the next batch, after the calls that use it. The lock is held.
func (c *muxConn) deallocate(s *muxStatement) {
	if c.prepared[s] != 0 {
		delete(c.prepared, s)
		c.encode(&pgproto3.Close{ObjectType: 'S', Name: s.Name})
	}
}

// write writes the appended messages until wake is closed.
func (c *muxConn) write() {
	defer close(c.wrote)
	for range c.wake {
		for batch := c.batch(); batch != nil; batch = c.batch() {
			if _, err := c.conn.PgConn().Conn().Write(batch); err != nil {
				c.interrupt(time.Second) // until then the reader may find the cause
				c.silence()
				return // the other calls are answered at the end
			}
		}
	}
}

// silence ends the sending after a failed write.
func (c *muxConn) silence() {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	c.mute = true
	c.withdrawAll()
}

// withdrawAll ends the offers of the calls that are not yet written. The lock is held.
func (c *muxConn) withdrawAll() {
	for _, call := range c.queue[len(c.queue)-c.unsent:] {
		c.m.withdraw(call)
	}
}

// batch returns the bytes to write, or nil.
func (c *muxConn) batch() []byte {
	runtime.Gosched() // lets callers append first: fewer, larger writes
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	batch := c.out
	if !c.ready() || c.closed {
		c.writing = false
		return nil
	}
	c.withdrawAll()
	c.unsent = 0
	c.out, c.spare = c.spare[:0], batch
	if cap(batch) > muxBuffer {
		c.spare = nil
	}
	return batch
}

// interrupt makes the reader and the writer stop waiting after the given time.
func (c *muxConn) interrupt(after time.Duration) {
	_ = c.conn.PgConn().Conn().SetDeadline(time.Now().Add(after)) // a closed connection has ended already
}

// retire answers every call with cause. The reader then closes the connection. The lock is held.
func (c *muxConn) retire(cause error) {
	if c.closed {
		return
	}
	c.closed, c.cause = true, cause
	for _, call := range c.queue[c.head:] {
		c.m.settle(call, cause)
	}
	c.interrupt(0)
}

// retireAged reports whether nothing more may be sent. At the end of its lifetime a connection is closed, as soon as it
// has answered everything. The lock is held.
func (c *muxConn) retireAged() bool {
	if c.closed || c.until.IsZero() || time.Now().Before(c.until) {
		return c.closed
	}
	if c.inFlight() == 0 {
		c.m.agedOut++
		c.retire(errMoved)
	}
	return true
}

// check runs at intervals while the queue isn't empty. It moves the calls behind a slow statement to other connections.
// If the caller of that statement has left, it gives the connection up. It also runs when an idle connection reaches the
// end of its lifetime.
func (c *muxConn) check() {
	m := c.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.inFlight() == 0 || c.closed {
		c.armed = false
		if !c.retireAged() && !c.until.IsZero() {
			c.timer.Reset(time.Until(c.until))
		}
		return
	}
	took := time.Since(c.since)
	if c.stuck && m.timeout > 0 && took >= m.timeout { // the calls behind it were moved
		c.retire(ErrQueryTimeout)
		return
	}
	left := m.stuckAfter - took
	if left <= 0 {
		left, c.stuck = m.stuckAfter, true
		for _, call := range c.queue[c.head+1:] {
			m.settle(call, errMoved)
		}
		if head := c.queue[c.head]; head.callers == 0 {
			m.recordSlowRun(head.muxStatement, c.since)
			c.retire(errMoved)
		}
		m.dispatch()
	}
	c.timer.Reset(left)
}

// serve reads answers until the connection is lost or retired, and closes it.
func (c *muxConn) serve() {
	go c.write()
	err := c.read()
	m := c.m
	m.mu.Lock()
	retired := c.closed
	c.fail(err)
	busy := retired && c.inFlight() > 0 && !m.pooled // a pooler may apply the cancel request to another client's statement
	close(c.wake)
	m.mu.Unlock()
	c.timer.Stop()
	<-c.wrote
	_ = c.conn.PgConn().Conn().SetDeadline(time.Time{})
	if busy {
		ctx, cancel := context.WithTimeout(context.Background(), muxCancel)
		_ = c.conn.PgConn().CancelRequest(ctx) // only this statement can be hit: the others were moved
		cancel()
	}
	m.closeConn(c.conn)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.conns = slices.DeleteFunc(m.conns, func(o *muxConn) bool { return o == c })
	m.dispatch()
}

// fail answers the calls of a lost connection. The lock is held.
func (c *muxConn) fail(err error) {
	cause := lostShared(err)
	if _, large := errors.AsType[*pgproto3.ExceededMaxBodyLenErr](err); large && c.running() != nil && !c.closed {
		c.m.recordSlowRun(c.running().muxStatement, c.since)
		c.m.settle(c.running(), errLarge)
		cause = errMoved
	}
	c.retire(cause)
}

func (c *muxConn) read() error {
	var call *muxCall
	for {
		msg, err := c.front.Receive()
		if err != nil {
			return err
		}
		switch msg := msg.(type) {
		case *pgproto3.NoticeResponse, *pgproto3.ParameterStatus, *pgproto3.NotificationResponse, *pgproto3.CloseComplete:
			continue
		case *pgproto3.ErrorResponse:
			if fatal := pgconn.ErrorResponseToPgError(msg); fatal.SeverityUnlocalized == "FATAL" || fatal.SeverityUnlocalized == "PANIC" {
				return fatal
			}
		}
		if call == nil {
			if call = c.first(); call == nil {
				return fmt.Errorf("unexpected %T", msg)
			}
		}
		if ready, ok := msg.(*pgproto3.ReadyForQuery); ok {
			if call, err = c.complete(call, ready.TxStatus); err != nil {
				return err
			}
		} else if err := c.receive(call, msg); err != nil {
			return err
		}
	}
}

func (c *muxConn) first() *muxCall {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	return c.running()
}

// running returns the first call that was written and has no answer, or nil. The lock is held.
func (c *muxConn) running() *muxCall {
	if c.inFlight() <= c.unsent {
		return nil
	}
	return c.queue[c.head]
}

// receive processes one message of the call's answer.
func (c *muxConn) receive(call *muxCall, msg pgproto3.BackendMessage) error {
	switch msg := msg.(type) {
	case *pgproto3.ParseComplete:
		call.parsed = true
	case *pgproto3.BindComplete, *pgproto3.EmptyQueryResponse:
	case *pgproto3.ParameterDescription:
		call.params = slices.Clone(msg.ParameterOIDs)
	case *pgproto3.RowDescription:
		call.fields = describedFields(msg)
	case *pgproto3.NoData:
		call.rowless = true
	case *pgproto3.ErrorResponse:
		call.failure = pgconn.ErrorResponseToPgError(msg)
	case *pgproto3.DataRow:
		if call.rows == nil {
			return fmt.Errorf("unexpected %T", msg)
		}
		c.row(call, msg.Values)
	case *pgproto3.CommandComplete:
		if call.rows == nil {
			return fmt.Errorf("unexpected %T", msg)
		}
		call.rows.tag = c.commandTag(msg.CommandTag)
	default:
		return fmt.Errorf("unexpected %T", msg)
	}
	return nil
}

func (c *muxConn) commandTag(tag []byte) pgconn.CommandTag {
	if string(tag) != c.tag {
		c.tag = string(tag)
	}
	return pgconn.NewCommandTag(c.tag)
}

// row copies a row. If the result becomes too large, its caller gets an error and the rest is dropped.
func (c *muxConn) row(call *muxCall, values [][]byte) {
	if call.overflow {
		return
	}
	if call.rows.buf == nil {
		call.rows.buf = make([]byte, 0, call.size.Load())
	}
	call.rows.add(values)
	if Bytes(len(call.rows.buf)) <= c.m.settings.MaxResult {
		return
	}
	call.overflow, call.rows.buf = true, nil
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	c.m.recordSlowRun(call.muxStatement, c.since)
	c.m.settle(call, errLarge)
}

// complete answers the call and returns the one behind it, if any.
func (c *muxConn) complete(call *muxCall, status byte) (next *muxCall, err error) {
	now, m := time.Now(), c.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.closed {
		return nil, c.cause
	}
	if call.rows != nil && !call.overflow {
		m.recordRun(call.muxStatement, c.since, now.Sub(c.since))
	}
	c.since, c.stuck = now, false
	c.queue[c.head] = nil
	if c.head++; c.head == len(c.queue) {
		c.queue, c.head = c.queue[:0], 0
	} else if c.head > 1024 {
		c.queue, c.head = slices.Delete(c.queue, 0, c.head), 0
	}
	m.settle(call, m.outcome(c, call))
	c.rouse()
	c.retireAged()
	if m.waiting.Len() > 0 {
		m.dispatch()
	}
	if status != 'I' {
		return nil, errors.New("a statement left a transaction open")
	}
	return c.running(), nil
}

// outcome returns the error for the caller of a completed call; nil: it gets its rows. It also records what the answer says
// about the statement. The lock is held.
func (m *multiplexer) outcome(c *muxConn, call *muxCall) error {
	s := call.muxStatement
	if lost := call.failure != nil && call.failure.Code == pgerrcode.InvalidSQLStatementName; lost || call.parse && !call.parsed {
		if c.prepared[s] == call.prepared { // it was not prepared again
			delete(c.prepared, s)
		}
		if lost {
			return &retryError{call.failure}
		}
	}
	switch {
	case call.failure != nil:
		return m.failure(call)
	case call.overflow:
		return errLarge
	case !s.described:
		s.described, s.rowless, s.ParamOIDs, s.Fields = true, call.rowless, call.params, call.fields
	case call.verify && !call.matches():
		s.changed = true
		m.drop(s)
	}
	switch {
	case s.changed:
		return errStale
	case s.rowless:
		return errUnsuitable
	case call.rows != nil:
		s.size.Store(min(int64(len(call.rows.buf)), muxHint))
	}
	return nil
}

// failure distinguishes errors of the query itself from those that an outdated prepared statement may cause. The latter
// are worth a retry with a fresh statement, and the outdated one is dropped. The lock is held.
func (m *multiplexer) failure(call *muxCall) error {
	s, code := call.muxStatement, call.failure.Code
	lost := unprepared(call.failure)
	if !lost && (!s.described || call.fresh) {
		if !s.described {
			m.drop(s)
		}
		return call.failure
	}
	if lost || strings.HasPrefix(code, "42") || code == pgerrcode.InvalidBinaryRepresentation || code == pgerrcode.InternalError {
		m.pooled = m.pooled || code == pgerrcode.DuplicatePreparedStatement
		s.changed = true
		m.drop(s)
		return &retryError{call.failure}
	}
	return call.failure
}

// unprepared reports whether the error concerns the prepared statement, not the query: it was lost, its name is taken,
// its result type changed, or its number of columns differs from the recent description.
func unprepared(e *pgconn.PgError) bool {
	switch e.Code {
	case pgerrcode.InvalidSQLStatementName, pgerrcode.ProtocolViolation, pgerrcode.DuplicatePreparedStatement:
		return true
	}
	return e.Code == pgerrcode.FeatureNotSupported && e.Routine == "RevalidateCachedQuery"
}
