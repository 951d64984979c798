package metrics

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
)

// Other replaces unknown routes and methods.
const Other = "other"

// Method returns the request method for labels and span names: a client can send any word.
func Method(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return method
	}
	return Other
}

// statusClientGone is nginx's status for a client that closed the connection before its response.
const statusClientGone = 499

// Status returns the status of the response to c, after the handlers: 499 if the client disconnected before it.
func Status(c echo.Context) int {
	if r := c.Response(); r.Committed || !errors.Is(c.Request().Context().Err(), context.Canceled) {
		return r.Status
	}
	return statusClientGone
}

type requests struct {
	total *prometheus.CounterVec
	took  *prometheus.HistogramVec
	known sync.Map // labels → *figures
}

func newRequests() *requests {
	return &requests{
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "http_requests_total", Help: "Requests that were answered; code 499 is a client that went away before.",
		}, []string{"route", "method", "code"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "http_request_duration_seconds", Help: "How long the answers took, the wait for a lease included.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"route", "method"}),
	}
}

func (r *requests) collectors() []prometheus.Collector {
	return []prometheus.Collector{r.total, r.took}
}

// Answered counts and times a request. route is its pattern, or Other if there is none. It must not be the path, which
// the client chooses.
func (m *Metrics) Answered(c echo.Context, route string, status int, took time.Duration) {
	f := m.requests.figuresOf(labels{route, Method(c.Request().Method), status})
	f.total.Inc()
	if c.Response().Header().Get(echo.HeaderContentType) != stream {
		f.took().Observe(took.Seconds())
	}
}

// labels are the labels of a request.
type labels struct {
	route, method string
	status        int
}

// figures are the metrics of requests with the same labels. They are looked up once, because a lookup takes at least
// two locks.
type figures struct {
	total prometheus.Counter
	took  func() prometheus.Observer // created on first use
}

func (r *requests) figuresOf(l labels) *figures {
	if f, ok := r.known.Load(l); ok {
		return f.(*figures)
	}
	f := &figures{
		total: r.total.WithLabelValues(l.route, l.method, strconv.Itoa(l.status)),
		took:  sync.OnceValue(func() prometheus.Observer { return r.took.WithLabelValues(l.route, l.method) }),
	}
	kept, _ := r.known.LoadOrStore(l, f)
	return kept.(*figures)
}

// stream is the type of a response that lasts as long as its viewer stays. Its duration is not a wait.
const stream = "text/event-stream"
