package app

import (
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"ddtb/app/web"
	"ddtb/polls"
)

const (
	get  = http.MethodGet // HEAD as well
	post = http.MethodPost
)

// route is one address. Two slashes are two addresses; slash says that the other one redirects here.
type route struct {
	method, path string
	handler      echo.HandlerFunc
	without      within
}

// within takes a route out of what every other is in.
type within int

const (
	noScope within = 1 << iota // it never queries through the strategy
)

// table is every address there is.
func (a *App) table() []route {
	test := a.lab.Guard
	return []route{
		{get, "/", a.home, 0},
		{get, polls.ListRoute, a.polls.List, 0},
		{get, polls.DetailRoute, a.polls.Detail, 0},
		{get, polls.ResultsRoute, a.polls.Results, 0},
		{post, polls.VoteRoute, a.polls.Vote, 0},

		{get, "/test/", test(a.lab.Index), noScope},
		{get, "/test/pool-stress", test(a.lab.PoolStress), noScope},
		{get, "/test/pool-stress/", test(a.lab.PoolStress), noScope},
		{get, "/test/connection-leak", test(a.lab.ConnectionLeak), noScope},
		{get, "/test/connection-leak/", test(a.lab.ConnectionLeak), noScope},

		{get, "/healthz", a.healthz, noScope},
		{get, "/readyz", a.readyz, noScope},
		{get, "/static/*", web.Static(polls.Static, files), noScope},
		{get, "/favicon.ico", web.Favicon, noScope},
	}
}

// routes binds the table, and for each address that ends in a slash the one without, as Django's APPEND_SLASH
// does: it redirects, and only what can be asked again.
func (a *App) routes() *echo.Echo {
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.Logger.SetOutput(io.Discard) // everything is logged in one place, through slog
	e.HTTPErrorHandler = web.HandleErrors(a.log)
	e.IPExtractor = clientAddress(a.cfg.Server.TrustedProxies)
	e.Use(a.middleware()...)
	bound := map[string]bool{}
	for _, r := range a.table() {
		bound[r.path] = true
	}
	for _, r := range a.table() {
		h := r.handler
		if r.without&noScope == 0 {
			h = a.scope(h)
		}
		e.Add(r.method, r.path, h)
		if r.method != get {
			continue
		}
		e.HEAD(r.path, h)
		if short := strings.TrimSuffix(r.path, "/"); short != r.path && short != "" && !bound[short] {
			e.GET(short, addSlash)
			e.HEAD(short, addSlash)
		}
	}
	return e
}

func addSlash(c echo.Context) error {
	u := *c.Request().URL
	u.Path += "/"
	u.RawPath = ""
	return c.Redirect(http.StatusMovedPermanently, u.RequestURI())
}

// clientAddress believes X-Forwarded-For only from the proxies that are named; echo would believe anybody.
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
