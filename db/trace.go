package db

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/multitracer"
)

// Tracer records the operations of a DB as spans. If it implements pgx.ConnectTracer, it records the attempts to
// connect too. Its methods are called while a request waits, and must not block.
type Tracer interface {
	pgx.QueryTracer
	// TraceAcquire is called when a lease is requested. What happens until end is called has the returned context. end is
	// called once, when the lease was given or refused.
	TraceAcquire(ctx context.Context, strategy string) (_ context.Context, end func(error))
}

// traceWith lets the tracer, if there is one, record what the driver does.
func (c *Connector) traceWith(t Tracer) {
	if t != nil {
		c.config.Tracer = multitracer.New(c.config.Tracer, t)
	}
}

// observed is an acquire that the options' hooks observe. Its zero value is observed by none.
type observed struct {
	source *Source
	began  int64 // in ticks
	end    func(error)
}

// observe begins the hooks of an acquire, which has the returned context.
func (s *Source) observe(ctx context.Context, began int64) (context.Context, observed) {
	switch t := s.options.Tracer; {
	case t != nil:
		ctx, end := t.TraceAcquire(ctx, s.settings.Strategy)
		return ctx, observed{s, began, end}
	case s.options.OnAcquire != nil:
		return ctx, observed{s, began, func(error) {}}
	}
	return ctx, observed{}
}

// ended ends the hooks, with the outcome of the acquire.
func (o observed) ended(outcome *error) {
	if o.source == nil {
		return
	}
	err := *outcome
	if errors.Is(err, ErrClosed) { // a switch: the query goes to the strategy in force
		o.end(nil)
		return
	}
	if hook := o.source.options.OnAcquire; hook != nil {
		hook(o.source.settings.Strategy, time.Duration(ticks()-o.began), err)
	}
	o.end(err)
}

// traceRead begins the span of a read on a shared connection, which the driver does not trace.
func (o *Options) traceRead(ctx context.Context, sql string, args []any) context.Context {
	if o.Tracer == nil {
		return ctx
	}
	return o.Tracer.TraceQueryStart(ctx, nil, pgx.TraceQueryStartData{SQL: sql, Args: args})
}

// readTraced ends the span of a read.
func (o *Options) readTraced(ctx context.Context, err error) {
	if o.Tracer != nil {
		o.Tracer.TraceQueryEnd(ctx, nil, pgx.TraceQueryEndData{Err: err})
	}
}
