// Package trace makes OpenTelemetry traces of requests, with a span of each wait for a lease, each attempt to connect
// and each query, and sends them to a collector by OTLP over HTTP.
//
// It promises that
//
//   - a request never waits for the collector. Spans wait in a bounded queue; what does not fit is dropped;
//   - no parameter of a query is told, nor what the server's messages quote of them: an error is its SQLSTATE or cause;
//   - an incoming traceparent is followed: the trace goes on, and is sampled if its sender said so;
//   - Close ends when its context does, and leaves no goroutine.
//
// Nothing of it is global: libraries that ask OpenTelemetry's globals trace nothing.
//
// It must not know routes or pages.
package trace

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp" // the protocol of every collector, with its retries
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"ddtb/config"
)

const (
	queued        = 2048 // spans that wait to be sent; some hundred requests
	batch         = 512
	sendEvery     = 2 * time.Second
	exportTimeout = 10 * time.Second // of one batch, retries included
	maxText       = 2048             // bytes of an attribute
)

// Tracing makes traces. A nil one makes none.
type Tracing struct {
	tracer   trace.Tracer
	queue    sdk.SpanProcessor
	exporter *exporter
	http     *http.Transport
}

// New begins to trace, or returns nil when no endpoint is set. It does not connect: a collector may come later.
// version is the application's.
func New(cfg config.Tracing, version string, log *slog.Logger) (*Tracing, error) {
	if cfg.Endpoint == "" {
		return nil, nil
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	client := otlptracehttp.NewClient(
		otlptracehttp.WithEndpointURL(strings.TrimRight(cfg.Endpoint, "/")+"/v1/traces"),
		otlptracehttp.WithHeaders(cfg.HeaderMap()),
		otlptracehttp.WithCompression(otlptracehttp.GzipCompression), otlptracehttp.WithEncoding(otlptracehttp.EncodingProtobuf),
		otlptracehttp.WithHTTPClient(&http.Client{Transport: transport, Timeout: exportTimeout}),
	)
	otlp, err := otlptrace.New(context.Background(), client)
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	about, err := resource.New(context.Background(), resource.WithHost(), resource.WithTelemetrySDK(), resource.WithAttributes(
		attribute.String("service.name", "ddtb"), attribute.String("service.version", version),
	))
	if err != nil { // a machine without a name, for one; the rest is known
		log.Warn("traces don't tell all about this process", "error", err)
	}
	x := newExporter(otlp, cfg, log)
	limits := sdk.NewSpanLimits()
	limits.AttributeValueLengthLimit = maxText
	queue := sdk.NewBatchSpanProcessor(x, sdk.WithMaxQueueSize(queued), sdk.WithMaxExportBatchSize(batch),
		sdk.WithBatchTimeout(sendEvery), sdk.WithExportTimeout(exportTimeout))
	p := sdk.NewTracerProvider(
		sdk.WithResource(about), sdk.WithRawSpanLimits(limits),
		sdk.WithSampler(sdk.ParentBased(sdk.TraceIDRatioBased(cfg.SampleRate))),
		sdk.WithSpanProcessor(queue),
	)
	return &Tracing{tracer: p.Tracer("ddtb"), queue: queue, exporter: x, http: transport}, nil
}

// afterCut is how long an export that was cut may take to notice.
const afterCut = time.Second

// Close sends what waits until ctx ends, then drops it. It may be called again.
func (t *Tracing) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	err := t.queue.Shutdown(ctx) // the provider's would do nothing when ctx has ended already
	t.exporter.cut()
	select {
	case <-t.exporter.done:
	case <-time.After(afterCut):
	}
	t.http.CloseIdleConnections()
	if err != nil {
		return fmt.Errorf("not all traces were sent before the stop: %w", err)
	}
	return nil
}

// requestKey finds the request in a context, for a connect to find the acquire that it is part of.
type requestKey struct{}

type request struct{ acquiring atomic.Pointer[trace.Span] }

// StartRequest begins the span of a request, whose header may say that it is part of a trace already. finish is to be
// called with the status of the answer, after the request gave its lease back. Where the request is not sampled it
// costs about a microsecond; on a nil Tracing, nothing.
func (t *Tracing) StartRequest(ctx context.Context, header http.Header, method, route string) (_ context.Context, finish func(status int)) {
	if t == nil {
		return ctx, func(int) {}
	}
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.HeaderCarrier(header))
	ctx, span := t.tracer.Start(ctx, method+" "+route, trace.WithSpanKind(trace.SpanKindServer))
	if !span.IsRecording() {
		return ctx, func(int) { span.End() }
	}
	span.SetAttributes(attribute.String("http.request.method", method), attribute.String("http.route", route))
	return context.WithValue(ctx, requestKey{}, &request{}), func(status int) {
		span.SetAttributes(attribute.Int("http.response.status_code", status))
		if status >= http.StatusInternalServerError {
			span.SetStatus(codes.Error, "")
		}
		span.End()
	}
}

// exporter is OTLP's, which can be cut, and whose failures are logged: once when they begin, and once when they end.
type exporter struct {
	sdk.SpanExporter
	secrets []string
	log     *slog.Logger
	ends    context.Context
	cut     context.CancelFunc
	failing bool          // the batches come one after another
	done    chan struct{} // closed when the last batch is through
}

func newExporter(e sdk.SpanExporter, cfg config.Tracing, log *slog.Logger) *exporter {
	x := &exporter{SpanExporter: e, log: log, done: make(chan struct{})}
	for _, value := range cfg.HeaderMap() {
		if value != "" {
			x.secrets = append(x.secrets, value)
		}
	}
	x.ends, x.cut = context.WithCancel(context.Background())
	return x
}

// ExportSpans reports no failure to the library, which would print it.
func (x *exporter) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(x.ends, cancel)()
	err := x.SpanExporter.ExportSpans(ctx, spans)
	switch {
	case err != nil && !x.failing:
		x.log.Warn("traces can't be sent, and are dropped until they can be: look at tracing.endpoint", "error", x.clean(err))
	case err == nil && x.failing:
		x.log.Info("traces are sent again")
	}
	x.failing = err != nil
	return nil
}

// clean takes out what a collector may have quoted of its headers.
func (x *exporter) clean(err error) error {
	text := err.Error()
	for _, s := range x.secrets {
		text = strings.ReplaceAll(text, s, "[redacted]")
	}
	return errors.New(text)
}

// Shutdown is called once, after the last batch.
func (x *exporter) Shutdown(ctx context.Context) error {
	_ = x.SpanExporter.Shutdown(ctx) // which says no more than that ctx has ended
	close(x.done)
	return nil
}
