package app

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"

	labsite "ddtb/app/lab/site"
	"ddtb/app/metrics"
	"ddtb/app/report"
	"ddtb/app/web"
)

// site returns the contents of the header of every page.
func (a *App) site() web.Site {
	site := web.Site{Name: "ddtb", Nav: []web.Link{{Path: "/polls/", Text: "Polls"}}}
	if a.lab.Enabled() {
		site.Nav = append(site.Nav, web.Link{Path: labsite.Path, Text: "Lab"}, web.Link{Path: "/test/", Text: "Tests"})
	}
	site.Nav = append(site.Nav, web.Link{Path: "/admin/", Text: "Admin"})
	return site
}

// front is the middleware of every request. It is one function because each additional one costs every request an
// allocation. Errors are answered inside it, so that error pages have the same headers.
func (a *App) front(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		began, route := time.Now(), a.pattern(c)
		a.setHeaders(c)
		finish := a.startTraces(c, route)
		cut := true
		defer func() { a.answered(c, route, began, cut, finish) }()
		if err := a.guarded(c, next); err != nil {
			c.Error(err)
		}
		cut = false
		return nil
	}
}

// answered counts, traces and logs a request whose response was written, or cut short by a panic.
func (a *App) answered(c echo.Context, route string, began time.Time, cut bool, finish func(status int)) {
	status := metrics.Status(c)
	if cut {
		status = http.StatusInternalServerError // the status was sent, but the response is incomplete
	}
	took := time.Since(began)
	a.count.Answered(c, route, status, took)
	if finish != nil {
		finish(status)
	}
	if a.log.Enabled(context.Background(), slog.LevelDebug) {
		r := c.Request()
		a.log.Debug("request", "method", web.Cut(r.Method), "path", web.Cut(r.URL.Path), "status", status, "took", took,
			"client", c.RealIP(), "request_id", c.Response().Header().Get(echo.HeaderXRequestID))
	}
}

var errNothingWritten = errors.New("the handler returned without an answer")

// guarded runs the handler and converts a panic to an error, except http.ErrAbortHandler.
func (a *App) guarded(c echo.Context, next echo.HandlerFunc) (err error) {
	defer func() {
		if thrown := recover(); thrown != nil {
			err = panicked(thrown)
		}
	}()
	if err := a.guard.Check(c); err != nil {
		return err
	}
	if c.Request().Method == http.MethodPost {
		next = web.KeepForms(next)
	}
	err = next(c)
	if err == nil && !c.Response().Committed {
		return cmp.Or(c.Request().Context().Err(), errNothingWritten) // net/http would send a 200
	}
	return err
}

// panicStack limits the stack in the log, in bytes. Collecting the stacks of all goroutines would stop every request.
const panicStack = 4 << 10

func panicked(thrown any) error {
	if thrown == http.ErrAbortHandler { //nolint:errorlint // the very same, as net/http compares it
		panic(thrown)
	}
	stack := make([]byte, panicStack)
	stack = stack[:runtime.Stack(stack, false)]
	return report.WithStack(fmt.Errorf("panic: %v\n%s", thrown, stack))
}

// Headers of every response. The slices are shared: to change a value, replace the slice.
var (
	contentSecurityPolicy = []string{
		// allows only resources from this server; no inline script or style
		"default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
	}
	noSniff    = []string{"nosniff"}
	sameOrigin = []string{"same-origin"}
)

func (a *App) setHeaders(c echo.Context) {
	h := c.Response().Header()
	h[echo.HeaderContentSecurityPolicy] = contentSecurityPolicy
	h[echo.HeaderXContentTypeOptions] = noSniff
	h[echo.HeaderReferrerPolicy] = sameOrigin
	h["Cross-Origin-Opener-Policy"] = sameOrigin
	id := c.Request().Header.Get(echo.HeaderXRequestID)
	if !isRequestID(id) {
		id = a.ids.next()
	}
	h[http.CanonicalHeaderKey(echo.HeaderXRequestID)] = []string{id}
}

// isRequestID reports whether a client's request id may be used in responses, logs and mails.
func isRequestID(id string) bool {
	const harmless = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.="
	return id != "" && len(id) <= 64 && strings.Trim(id, harmless) == ""
}

// requestIDs generates ids that are unique within and across processes.
type requestIDs struct {
	process string
	last    atomic.Uint64
}

func newRequestIDs() *requestIDs {
	return &requestIDs{process: strings.ToLower(rand.Text()[:12]) + "-"}
}

func (ids *requestIDs) next() string {
	b := make([]byte, 0, 32)
	return string(strconv.AppendUint(append(b, ids.process...), ids.last.Add(1), 36))
}

// startTraces starts the traces of a request. finish ends them after its scope, so that they include its acquires and
// queries. finish is nil if the request is not traced.
func (a *App) startTraces(c echo.Context, route string) (finish func(status int)) {
	r := c.Request()
	if untraced[route] || strings.Contains(r.Header.Get(echo.HeaderAccept), "text/event-stream") {
		return nil // the trace of a stream would never end, and that of a probe would be empty
	}
	method := metrics.Method(r.Method)
	ctx, finishSentry := a.report.StartRequest(r.Context(), method, route)
	ctx, finishTrace := a.trace.StartRequest(ctx, r.Header, method, route)
	if ctx == r.Context() {
		return nil
	}
	c.SetRequest(r.WithContext(ctx))
	return func(status int) {
		finishTrace(status)
		finishSentry(status)
	}
}

// untraced are the routes without queries, whose traces would be empty.
var untraced = map[string]bool{
	"/healthz": true, "/readyz": true, "/metrics": true, "/static/*": true, "/favicon.ico": true, metrics.Other: true,
}

// scope gives the request its own scope of the database, and releases the leases that it still holds at its end.
func (a *App) scope(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		ctx, end := a.db.Begin(c.Request().Context())
		defer end()
		c.SetRequest(c.Request().WithContext(ctx))
		a.followWrites(ctx, c)
		if err := next(c); err != nil {
			return err
		}
		if a.db.Connected(ctx) {
			a.report.Healthy()
		}
		return nil
	}
}
