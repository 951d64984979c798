package metrics

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"
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

// Answered counts and times a request. route is its pattern, or Other if there is none. It must not be the path, which
// the client chooses.
func (m *Metrics) Answered(c echo.Context, route string, status int, took time.Duration) {
	method := Method(c.Request().Method)
	m.requests.WithLabelValues(route, method, strconv.Itoa(status)).Inc()
	if c.Response().Header().Get(echo.HeaderContentType) != stream {
		m.took.WithLabelValues(route, method).Observe(took.Seconds())
	}
}

// stream is the type of a response that lasts as long as its viewer stays. Its duration is not a wait.
const stream = "text/event-stream"
