package db

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker" // a circuit breaker is its trade, half-open trials and jitter included
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/multitracer"
)

// The circuit opens after openAfter attempts in a row that found no server, and lets one through every openFor,
// give or take a fifth, so that a server which comes back meets one caller of each process, and not all at once.
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

// breaker stands before every attempt to connect of one strategy, and learns how it ended. Only a server that
// can't be reached counts as a failure: one that says no, because its slots are taken or the password is wrong,
// is there, and its answer is worth more than ours.
type breaker struct {
	circuit circuitbreaker.CircuitBreaker[any]
	queue   *queue
	silence time.Duration
}

// newBreaker makes the breaker of the connections that cc makes, and has cc tell it of them, beside its tracer.
func newBreaker(q *queue, cc *pgx.ConnConfig) *breaker {
	b := &breaker{
		queue: q, silence: silence(cc.ConnectTimeout),
		circuit: circuitbreaker.NewBuilder[any]().
			WithFailureThreshold(openAfter).WithSuccessThreshold(1).
			WithDelay(openFor).WithJitterFactor(0.2).Build(),
	}
	if cc.Tracer == nil {
		cc.Tracer = b
	} else {
		cc.Tracer = multitracer.New(b, cc.Tracer)
	}
	return b
}

var errCircuitOpen = errors.New("the last attempts to connect found no server")

// admit lets an attempt through, or says when the next will be.
func (b *breaker) admit() error {
	if b.circuit.TryAcquirePermit() {
		return nil
	}
	return &ConnError{
		Cause: CircuitOpen, Strategy: b.queue.strategy, Size: b.queue.size,
		RetryAfter: b.circuit.RemainingDelay(), Err: errCircuitOpen, stack: callers(),
	}
}

// patiently runs try, which connects, again while there is no server, until it succeeds, ctx ends, or the
// circuit opens.
func (b *breaker) patiently(ctx context.Context, try func() error) error {
	return patiently(ctx, firstBackoff, mostBackoff, try, func(err error) bool {
		return CauseOf(err) == ServerUnavailable && !b.circuit.IsOpen()
	})
}

// breaker is the driver's tracer of every attempt, also of those that pgxpool makes in the background.
var _ pgx.ConnectTracer = (*breaker)(nil)

// silence is how long an attempt must have taken for a time-out to count against the server. Before that, it is
// its caller's own, who leave for reasons of their own; and it is less than the connect_timeout.
func silence(connectTimeout time.Duration) time.Duration {
	return min(time.Second, connectTimeout*9/10)
}

// callersOwn tells whether an attempt ended because its caller had no more time for it. The network may see the
// caller's deadline a moment before their context does.
func (b *breaker) callersOwn(ctx context.Context, err error) bool {
	network, ok := errors.AsType[net.Error](err)
	timedOut := ctx.Err() != nil || ok && network.Timeout() || errors.Is(err, context.DeadlineExceeded)
	return timedOut && time.Since(began(ctx)) < b.silence
}

type attemptKey struct{}

// TraceConnectStart is part of pgx.ConnectTracer.
func (b *breaker) TraceConnectStart(ctx context.Context, _ pgx.TraceConnectStartData) context.Context {
	b.queue.count(&b.queue.counts.Connects)
	b.queue.connecting.Add(1)
	return context.WithValue(ctx, attemptKey{}, time.Now())
}

// TraceConnectEnd is part of pgx.ConnectTracer.
func (b *breaker) TraceConnectEnd(ctx context.Context, data pgx.TraceConnectEndData) {
	b.queue.connecting.Add(-1)
	switch {
	case data.Err == nil:
		b.queue.count(&b.queue.counts.Connected)
		b.circuit.RecordSuccess()
	case b.callersOwn(ctx, data.Err):
		if b.circuit.IsHalfOpen() {
			b.circuit.RecordFailure() // else the one trial would count as under way for ever
		}
	case causeOfConnect(data.Err) == ServerUnavailable:
		b.circuit.RecordFailure()
	default:
		b.circuit.RecordSuccess()
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
