package metrics

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
)

// Other stands for whatever is none of the known routes or methods.
const Other = "other"

// Method is the method of a request as labels and names of spans have it: a client can send any word.
func Method(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return method
	}
	return Other
}

// statusClientGone is nginx's number for a client that did not wait for its answer.
const statusClientGone = 499

// Status is that of the answer to c, after the handlers: 499 where the client went away before there was one.
func Status(c echo.Context) int {
	if r := c.Response(); r.Committed || !errors.Is(c.Request().Context().Err(), context.Canceled) {
		return r.Status
	}
	return statusClientGone
}

type requests struct {
	total *prometheus.CounterVec
	took  *prometheus.HistogramVec
}

func newRequests() requests {
	return requests{
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "http_requests_total", Help: "Requests that were answered; code 499 is a client that went away before.",
		}, []string{"route", "method", "code"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "http_request_duration_seconds", Help: "How long the answers took, the wait for a lease included.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"route", "method"}),
	}
}

func (r requests) collectors() []prometheus.Collector { return []prometheus.Collector{r.total, r.took} }

// Middleware counts and times every request that passes it; it stands before the others. route tells the pattern
// that the request was routed by, Other where there was none: never the path, which is the client's to choose.
func (m *Metrics) Middleware(route func(echo.Context) string) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			began, cut := time.Now(), true
			defer func() {
				status := Status(c)
				if cut {
					status = http.StatusInternalServerError // a panic goes through, and ends a response that had begun
				}
				m.requests.total.WithLabelValues(route(c), Method(c.Request().Method), strconv.Itoa(status)).Inc()
				if c.Response().Header().Get(echo.HeaderContentType) != stream {
					m.requests.took.WithLabelValues(route(c), Method(c.Request().Method)).Observe(time.Since(began).Seconds())
				}
			}()
			err := next(c)
			cut = false
			return err
		}
	}
}

// stream is the type of an answer that lasts as long as its viewer stays, which is nobody's wait.
const stream = "text/event-stream"
