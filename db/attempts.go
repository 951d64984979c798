package db

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// attemptCounter follows the attempts to connect of one Connector: it counts them, stamps the new connections, and tells the
// breaker and the budget how each ended. It is the driver's tracer, so it sees those that pgxpool makes in the background as
// well.
type attemptCounter struct{ *Connector }

var _ pgx.ConnectTracer = attemptCounter{}

// attemptKey is the context key of the time when an attempt began.
type attemptKey struct{}

// TraceConnectStart is part of pgx.ConnectTracer.
func (a attemptCounter) TraceConnectStart(ctx context.Context, _ pgx.TraceConnectStartData) context.Context {
	a.connects.Add(1)
	a.connecting.Add(1)
	return context.WithValue(ctx, attemptKey{}, time.Now())
}

// TraceConnectEnd is part of pgx.ConnectTracer.
func (a attemptCounter) TraceConnectEnd(ctx context.Context, data pgx.TraceConnectEndData) {
	a.connecting.Add(-1)
	if data.Err == nil {
		a.connected.Add(1)
		data.Conn.PgConn().CustomData()[opened] = ticks()
	} else {
		a.tickets.takeBack(ctx)
	}
	a.breaker.ended(ctx, data.Err)
}

// TraceQueryStart is part of pgx.QueryTracer, which pgx requires of every tracer.
func (a attemptCounter) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

// TraceQueryEnd is part of pgx.QueryTracer.
func (a attemptCounter) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
