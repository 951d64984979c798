package report

import (
	"context"
	"math/rand/v2"

	"github.com/getsentry/sentry-go"
	"github.com/jackc/pgx/v5"
)

// StartRequest starts the trace of a request if tracing is on and the request is sampled; otherwise it takes
// nanoseconds. Call finish with the response's status after the request has released its lease: it queues the trace.
func (r *Reporter) StartRequest(ctx context.Context, method, route string) (_ context.Context, finish func(status int)) {
	if r == nil || r.sentry == nil || r.sentry.rate <= 0 || rand.Float64() >= r.sentry.rate { //nolint:gosec // sampling is no secret
		return ctx, func(int) {}
	}
	ctx = sentry.SetHubOnContext(ctx, sentry.NewHub(r.sentry.client, sentry.NewScope()))
	span := sentry.StartTransaction(ctx, method+" "+route, sentry.WithOpName("http.server"),
		sentry.WithTransactionSource(sentry.SourceRoute), sentry.WithSpanSampled(sentry.SampledTrue))
	return span.Context(), func(code int) {
		span.Status = sentry.HTTPtoSpanStatus(code)
		span.SetData("http.response.status_code", code)
		span.Finish()
	}
}

// Tracer makes a span of each wait for a lease and of each query, in requests that are traced. The zero value is ready
// for use, and is a pgx.QueryTracer.
type Tracer struct{}

// TraceAcquire starts the span of a wait for a lease. end ends it.
func (Tracer) TraceAcquire(ctx context.Context, strategy string) (_ context.Context, end func(error)) {
	if sentry.SpanFromContext(ctx) == nil {
		return ctx, func(error) {}
	}
	span := sentry.StartSpan(ctx, "db.acquire", sentry.WithDescription("a connection by "+strategy))
	span.SetTag("strategy", strategy)
	return span.Context(), func(err error) { finish(span, err) }
}

// TraceQueryStart starts the span of a query. Its description is the SQL text, which contains no parameters.
func (Tracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if sentry.SpanFromContext(ctx) == nil {
		return ctx
	}
	span := sentry.StartSpan(ctx, "db.sql.query", sentry.WithDescription(cut(data.SQL, maxText)))
	span.SetData("db.system", "postgresql")
	return span.Context()
}

// TraceQueryEnd ends the span of a query.
func (Tracer) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryEndData) {
	if span := sentry.SpanFromContext(ctx); span != nil {
		finish(span, data.Err)
	}
}

func finish(span *sentry.Span, err error) {
	span.Status = sentry.SpanStatusOK
	if err != nil {
		span.Status = sentry.SpanStatusInternalError
	}
	span.Finish()
}
