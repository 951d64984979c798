package trace

import (
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"ddtb/db"
)

var (
	_ db.Tracer         = (*Tracing)(nil)
	_ pgx.ConnectTracer = (*Tracing)(nil)
)

var postgresql = attribute.String("db.system.name", "postgresql")

// TraceAcquire starts the span of a wait for a lease. end ends it.
func (t *Tracing) TraceAcquire(ctx context.Context, strategy string) (_ context.Context, end func(error)) {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return ctx, func(error) {}
	}
	ctx, span := t.tracer.Start(ctx, "db.acquire", trace.WithAttributes(attribute.String("ddtb.strategy", strategy)))
	return ctx, func(err error) { finish(span, err) }
}

// TraceConnectStart starts the span of a connection attempt, inside that of the lease it is made for. A pool's
// background attempts have no span.
func (t *Tracing) TraceConnectStart(ctx context.Context, _ pgx.TraceConnectStartData) context.Context {
	return t.start(ctx, "db.connect", postgresql)
}

// TraceConnectEnd ends the span of an attempt to connect.
func (t *Tracing) TraceConnectEnd(ctx context.Context, data pgx.TraceConnectEndData) {
	finish(trace.SpanFromContext(ctx), data.Err)
}

// TraceQueryStart starts the span of a query, with its text, which contains no parameters.
func (t *Tracing) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	return t.start(ctx, verb(data.SQL), postgresql, attribute.String("db.query.text", strings.TrimSpace(data.SQL)))
}

// TraceQueryEnd ends the span of a query.
func (t *Tracing) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryEndData) {
	finish(trace.SpanFromContext(ctx), data.Err)
}

// start starts a span in a request that is traced. Otherwise the context's span records nothing, not even its end.
func (t *Tracing) start(ctx context.Context, name string, attributes ...attribute.KeyValue) context.Context {
	if trace.SpanFromContext(ctx).IsRecording() {
		ctx, _ = t.tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attributes...))
	}
	return ctx
}

// verb returns the first word of a statement, for the name of its span.
func verb(sql string) string {
	if words := strings.Fields(sql[:min(len(sql), 80)]); len(words) > 0 {
		return strings.ToUpper(words[0])
	}
	return "query"
}

// finish ends a span. It only records the kind of an error: a message may quote a parameter.
func finish(span trace.Span, err error) {
	if err != nil {
		span.SetStatus(codes.Error, "")
		span.SetAttributes(attribute.String("error.type", kindOf(err)))
	}
	span.End()
}

func kindOf(err error) string {
	if cause := db.CauseOf(err); cause != "" {
		return string(cause)
	}
	if state, ok := errors.AsType[interface {
		error
		SQLState() string
	}](err); ok && state.SQLState() != "" {
		return state.SQLState()
	}
	switch {
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	}
	return "error"
}
