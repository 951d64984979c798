// Package trace records OpenTelemetry traces of requests, with a span for each wait for a lease, each connection
// attempt and each query. It sends them to a collector by OTLP over HTTP.
//
// What callers can rely on:
//
//   - A request never waits for the collector. Spans are queued up to a limit; further ones are dropped.
//   - No query parameter is sent, nor a server's message that may quote one: an error is its SQLSTATE or cause.
//   - An incoming traceparent is continued, and sampled if its sender decided so.
//   - Close returns when its context ends, and leaves no goroutine.
//
// Nothing is global: libraries that use OpenTelemetry's globals trace nothing.
//
// The package does not depend on routes or pages.
package trace

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
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
	queued        = 2048 // spans waiting to be sent; some hundred requests
	batch         = 512
	sendEvery     = 2 * time.Second
	exportTimeout = 10 * time.Second // for one batch, including retries
	maxText       = 2048             // of an attribute, in bytes
)

// Tracing records traces. A nil Tracing records none.
type Tracing struct {
	tracer   trace.Tracer
	queue    sdk.SpanProcessor
	exporter *exporter
	http     *http.Transport
}

// New starts tracing. It returns nil if no endpoint is set. It does not connect: the collector may start later. version
// is the application's.
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
	if err != nil { // for example, a machine without a name; the rest is known
		log.Warn("traces lack facts about this process", "error", err)
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

// afterCut is how long an aborted export may take to return.
const afterCut = time.Second

// Close sends the queued spans until ctx ends, then drops the rest. It may be called again.
func (t *Tracing) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	err := t.queue.Shutdown(ctx) // the provider's does nothing if ctx has ended
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

// StartRequest starts the span of a request. Its header may continue an existing trace. Call finish with the status of
// the response, after the request has released its lease. If the request is not sampled, it costs about a microsecond;
// on a nil Tracing, nothing.
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
	return ctx, func(status int) {
		span.SetAttributes(attribute.Int("http.response.status_code", status))
		if status >= http.StatusInternalServerError {
			span.SetStatus(codes.Error, "")
		}
		span.End()
	}
}

// exporter is OTLP's exporter with an abort. It logs failures once when they begin, and once when they end.
type exporter struct {
	sdk.SpanExporter
	hide    *strings.Replacer // the values of the configured headers, which a collector may quote
	log     *slog.Logger
	ends    context.Context
	cut     context.CancelFunc
	failing bool          // only one batch is sent at a time
	done    chan struct{} // closed after the last batch
}

func newExporter(e sdk.SpanExporter, cfg config.Tracing, log *slog.Logger) *exporter {
	var pairs []string
	for _, value := range cfg.HeaderMap() {
		if value != "" {
			pairs = append(pairs, value, "[redacted]")
		}
	}
	x := &exporter{SpanExporter: e, hide: strings.NewReplacer(pairs...), log: log, done: make(chan struct{})}
	x.ends, x.cut = context.WithCancel(context.Background())
	return x
}

// ExportSpans reports no error to the library, which would print it.
func (x *exporter) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(x.ends, cancel)()
	err := x.SpanExporter.ExportSpans(ctx, spans)
	switch {
	case err != nil && !x.failing:
		x.log.Warn("traces can't be sent, and are dropped until they can be: check tracing.endpoint", "error", x.hide.Replace(err.Error()))
	case err == nil && x.failing:
		x.log.Info("traces are sent again")
	}
	x.failing = err != nil
	return nil
}

// Shutdown is called once, after the last batch.
func (x *exporter) Shutdown(ctx context.Context) error {
	_ = x.SpanExporter.Shutdown(ctx) // its error only says that ctx has ended
	close(x.done)
	return nil
}
