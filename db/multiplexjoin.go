package db

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"hash/maphash"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
)

// Reads that wait together and ask the same are sent once. A call that waits, or whose message is not yet written, is an
// offer: a call with an equal message may join it, and shares its answer. The statement has not begun by then, so the
// answer is as new as one of its own. All functions here need the multiplexer's lock.

// errAlone is for the calls that joined one whose statement failed.
var errAlone = &retryError{errors.New("the shared statement failed")}

// muxKey finds an offer. Equal messages have equal keys.
type muxKey struct {
	statement *muxStatement
	hash      uint64
}

var muxSeed = maphash.MakeSeed()

func (call *muxCall) key() muxKey { return muxKey{call.muxStatement, call.hash} }

// offer lets other calls join this one, until withdraw.
func (m *multiplexer) offer(call *muxCall) {
	if !call.alone {
		m.offers[call.key()] = call
	}
}

func (m *multiplexer) withdraw(call *muxCall) {
	if key := call.key(); m.offers[key] == call {
		delete(m.offers, key)
	}
}

// join accepts an offer, if there is one that need not wait longer than the call itself would: it is on c, the connection
// for the call, or on one whose server has nothing else to do. c is nil if the call would wait.
func (m *multiplexer) join(call *muxCall, c *muxConn) bool {
	first := m.offers[call.key()]
	if first == nil || call.alone || !bytes.Equal(call.message, first.message) {
		return false
	}
	if c != nil && c != first.conn && (first.conn == nil || first.conn.running() != nil) {
		return false
	}
	call.first, call.next, first.next = first, first.next, call
	first.callers++
	m.unanswered++
	if first.place != nil {
		m.waiters++
		call.queued = time.Now()
	}
	return true
}

// settle answers the call and those that have joined it. A server's error goes only to the call that was sent, because it
// may not happen again: those that joined it are sent again, each alone. Two errors go to all of them, a cancelled statement
// and a lock timeout, because they have usually used up the time of the others too.
func (m *multiplexer) settle(call *muxCall, err error) {
	m.withdraw(call)
	shared := err
	if pe, ok := err.(*pgconn.PgError); ok && pe.Code != pgerrcode.QueryCanceled && pe.Code != pgerrcode.LockNotAvailable { //nolint:errorlint // never wrapped
		shared = errAlone
	}
	for other := call.next; other != nil; {
		next := other.next
		if err == nil && call.rows != nil && !other.gone {
			m.joined++
			other.rows.buf, other.rows.left, other.rows.tag = call.rows.buf, call.rows.left, call.rows.tag
		}
		m.answer(other, shared) // its memory may serve another query from now on
		other = next
	}
	call.next, call.callers = nil, 0
	m.answer(call, err)
}

// leave ends the wait of a caller whose context ended with err. It returns the error for the caller. A waiting call that
// every caller has left is not sent.
func (m *multiplexer) leave(call *muxCall, err error) error {
	if call.gone { // the memory of its first may serve another query by now
		return err
	}
	first := cmp.Or(call.first, call)
	first.callers--
	if first.place == nil {
		return err
	}
	m.waiters--
	if first.callers == 0 {
		m.waiting.Remove(first.place)
		m.withdraw(first)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = &ConnError{Cause: PoolTimeout, Strategy: Multiplex, Waited: time.Since(call.queued), Waiting: m.waiters, Err: err}
	}
	return err
}

// unqueue removes the first of the waiting calls from the list.
func (m *multiplexer) unqueue() *muxCall {
	call := m.waiting.Remove(m.waiting.Front()).(*muxCall)
	call.place = nil
	m.waiters -= call.callers
	return call
}
