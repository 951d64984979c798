package db

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker" // provides the circuit breaker, with half-open trials and jitter
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/multitracer"
)

// The circuit opens after openAfter consecutive attempts that found no server. It then lets one attempt through every
// openFor, give or take a fifth. So a server that recovers gets one attempt from each process, and not all attempts at
// once.
const (
	openAfter = 5
	openFor   = 500 * time.Millisecond
)

// The waits between the attempts of one request: 50 ms, doubled up to 1 s, with a jitter of a half. With openAfter
// attempts that is about 0.7 s. A server that only restarts is usually back by then.
const (
	firstBackoff = 50 * time.Millisecond
	mostBackoff  = time.Second
)

// fullFor is how long no attempt is made after the server had no slot, give or take a half, unless one of our own
// connections is closed meanwhile. An attempt costs the server a process; a refusal here costs nothing.
const fullFor = 100 * time.Millisecond

// breaker admits every attempt to connect of one Connector, and records how each ended. Only an unreachable server
// opens the circuit, or one that is not the primary yet. A server that answers, with full slots or a wrong password, is
// reachable. Under a budget, a new monitoring connection closes the circuit: it has found the server.
type breaker struct {
	connector *Connector
	circuit   circuitbreaker.CircuitBreaker[any]
	silence   time.Duration // an attempt that took less was ended by its caller's timeout, not by the server's silence
	full      atomic.Pointer[full]
	last      atomic.Pointer[ConnError] // the error of an open circuit, with why the last attempt found no server
}

// full records the server's answer that it has no slot.
type full struct {
	until  time.Time // no attempt is made before this time
	err    error     // the server's error
	server string    // the server
}

// newBreaker returns the breaker of c. It records the attempts as the driver's tracer, before any other tracer.
func newBreaker(c *Connector) *breaker {
	b := &breaker{
		connector: c, silence: min(time.Second, c.config.ConnectTimeout*9/10),
		circuit: circuitbreaker.NewBuilder[any]().
			WithFailureThreshold(openAfter).WithSuccessThreshold(1).
			WithDelay(openFor).WithJitterFactor(0.2).Build(),
	}
	if c.config.Tracer == nil {
		c.config.Tracer = b
	} else {
		c.config.Tracer = multitracer.New(b, c.config.Tracer)
	}
	return b
}

// admit lets an attempt through, or returns when the next may be made. A refusal records no stack and does not wait.
func (b *breaker) admit() error {
	if f := b.full.Load(); f != nil {
		next := &full{time.Now().Add(fullFor), f.err, f.server} // meanwhile others are refused
		if wait := time.Until(f.until); wait > 0 || !b.full.CompareAndSwap(f, next) {
			return b.isFull(f, wait)
		}
	}
	if b.circuit.TryAcquirePermit() {
		return nil
	}
	return b.isOpen(b.circuit.RemainingDelay())
}

// refuses returns the error with which admit would refuse an attempt now, or nil. It lets none through.
func (b *breaker) refuses() error {
	if f := b.full.Load(); f != nil {
		if wait := time.Until(f.until); wait > 0 {
			return b.isFull(f, wait)
		}
	}
	if b.circuit.IsOpen() {
		if wait := b.circuit.RemainingDelay(); wait > 0 {
			return b.isOpen(wait)
		}
	}
	return nil
}

func (b *breaker) isFull(f *full, wait time.Duration) error {
	return &ConnError{Cause: SlotsExhausted, Strategy: b.connector.settings.Strategy, Server: f.server, RetryAfter: wait, Err: f.err}
}

func (b *breaker) isOpen(wait time.Duration) error {
	open := *b.last.Load()
	open.RetryAfter = wait
	return &open
}

// slotFreed lets the next attempt through at once, because one of our connections was closed.
func (b *breaker) slotFreed() {
	if b.full.Load() != nil {
		b.full.Store(nil)
	}
}

// ended records how an attempt ended: by its cause, "" for success, and by the server's error.
func (b *breaker) ended(cause Cause, err error) {
	switch cause {
	case ServerUnavailable, NoSuitableServer:
		why := fmt.Errorf("the last attempts to connect found no usable server: %v", clean(err)) //nolint:errorlint // its type is of no use
		b.last.Store(&ConnError{Cause: CircuitOpen, Opened: cause, Strategy: b.connector.settings.Strategy, Err: why})
		b.circuit.RecordFailure()
		if b.connector.tickets != nil {
			b.connector.tickets.doubt()
		}
		return
	case SlotsExhausted:
		until := time.Now().Add(fullFor/2 + rand.N(fullFor)) //nolint:gosec // a jitter is no secret
		b.full.Store(&full{until, clean(err), serverOfAttempt(err)})
	default:
		b.slotFreed()
	}
	b.circuit.RecordSuccess()
}

// breaker is the driver's tracer of every attempt, including those that pgxpool makes in the background.
var _ pgx.ConnectTracer = (*breaker)(nil)

// callersOwn reports whether an attempt ended because its caller ran out of time. The network may notice the caller's
// deadline a moment before the context does.
func (b *breaker) callersOwn(ctx context.Context, err error) bool {
	network, ok := errors.AsType[net.Error](err)
	timedOut := ctx.Err() != nil || ok && network.Timeout() || errors.Is(err, context.DeadlineExceeded)
	began, _ := ctx.Value(attemptKey{}).(time.Time)
	return timedOut && time.Since(began) < b.silence
}

type attemptKey struct{}

// TraceConnectStart is part of pgx.ConnectTracer.
func (b *breaker) TraceConnectStart(ctx context.Context, _ pgx.TraceConnectStartData) context.Context {
	b.connector.connects.Add(1)
	b.connector.connecting.Add(1)
	return context.WithValue(ctx, attemptKey{}, time.Now())
}

// TraceConnectEnd is part of pgx.ConnectTracer.
func (b *breaker) TraceConnectEnd(ctx context.Context, data pgx.TraceConnectEndData) {
	b.connector.connecting.Add(-1)
	if data.Err != nil {
		b.connector.tickets.gaveUp(ctx)
	}
	switch {
	case data.Err == nil:
		b.connector.connected.Add(1)
		data.Conn.PgConn().CustomData()[opened] = time.Now()
		b.ended("", nil)
	case b.callersOwn(ctx, data.Err):
		if b.circuit.IsHalfOpen() {
			b.circuit.RecordFailure() // otherwise the one trial would count as running forever
		}
	case errors.Is(data.Err, errLost):
		b.circuit.RecordSuccess() // a server is reachable and has slots
	default:
		b.ended(causeOfConnect(data.Err), data.Err)
	}
}

// TraceQueryStart is part of pgx.QueryTracer, which pgx requires of every tracer.
func (b *breaker) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

// TraceQueryEnd is part of pgx.QueryTracer.
func (b *breaker) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
