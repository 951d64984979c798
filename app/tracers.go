package app

import (
	"context"

	"github.com/jackc/pgx/v5/multitracer"

	"ddtb/app/report"
	"ddtb/app/trace"
	"ddtb/config"
	"ddtb/db"
)

// tracer returns the tracer of the application's database, or nil. Each tracer costs every query a little.
func tracer(cfg *config.Config, traces *trace.Tracing) db.Tracer {
	toSentry := cfg.Sentry.TracesSampleRate > 0
	switch {
	case toSentry && traces != nil:
		return bothTracers{multitracer.New(report.Tracer{}, traces), report.Tracer{}, traces}
	case toSentry:
		return report.Tracer{}
	case traces != nil:
		return traces
	}
	return nil
}

// bothTracers traces to Sentry and by OpenTelemetry. pgx combines its own part.
type bothTracers struct {
	*multitracer.Tracer
	sentry report.Tracer
	traces *trace.Tracing
}

// TraceAcquire implements db.Tracer. Spans end in the reverse order, because they nest.
func (b bothTracers) TraceAcquire(ctx context.Context, strategy string) (_ context.Context, end func(error)) {
	ctx, endSentry := b.sentry.TraceAcquire(ctx, strategy)
	ctx, endTrace := b.traces.TraceAcquire(ctx, strategy)
	return ctx, func(err error) {
		endTrace(err)
		endSentry(err)
	}
}
