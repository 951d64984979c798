package db

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
)

// ConnError means that there was no connection, or that it was lost. The request was not at fault. It may be sent again,
// unless Sent is true and it changes something. A constraint violation, a deadlock or a wrong statement is never a
// ConnError.
type ConnError struct {
	Cause      Cause
	Opened     Cause // of CircuitOpen: why the last attempt failed
	Strategy   string
	Server     string        // HOST:PORT of the server that answered, or was connected; "" if there was none
	Waited     time.Duration // in the queue
	Size       int           // the bound on leases; 0: none
	Leases     int           // in use at that moment
	Waiting    int           // others in the queue at that moment
	Stalled    time.Duration // how long no lease had been released while requests waited
	RetryAfter time.Duration // if known: when the circuit lets an attempt through, or the queue's pace; else 0
	Sent       bool          // the connection was lost under a statement or a commit: a change may or may not have been made
	Err        error         // the driver's error, or nil

	stack  []uintptr
	inVain time.Duration // how long a search for a connection took that used up its time limit; else 0
}

// Error begins with psycopg_pool's wording where there is one, since people search for it.
func (e *ConnError) Error() string {
	switch e.Cause {
	case PoolTimeout:
		return fmt.Sprintf("couldn't get a connection after %.2f sec", e.Waited.Seconds())
	case QueueFull:
		if e.Waiting == 1 {
			return "couldn't get a connection: 1 request is waiting for one already"
		}
		return fmt.Sprintf("couldn't get a connection: %d requests are waiting for one already", e.Waiting)
	}
	text := fmt.Sprintf("%s: %v", e.Cause, e.Err)
	if hint := Hint(e.Err); hint != "" {
		text += "; " + hint
	}
	return text
}

func (e *ConnError) Unwrap() error { return e.Err }

// SQLState returns the server's code, or "" if the server sent none.
func (e *ConnError) SQLState() string { return sqlState(e.Err) }

// StackTrace returns the stack of the caller that requested the connection, as runtime.Callers gives it, for error
// reports. It may be nil: a refusal records none.
func (e *ConnError) StackTrace() []uintptr { return e.stack }

// callers returns the stack of the code that makes a ConnError.
func callers() []uintptr {
	pcs := make([]uintptr, 32)
	return pcs[:runtime.Callers(2, pcs)]
}

// CauseOf returns the cause of the first ConnError in err's chain, or "".
func CauseOf(err error) Cause {
	if ce, ok := errors.AsType[*ConnError](err); ok {
		return ce.Cause
	}
	return ""
}

// ErrInUse is the error of a request that queries on a lease whose last result is still open, or from two goroutines at
// once: one connection carries one query at a time.
var ErrInUse = errors.New("this request's connection is in use: close the rows of the last query first, " +
	"use the transaction's Querier inside InTx, and query from one goroutine")

func sqlState(err error) string {
	if pe, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pe.Code
	}
	return ""
}

// lost reports whether err, from a query, means that the connection or its server was lost.
func lost(err error, closed bool) bool {
	pe, said := errors.AsType[*pgconn.PgError](err)
	switch code := sqlState(err); {
	case said && (pe.SeverityUnlocalized == "FATAL" || pe.SeverityUnlocalized == "PANIC"):
		return true // the server ended the session, for example because it was idle for too long
	case code == pgerrcode.AdminShutdown, code == pgerrcode.CrashShutdown, code == pgerrcode.CannotConnectNow,
		pgerrcode.IsConnectionException(code):
		return true
	case code != "":
		return false
	}
	_, network := errors.AsType[net.Error](err)
	return closed && (network || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, pgconn.ErrConnClosed))
}

// connectError wraps a failed attempt to connect. A caller that cancels is no failure of the database.
func connectError(ctx context.Context, strategy string, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("gave up while connecting: %w", context.Canceled)
	}
	if ce, ok := errors.AsType[*ConnError](err); ok { // an error of this package
		if ce.Strategy == "" {
			ce.Strategy = strategy
		}
		return ce
	}
	return &ConnError{Cause: causeOfConnect(err), Strategy: strategy, Server: serverOfAttempt(err), Err: clean(err), stack: callers()}
}

// clean drops pgconn's "failed to connect to `user=… database=…`" and the repetitions of one answer from each address
// and for each kind of TLS. The reader knows the address, and needs the reason.
func clean(err error) error {
	if pe, ok := refusalOf(err); ok {
		return pe
	}
	ce, ok := errors.AsType[*pgconn.ConnectError](err)
	if !ok || ce.Unwrap() == nil {
		return err
	}
	var said []string
	for line := range strings.Lines(ce.Unwrap().Error()) {
		if line = strings.TrimPrefix(strings.TrimSpace(line), "hostname resolving error: "); line != "" && !slices.Contains(said, line) {
			said = append(said, line)
		}
	}
	return &cleaned{strings.Join(said, "; "), ce.Unwrap()}
}

// cleaned is an error with a shorter text.
type cleaned struct {
	words string
	err   error
}

func (c *cleaned) Error() string { return c.words }
func (c *cleaned) Unwrap() error { return c.err }
