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
)

// The circuit opens after openAfter consecutive attempts that found no server. It then lets one attempt through every
// openFor, give or take a fifth. So a server that recovers gets one attempt from each process, and not all attempts at
// once.
const (
	openAfter = 5
	openFor   = 500 * time.Millisecond
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

func newBreaker(c *Connector) *breaker {
	return &breaker{
		connector: c, silence: min(time.Second, c.config.ConnectTimeout*9/10),
		circuit: circuitbreaker.NewBuilder[any]().
			WithFailureThreshold(openAfter).WithSuccessThreshold(1).
			WithDelay(openFor).WithJitterFactor(0.2).Build(),
	}
}

// admit lets an attempt through, or returns when the next may be made. A refusal records no stack and does not wait.
func (b *breaker) admit() error {
	for f := b.full.Load(); f != nil; f = b.full.Load() {
		if wait := time.Until(f.until); wait > 0 {
			return b.isFull(f, wait)
		}
		if b.full.CompareAndSwap(f, &full{time.Now().Add(fullFor), f.err, f.server}) {
			break // this attempt is let through; meanwhile others are refused
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

// ended records how an attempt ended.
func (b *breaker) ended(ctx context.Context, err error) {
	switch {
	case err == nil:
		b.slotFreed()
		b.circuit.RecordSuccess()
	case b.callersOwn(ctx, err):
		if b.circuit.IsHalfOpen() {
			b.circuit.RecordFailure() // otherwise the one trial would count as running forever
		}
	case errors.Is(err, errLost):
		b.circuit.RecordSuccess() // a server is reachable and has slots
	default:
		b.failed(causeOfConnect(err), err)
	}
}

// failed records the cause for which an attempt failed, with the server's error.
func (b *breaker) failed(cause Cause, err error) {
	switch cause {
	case ServerUnavailable, NoSuitableServer:
		why := fmt.Errorf("the last attempts to connect found no usable server: %v", clean(err)) //nolint:errorlint // its type is of no use
		b.last.Store(&ConnError{Cause: CircuitOpen, Opened: cause, Strategy: b.connector.settings.Strategy, Err: why})
		b.circuit.RecordFailure()
		b.connector.tickets.doubt()
		return
	case SlotsExhausted:
		until := time.Now().Add(fullFor/2 + rand.N(fullFor)) //nolint:gosec // a jitter is no secret
		b.full.Store(&full{until, clean(err), serverOfAttempt(err)})
	default:
		b.slotFreed()
	}
	b.circuit.RecordSuccess()
}

// callersOwn reports whether an attempt ended because its caller ran out of time. The network may notice the caller's
// deadline a moment before the context does.
func (b *breaker) callersOwn(ctx context.Context, err error) bool {
	network, ok := errors.AsType[net.Error](err)
	timedOut := ctx.Err() != nil || ok && network.Timeout() || errors.Is(err, context.DeadlineExceeded)
	began, _ := ctx.Value(attemptKey{}).(time.Time)
	return timedOut && time.Since(began) < b.silence
}
