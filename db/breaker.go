package db

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker" // a circuit breaker is its trade, half-open trials and jitter included
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/multitracer"
)

// The circuit opens after openAfter attempts in a row that found no server, and lets one through every openFor,
// give or take a fifth, so that a server which recovers meets one caller of each process, and not all at once.
const (
	openAfter = 5
	openFor   = 500 * time.Millisecond
)

// The waits between the attempts of one request: 50 ms, doubled up to 1 s, with a jitter of a half. With openAfter
// attempts that is about 0.7 s, in which a server that only restarts is mostly back.
const (
	firstBackoff = 50 * time.Millisecond
	mostBackoff  = time.Second
)

// fullFor is how long no attempt is made after the server had no slot, give or take a half, unless one of our own
// connections was closed meanwhile. An attempt costs the server a process; a refusal made here costs nothing.
const fullFor = 100 * time.Millisecond

// breaker stands before every attempt to connect of one Connector, and learns how each ended. Only a server that can't
// be reached opens the circuit: one that answers, because its slots are taken or the password is wrong, is there.
type breaker struct {
	*Connector
	circuit circuitbreaker.CircuitBreaker[any]
	silence time.Duration
	full    atomic.Pointer[full]
}

// full is an answer of the server that it has no slot.
type full struct {
	until time.Time // no attempt is made before
	err   error     // what it said
}

// newBreaker makes the breaker of c, which follows its attempts as the driver's tracer, before any other.
func newBreaker(c *Connector) *breaker {
	b := &breaker{
		Connector: c, silence: silence(c.config.ConnectTimeout),
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

var errCircuitOpen = errors.New("the last attempts to connect found no server")

// admit lets an attempt through, or says when the next will be. A refusal takes no stack and no time.
func (b *breaker) admit() error {
	if f := b.full.Load(); f != nil {
		next := &full{time.Now().Add(fullFor), f.err} // the others wait for this attempt
		if wait := time.Until(f.until); wait > 0 || !b.full.CompareAndSwap(f, next) {
			return &ConnError{Cause: SlotsExhausted, Strategy: b.settings.Strategy, RetryAfter: wait, Err: f.err}
		}
	}
	if b.circuit.TryAcquirePermit() {
		return nil
	}
	return &ConnError{
		Cause: CircuitOpen, Strategy: b.settings.Strategy, RetryAfter: b.circuit.RemainingDelay(), Err: errCircuitOpen,
	}
}

// slotFreed lets the next attempt through at once: a connection of ours was closed.
func (b *breaker) slotFreed() {
	if b.full.Load() != nil {
		b.full.Store(nil)
	}
}

// ended records how an attempt ended, by its cause, "" for success, and by what the server said.
func (b *breaker) ended(cause Cause, err error) {
	switch cause {
	case ServerUnavailable:
		b.circuit.RecordFailure()
		return
	case SlotsExhausted:
		b.full.Store(&full{time.Now().Add(fullFor/2 + rand.N(fullFor)), clean(err)}) //nolint:gosec // a jitter is no secret
	default:
		b.slotFreed()
	}
	b.circuit.RecordSuccess()
}

// breaker is the driver's tracer of every attempt, also of those that pgxpool makes in the background.
var _ pgx.ConnectTracer = (*breaker)(nil)

// silence is how long an attempt must have taken for a time-out to count against the server. Before that, it is
// its caller's own, who leaves for a reason of its own; and it is less than the connect_timeout.
func silence(connectTimeout time.Duration) time.Duration {
	return min(time.Second, connectTimeout*9/10)
}

// callersOwn reports whether an attempt ended because its caller had no more time for it. The network may see the
// caller's deadline a moment before their context does.
func (b *breaker) callersOwn(ctx context.Context, err error) bool {
	network, ok := errors.AsType[net.Error](err)
	timedOut := ctx.Err() != nil || ok && network.Timeout() || errors.Is(err, context.DeadlineExceeded)
	return timedOut && time.Since(began(ctx)) < b.silence
}

type attemptKey struct{}

// TraceConnectStart is part of pgx.ConnectTracer.
func (b *breaker) TraceConnectStart(ctx context.Context, _ pgx.TraceConnectStartData) context.Context {
	b.connects.Add(1)
	b.connecting.Add(1)
	return context.WithValue(ctx, attemptKey{}, time.Now())
}

// TraceConnectEnd is part of pgx.ConnectTracer.
func (b *breaker) TraceConnectEnd(ctx context.Context, data pgx.TraceConnectEndData) {
	b.connecting.Add(-1)
	if data.Err != nil {
		b.tickets.gaveUp()
	}
	switch {
	case data.Err == nil:
		b.connected.Add(1)
		markOpened(data.Conn)
		b.ended("", nil)
	case b.callersOwn(ctx, data.Err):
		if b.circuit.IsHalfOpen() {
			b.circuit.RecordFailure() // else the one trial would count as under way for ever
		}
	case errors.Is(data.Err, errLost):
		b.circuit.RecordSuccess() // the server is there, and has slots
	default:
		b.ended(causeOfConnect(data.Err), data.Err)
	}
}

func began(ctx context.Context) time.Time {
	t, _ := ctx.Value(attemptKey{}).(time.Time)
	return t
}

// TraceQueryStart is part of pgx.QueryTracer, which pgx wants of every tracer.
func (b *breaker) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

// TraceQueryEnd is part of pgx.QueryTracer.
func (b *breaker) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
