package lab

import (
	"embed"
	"errors"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"ddtb/app/fault"
	"ddtb/app/report"
	"ddtb/app/web"
	"ddtb/db"
)

//go:embed templates
var templateFS embed.FS

var pages = web.MustTemplates(templateFS, nil)

// Endpoint is a test endpoint. The index shows it, and Routes serves it.
type Endpoint struct {
	Path       string      `json:"path"`
	What       string      `json:"what"`
	Parameters []Parameter `json:"parameters"`
	Examples   []string    `json:"examples"`
	handler    echo.HandlerFunc
}

// Parameter is a parameter of an endpoint.
type Parameter struct {
	Name string `json:"name"`
	What string `json:"what"`
}

// strategies lists the registered strategies: "multiplex, per-request, persistent or pool".
func strategies() string {
	names := db.Names()
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}

// endpoints lists the test endpoints. A new one is its handler and an entry here.
func (l *Lab) endpoints() []Endpoint {
	return []Endpoint{
		{
			"/test/pool-stress", "Many holders ask for a connection at once, use it and hold it. Those that get none in time are errors. The peak is counted on the server.",
			[]Parameter{
				{"threads", "how many holders (15)"},
				{"hold", "how long each holds it (a little longer than the timeout)"},
				{"timeout", "how long each waits; at most, and by default, the strategy's own"},
				{"strategy", strategies() + ": run on a private instance, which does not affect the application"},
				{"max_size, min_size, max_waiting", "of the private instance"},
			},
			[]string{"/test/pool-stress", "/test/pool-stress?threads=15&strategy=pool&max_size=3&timeout=2s", "/test/pool-stress?threads=100&hold=1s&strategy=per-request"},
			l.poolStress,
		},
		{
			"/test/connection-leak", "Acquires connections and does not release them, like code without a deferred release. Shows the line of code that holds each.",
			[]Parameter{
				{"count", "how many to leak (3)"},
				{"reclaim", "when they are reclaimed (30s)"},
				{"timeout", "how long each attempt waits"},
			},
			[]string{"/test/connection-leak", "/test/connection-leak?count=10&reclaim=10s"},
			l.connectionLeak,
		},
		{
			"/test/sentry-db-interaction", "Captures events while it holds a connection, in a transaction, and after a failed query. Counts the connections that each capture takes: none, unless an event hook queries.",
			[]Parameter{
				{"hook", "none, or queries: the event hook asks for a connection too, and a small pool deadlocks. The answer and the log name both lines"},
				{"transport", "async, or sync: each capture waits for Sentry's answer, and holds its connection meanwhile"},
				{"delay", "how long Sentry takes to answer. With it, as without a configured Sentry, a stand-in in this process answers"},
				{"strategy", strategies() + ": run on a private instance, as hook=queries and transport=sync always do"},
				{"max_size, min_size, max_waiting", "of the private instance; max_size is at most 3"},
				{"timeout", "how long a capture waits for its connection; at most, and by default, the strategy's own"},
			},
			[]string{
				"/test/sentry-db-interaction", "/test/sentry-db-interaction?hook=queries&max_size=1&timeout=2s",
				"/test/sentry-db-interaction?hook=queries&max_size=2", "/test/sentry-db-interaction?transport=sync&delay=2s",
			},
			l.sentryInteraction,
		},
		{
			"/error/", "Fails like a bug: an error page with status 500, a line in the log, an event and a mail.",
			[]Parameter{},
			[]string{"/error/"},
			failOnPurpose,
		},
	}
}

var errOnPurpose = errors.New("/error/ was asked for, and fails on purpose")

func failOnPurpose(echo.Context) error { return report.WithStack(errOnPurpose) }

// Routes returns the handlers of the index and of the endpoints by path, all behind guard. An endpoint is served with
// and without a final slash.
func (l *Lab) Routes(guard echo.MiddlewareFunc) map[string]echo.HandlerFunc {
	routes := map[string]echo.HandlerFunc{"/test/": l.guard(guard(l.index)), "/test/*": l.guard(guard(noTest))}
	for _, e := range l.endpoints() {
		routes[e.Path] = l.guard(guard(progress(e.handler)))
		if !strings.HasSuffix(e.Path, "/") {
			routes[e.Path+"/"] = routes[e.Path]
		}
	}
	return routes
}

// index lists the test endpoints.
func (l *Lab) index(c echo.Context) error {
	cfg := l.db.Config()
	data := map[string]any{
		"strategy": cfg.Strategy, "settings": SettingsOf(cfg), "endpoints": l.endpoints(),
		"limits": map[string]any{"max_threads": l.limits.Load().MaxThreads, "max_hold": l.limits.Load().MaxHold.String()},
	}
	if !web.WantsHTML(c) {
		return c.JSONPretty(http.StatusOK, data, "  ")
	}
	return pages.Render(c, http.StatusOK, "index.html", data)
}

func noTest(echo.Context) error {
	return fault.New(fault.NotFound, "There is no such test. GET /test/ lists them, with their parameters.")
}

// nowKey is the parameter with which the page of progress requests the result.
const nowKey = "now"

// errProgress means that a test with these parameters may run, after the page of progress.
var errProgress = errors.New("show the page of progress first")

// progress shows a browser a page at once, unless the parameters have a mistake. The page requests the result after a
// second and stays until that arrives.
func progress(test echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if err := test(c); !errors.Is(err, errProgress) {
			return err
		}
		u := *c.Request().URL
		asked, q := u.RequestURI(), u.Query()
		q.Set(nowKey, "1")
		u.RawQuery = q.Encode()
		c.Response().Header().Set("Refresh", "1; url="+u.RequestURI())
		return pages.Render(c, http.StatusOK, "progress.html", asked)
	}
}
