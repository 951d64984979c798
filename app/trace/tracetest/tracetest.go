// Package tracetest is a trace collector for tests: it accepts OTLP over HTTP like a real one. It is for tests only.
package tracetest

import (
	"compress/gzip"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1" // the messages of the protocol
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Span is a received span. IDs are in hex; Parent is "" for the root of a trace.
type Span struct {
	Name, ID, Parent, Trace string
	Attributes              map[string]string // numbers as text
	Failed                  bool
	Begin, End              uint64 // nanoseconds
}

// Collector stores the received spans.
type Collector struct {
	URL    string
	Status atomic.Int32 // of the responses; 0: 200

	t       testing.TB
	mu      sync.Mutex
	spans   []Span
	service map[string]string
	header  http.Header
	raw     []byte
}

// New starts a collector, which ends with the test.
func New(t testing.TB) *Collector {
	c := &Collector{t: t}
	s := httptest.NewServer(c)
	t.Cleanup(s.Close)
	c.URL = s.URL
	return c
}

// ServeHTTP accepts one batch.
func (c *Collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if status := c.Status.Load(); status != 0 {
		http.Error(w, "not with the key "+r.Header.Get("Api-Key"), int(status))
		return
	}
	var m collector.ExportTraceServiceRequest
	raw, err := unzip(r.Body)
	if err == nil {
		err = proto.Unmarshal(raw, &m)
	}
	if err != nil || r.Method != http.MethodPost || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" {
		c.t.Errorf("%s %s with %s: %v", r.Method, r.URL, r.Header.Get("Content-Type"), err)
	}
	c.keep(&m, raw, r.Header)
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func unzip(body io.Reader) ([]byte, error) {
	z, err := gzip.NewReader(body)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

func (c *Collector) keep(m *collector.ExportTraceServiceRequest, raw []byte, header http.Header) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.raw, c.header, c.service = append(c.raw, raw...), header, map[string]string{}
	for _, of := range m.GetResourceSpans() {
		for _, a := range of.GetResource().GetAttributes() {
			c.service[a.GetKey()] = a.GetValue().GetStringValue()
		}
		for _, scope := range of.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				c.spans = append(c.spans, spanOf(s))
			}
		}
	}
}

func spanOf(s *otlp.Span) Span {
	out := Span{
		Name: s.GetName(), ID: hex.EncodeToString(s.GetSpanId()), Parent: hex.EncodeToString(s.GetParentSpanId()),
		Trace: hex.EncodeToString(s.GetTraceId()), Failed: s.GetStatus().GetCode() == otlp.Status_STATUS_CODE_ERROR,
		Begin: s.GetStartTimeUnixNano(), End: s.GetEndTimeUnixNano(), Attributes: map[string]string{},
	}
	for _, a := range s.GetAttributes() {
		value := a.GetValue().GetStringValue()
		if n := a.GetValue().GetIntValue(); n != 0 {
			value = strconv.FormatInt(n, 10)
		}
		out.Attributes[a.GetKey()] = value
	}
	return out
}

// Spans returns the received spans, in the order in which they ended.
func (c *Collector) Spans() []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Span(nil), c.spans...)
}

// Named returns the spans with that name.
func (c *Collector) Named(name string) (found []Span) {
	for _, s := range c.Spans() {
		if s.Name == name {
			found = append(found, s)
		}
	}
	return found
}

// Service returns the sender's resource attributes.
func (c *Collector) Service() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.service
}

// Header returns the header of the last batch.
func (c *Collector) Header() http.Header {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.header
}

// Raw returns everything received, to search for what must not be in it.
func (c *Collector) Raw() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.raw)
}
