package app

import (
	"io"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"

	"ddtb/admin"
	"ddtb/app/dashboard"
	labsite "ddtb/app/lab/site"
	"ddtb/app/metrics"
	"ddtb/app/web"
	"ddtb/polls"
)

const get = http.MethodGet

// route is one address. A GET route also answers HEAD. An address that ends in a slash is also reached without it.
type route struct {
	method, path string
	handler      echo.HandlerFunc
	kind         kind
}

// kind is what a route needs.
type kind int

const (
	page   kind = iota // queries, in its own scope of the database
	staff              // also checks the user
	direct             // never queries through the strategy
	live               // checks the user, without a scope: long-lived, or must work without a connection
)

// table lists every address.
func (a *App) table() []route {
	table := []route{
		{get, "/", a.home, direct},
		{get, "/healthz", a.healthz, direct},
		{get, "/readyz", a.readyz, direct},
		{get, "/metrics", a.count.Handler(a.log), direct},
		{get, "/static/*", web.Static(polls.Static, admin.Files, dashboard.Files, labsite.Files, files), direct},
		{get, "/favicon.ico", web.Favicon, direct},
	}
	for path, h := range a.lab.Routes(a.guard.OwnHost) {
		table = append(table, route{get, path, h, direct})
	}
	for _, r := range a.polls.Routes() {
		table = append(table, route{r.Method, r.Path, r.Handler, page})
	}
	for _, r := range slices.Concat(a.scenes.Routes(), a.board.Routes()) {
		table = append(table, route{r.Method, r.Path, r.Handler, live})
	}
	for _, r := range a.admin.Routes() {
		table = append(table, route{r.Method, r.Path, r.Handler, staff})
	}
	return table
}

// routes builds the router from the table.
func (a *App) routes() *echo.Echo {
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.Logger.SetOutput(io.Discard) // slog logs everything
	e.HTTPErrorHandler = web.HandleErrors(a.log, a.failed)
	e.IPExtractor = clientAddress(a.cfg.Server.TrustedProxies)
	a.site().On(e)
	e.Use(a.front)
	table := a.table()
	bound := map[string]bool{}
	for _, r := range table {
		bound[r.path] = true
		a.bind(e, r)
	}
	for _, r := range table {
		short := strings.TrimSuffix(r.path, "/")
		if r.method == get && short != "" && !bound[short] {
			a.bind(e, route{get, short, addSlash, direct})
		}
	}
	return e
}

func (a *App) bind(e *echo.Echo, r route) {
	h := r.handler
	if strings.HasPrefix(r.path, "/test/") {
		h = web.ForCurl(h)
	}
	if r.kind == staff || r.kind == live {
		h = a.users.Middleware(h)
	}
	if r.kind == page || r.kind == staff {
		h = a.scope(h)
	}
	e.Add(r.method, r.path, h)
	if r.method == get {
		e.HEAD(r.path, h)
	}
	a.patterns[r.path] = true
}

// pattern returns the route of a request, for labels and span names. A request that was not found has none: echo
// reports the nearest route, or nothing.
func (a *App) pattern(c echo.Context) string {
	if p := c.Path(); a.patterns[p] {
		return p
	}
	return metrics.Other
}

// addSlash redirects as Django's APPEND_SLASH does, only for requests that are safe to repeat.
func addSlash(c echo.Context) error {
	u := *c.Request().URL
	u.Path += "/"
	u.RawPath = ""
	return c.Redirect(http.StatusMovedPermanently, "/"+strings.TrimLeft(u.RequestURI(), "/"))
}

// clientAddress trusts X-Forwarded-For only from the configured proxies; echo's default trusts any.
func clientAddress(trusted []string) echo.IPExtractor {
	if len(trusted) == 0 {
		return echo.ExtractIPDirect()
	}
	options := []echo.TrustOption{echo.TrustLoopback(false), echo.TrustLinkLocal(false), echo.TrustPrivateNet(false)}
	for _, t := range trusted {
		if _, network, err := net.ParseCIDR(t); err == nil {
			options = append(options, echo.TrustIPRange(network))
		} else if ip := net.ParseIP(t); ip != nil {
			bits := 8 * len(ip.To16())
			options = append(options, echo.TrustIPRange(&net.IPNet{IP: ip.To16(), Mask: net.CIDRMask(bits, bits)}))
		}
	}
	return echo.ExtractIPFromXFFHeader(options...)
}
