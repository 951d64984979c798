package app

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"

	"ddtb/app/fault"
	labsite "ddtb/app/lab/site"
	"ddtb/app/metrics"
	"ddtb/app/report"
	"ddtb/app/web"
)

// maxBody is the most that a form may have.
const maxBody = "1M"

// contentSecurityPolicy lets a page load what comes from here and nothing else: no inline script or style.
const contentSecurityPolicy = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"

// middleware is what every request passes, outermost first.
func (a *App) middleware() []echo.MiddlewareFunc {
	site := &web.Site{Name: "ddtb", Nav: []web.Link{{Path: "/polls/", Text: "Polls"}}}
	if a.cfg.Test.Enabled {
		site.Nav = append(site.Nav, web.Link{Path: labsite.Path, Text: "Lab"}, web.Link{Path: "/test/", Text: "Tests"})
	}
	site.Nav = append(site.Nav, web.Link{Path: "/admin/", Text: "Admin"})
	return []echo.MiddlewareFunc{
		a.count.Middleware(a.pattern),
		middleware.RequestID(),
		a.traced,
		secure,
		site.Middleware(),
		answerErrors,
		recoverPanics,
		sameOrigin(),
		middleware.BodyLimit(maxBody),
		web.KeepForms,
	}
}

// traced begins the traces of a request, and ends them after its scope: so that they have its acquires and queries.
func (a *App) traced(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r, route := c.Request(), a.pattern(c)
		if untraced[route] || strings.Contains(r.Header.Get(echo.HeaderAccept), "text/event-stream") {
			return next(c) // a stream's trace would have no end, and that of a probe nothing in it
		}
		method := metrics.Method(r.Method)
		ctx, finishSentry := a.report.StartRequest(r.Context(), method, route)
		ctx, finish := a.trace.StartRequest(ctx, r.Header, method, route)
		if ctx != r.Context() {
			c.SetRequest(r.WithContext(ctx))
		}
		cut := true
		defer func() {
			status := metrics.Status(c)
			if cut {
				status = http.StatusInternalServerError // as in the metrics: its header said otherwise, but it did not get whole
			}
			finish(status)
			finishSentry(status)
		}()
		err := next(c)
		cut = false
		return err
	}
}

// untraced are the routes that never query and have nothing to show.
var untraced = map[string]bool{
	"/healthz": true, "/readyz": true, "/metrics": true, "/static/*": true, "/favicon.ico": true, metrics.Other: true,
}

func secure(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		h := c.Response().Header()
		h.Set(echo.HeaderContentSecurityPolicy, contentSecurityPolicy)
		h.Set(echo.HeaderXContentTypeOptions, "nosniff")
		h.Set(echo.HeaderReferrerPolicy, "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		return next(c)
	}
}

// answerErrors answers an error within the middlewares before it, so that its page has their headers.
func answerErrors(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if err := next(c); err != nil {
			c.Error(err)
		}
		return nil
	}
}

// recoverPanics makes a panic an error with its stack, except the one by which a response is cut.
func recoverPanics(next echo.HandlerFunc) echo.HandlerFunc {
	return middleware.RecoverWithConfig(middleware.RecoverConfig{
		DisableErrorHandler: true,
		DisableStackAll:     true, // those of all goroutines would stop every request meanwhile
		LogErrorFunc: func(_ echo.Context, err error, stack []byte) error {
			return report.WithStack(fmt.Errorf("panic: %v\n%s", err, stack)) //nolint:errorlint // whatever was thrown, it is a bug
		},
	})(next)
}

// sameOrigin refuses a form that another site sent in a visitor's name.
func sameOrigin() echo.MiddlewareFunc {
	protection := http.NewCrossOriginProtection()
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if err := protection.Check(c.Request()); err != nil {
				return fault.Wrap(fault.Forbidden, err, "This form came from another site. Open the page here and send it again.")
			}
			return next(c)
		}
	}
}

// scope gives the request its own use of the database, and takes back at its end what it still holds.
func (a *App) scope(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		ctx, end := a.db.Begin(c.Request().Context())
		defer end()
		c.SetRequest(c.Request().WithContext(ctx))
		if err := next(c); err != nil {
			return err
		}
		a.report.Healthy()
		return nil
	}
}
