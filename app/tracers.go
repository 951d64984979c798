package app

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/multitracer"

	"ddtb/app/report"
	"ddtb/app/trace"
	"ddtb/config"
	"ddtb/db"
)

// tracers combines several tracers of one database. pgx combines its own part.
type tracers struct {
	*multitracer.Tracer
	all []db.Tracer
}

// tracer returns the tracer of the application's database, or nil. Each tracer costs every query a little.
func tracer(cfg *config.Config, traces *trace.Tracing) db.Tracer {
	var all []db.Tracer
	if cfg.Sentry.TracesSampleRate > 0 {
		all = append(all, report.Tracer{})
	}
	if traces != nil {
		all = append(all, traces)
	}
	return join(all...)
}

// join combines several tracers into one.
func join(all ...db.Tracer) db.Tracer {
	switch len(all) {
	case 0:
		return nil
	case 1:
		return all[0]
	}
	each := make([]pgx.QueryTracer, len(all))
	for i, t := range all {
		each[i] = t
	}
	return tracers{multitracer.New(each...), all}
}

// TraceAcquire implements db.Tracer. Spans end in the reverse order, because they nest.
func (ts tracers) TraceAcquire(ctx context.Context, strategy string) (end func(error)) {
	ends := make([]func(error), len(ts.all))
	for i, t := range ts.all {
		ends[i] = t.TraceAcquire(ctx, strategy)
	}
	return func(err error) {
		for i := len(ends) - 1; i >= 0; i-- {
			ends[i](err)
		}
	}
}
