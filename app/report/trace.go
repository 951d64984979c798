package report

import (
	"context"
	"math/rand/v2"

	"github.com/getsentry/sentry-go"
	"github.com/jackc/pgx/v5"
)

// StartRequest begins the trace of a request, when tracing is on and this one is drawn; else it does nothing and
// costs a few nanoseconds. finish is to be called after the request gave its lease back: it hands the trace to
// Sentry's queue. status is that of the answer.
func (r *Reporter) StartRequest(ctx context.Context, method, route string) (_ context.Context, finish func(status int)) {
	if r == nil || r.sentry == nil {
		return ctx, func(int) {}
	}
	return r.sentry.StartRequest(ctx, method, route)
}

// StartRequest is Reporter.StartRequest for a client of one's own.
func (c *SentryClient) StartRequest(ctx context.Context, method, route string) (_ context.Context, finish func(status int)) {
	if c.rate <= 0 || rand.Float64() >= c.rate { //nolint:gosec // sampling is no secret
		return ctx, func(int) {}
	}
	ctx = sentry.SetHubOnContext(ctx, sentry.NewHub(c.client, sentry.NewScope()))
	span := sentry.StartTransaction(ctx, method+" "+route, sentry.WithOpName("http.server"),
		sentry.WithTransactionSource(sentry.SourceRoute), sentry.WithSpanSampled(sentry.SampledTrue))
	return span.Context(), func(code int) {
		span.Status = sentry.HTTPtoSpanStatus(code)
		span.SetData("http.response.status_code", code)
		span.Finish()
	}
}

// Tracer makes a span of each wait for a lease and of each query, in requests that are traced. Its zero value is
// ready for use, and fits where pgx takes a QueryTracer.
type Tracer struct{}

// TraceAcquire begins the span of waiting for a lease, which end ends.
func (Tracer) TraceAcquire(ctx context.Context, strategy string) (end func(error)) {
	if sentry.SpanFromContext(ctx) == nil {
		return func(error) {}
	}
	span := sentry.StartSpan(ctx, "db.acquire", sentry.WithDescription("a connection by "+strategy))
	span.SetTag("strategy", strategy)
	return func(err error) { finish(span, err) }
}

// TraceQueryStart begins the span of a query. Its description is the SQL text, which has no parameters in it.
func (Tracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if sentry.SpanFromContext(ctx) == nil {
		return ctx
	}
	span := sentry.StartSpan(ctx, "db.sql.query", sentry.WithDescription(cut(data.SQL, maxText)))
	span.SetData("db.system", "postgresql")
	return context.WithValue(span.Context(), querySpan{}, span)
}

// querySpan finds the span that TraceQueryStart began, since pgx hands its context on to TraceQueryEnd.
type querySpan struct{}

// TraceQueryEnd ends the span of a query.
func (Tracer) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryEndData) {
	if span, ok := ctx.Value(querySpan{}).(*sentry.Span); ok {
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
