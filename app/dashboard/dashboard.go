// Package dashboard is the page /admin/connections/: who has the server's slots and this process's leases, who waits,
// and what failed of late, live; and a control to switch the strategy while requests go on.
//
// It promises:
//   - It costs the server the same however many watch: one feed makes of each reading of the application's sampler
//     one event, in bytes, for all. Nobody is waited for: who is slow misses events, and who stops reading is cut.
//   - It works while every slot is taken. It looks over the monitoring connection, and so does the switch: it asks
//     there whether who switches still may, and writes the history there. A stream has no lease and no worker.
//   - A stream ends with the server, and when its viewer may no longer see it. While nobody can be asked that, it
//     goes on.
//   - Memory is bounded: a quarter of an hour of figures, 50 failures, 100 viewers, 20 of one user.
//   - Whatever comes from the database, an application's name say, reaches the page as text.
//
// The figures are put into words on the server, in picture.go and for the tables under the charts in point.go, for the
// page and the events alike: the page is a whole one without JavaScript, and with it only texts and cells are exchanged.
//
// It must not know polls, nor how the strategies work.
package dashboard

import (
	"context"
	"embed"
	"html/template"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"

	"ddtb/app/auth"
	"ddtb/app/metrics"
	"ddtb/app/web"
	"ddtb/config"
	"ddtb/db"
	"ddtb/db/activity"
)

// The addresses.
const (
	Path       = "/admin/connections/"
	streamPath = "/admin/connections/stream"
)

//go:embed static
var staticFS embed.FS

//go:embed all:templates
var templateFS embed.FS

// Files are the dashboard's static files, uPlot among them, for web.Static.
var Files = web.MustFiles("dashboard", staticFS)

var pages = web.MustTemplates(templateFS, template.FuncMap{"static": Files.URL})

// Options are what the dashboard looks at and works with.
type Options struct {
	DB      *db.DB
	Users   *auth.Service
	Server  *activity.Observer // the monitoring connection
	Look    *activity.Sampler
	Process func() activity.Process // how this process's own leases are
	Config  *config.Config
	Waits   func(strategy string) metrics.Waits // for a lease, that ended since the start
	Testing func() bool                         // whether the test endpoints are on

	Thresholds activity.Thresholds // as those of Look
	Log        *slog.Logger
	// Switch puts in force what edit makes of the settings of DB, or returns its error; none changes them meanwhile.
	Switch func(
		ctx context.Context, edit func(now config.Database) (config.Database, error),
	) (before, after config.Database, err error)
	// Each runs fn in a transaction while no connection can be had, or says Busy: to learn who comes, and who switches.
	LookReserve, SwitchReserve auth.Runner
	// Record writes an entry of the admin's history through q.
	Record func(ctx context.Context, q db.Querier, by *auth.User, object, message string) error
}

// Board is the dashboard of one process.
type Board struct {
	Options
	feed     *feed
	failures *failures
	viewers  viewers
	asking   chan struct{} // holds a token while one viewer's right is looked up
	askNext  time.Time     // no viewer's right is looked up before; for who has put the token in asking

	switching sync.Mutex                 // one switch at a time
	byHand    atomic.Pointer[handSwitch] // the last one
	ended     atomic.Pointer[ending]     // the last one
}

// New makes the dashboard, and begins to follow the sampler, until Close.
func New(o Options) *Board {
	failed := newFailures()
	return &Board{
		Options: o, failures: failed, asking: make(chan struct{}, 1),
		feed: startFeed(o, failed),
	}
}

// Close ends every stream, and waits for the feed. It may be called twice, and before the last request has ended: so
// that those who watch don't hold up the end of the server.
func (b *Board) Close() { b.feed.end() }

// Failed hears of a request that failed by no fault of who sent it. route is the pattern in the table of routes.
func (b *Board) Failed(route string, err error) { b.failures.add(time.Now(), route, err) }

// Route is one address of the dashboard.
type Route struct {
	Method, Path string
	Handler      echo.HandlerFunc
}

// Routes are the addresses. They need auth's Middleware above them, and no scope of the database: a page that is shown
// while every slot is taken is no sign that all is well, and a stream must not keep what a scope keeps.
func (b *Board) Routes() []Route {
	return []Route{
		{http.MethodGet, Path, b.show},
		{http.MethodPost, Path, b.change},
		{http.MethodGet, streamPath, b.stream},
		{http.MethodGet, sessionPath, b.askAboutSession},
		{http.MethodPost, sessionPath, b.endSession},
	}
}
