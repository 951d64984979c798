// Package dashboard is the live page /admin/connections/: the sessions that use the server's slots, this process's
// leases, waiting requests and recent failures, and a control to change the strategy while requests run.
//
// What callers can rely on:
//   - The load on the server does not depend on the number of viewers. One feed turns each reading of the application's
//     sampler into one event, encoded once for all. It never waits for a viewer: a slow one misses events, and one that
//     stops reading is disconnected.
//   - It works while every slot is taken. It reads over the monitoring connection. So does the switch, which checks the
//     user's permission and writes the history there. A stream holds no lease and no worker.
//   - A stream ends with the server, and when its viewer loses the permission. While the permission can't be checked,
//     the stream continues.
//   - Memory is bounded: a quarter of an hour of figures, 50 failures, 100 viewers, 20 per user.
//   - Data from the database, such as an application's name, reach the page as text.
//
// The server formats the figures, in view.go and, for the tables under the charts, in history.go. Page and events use
// the same text. The page is complete without JavaScript; the script only replaces texts and cells.
//
// The package does not depend on polls, or on how the strategies work.
package dashboard

import (
	"context"
	"embed"
	"html/template"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

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

// Files are the dashboard's static files for web.Static, including uPlot.
var Files = web.MustFiles("dashboard", staticFS)

var pages = web.MustTemplates(templateFS, template.FuncMap{
	"static": Files.URL, "clock": clock, "state": sessionState, "short": func(a activity.Age) string { return activity.Short(a.Duration()) },
})

// Options are the dashboard's dependencies.
type Options struct {
	DB      *db.DB
	Users   *auth.Service
	Monitor *activity.Observer // of the database server
	Sampler *activity.Sampler
	Process func() activity.Process // the state of this process's leases
	Config  *config.Config
	Waits   func(strategy string) metrics.Waits // the waits for a lease that have ended since the start
	Testing func() bool                         // whether the test endpoints are on

	Log      *slog.Logger
	Complete func(command string) string // completes a command, so that it reaches this server when it is pasted
	// Switch applies edit to DB's settings, or returns its error. The settings don't change during edit.
	Switch func(
		ctx context.Context, edit func(now config.Database) (config.Database, error),
	) (before, after config.Database, err error)
	// Each runs fn in a transaction while no other connection is available, or returns Busy. They identify the viewer,
	// and the superuser who changes something.
	ViewReserve, ChangeReserve auth.Runner
	// Record writes an entry to the admin's history through q.
	Record func(ctx context.Context, q db.Querier, by *auth.User, object, message string) error
}

// Board is the dashboard of one process.
type Board struct {
	Options
	feed     *feed
	failures *failures
	viewers  viewers
	asking   chan struct{} // holds a token while one viewer's permission is checked
	askNext  time.Time     // no viewer is checked again before; protected by the token in asking

	switching sync.Mutex // one switch at a time
	switched  atomic.Pointer[switched]
	ended     atomic.Pointer[action] // the last action on a session
}

// New makes the dashboard. It follows the sampler until Close.
func New(o Options) *Board {
	failed := newFailures()
	return &Board{
		Options: o, failures: failed, asking: make(chan struct{}, 1),
		feed: startFeed(o, failed),
	}
}

// Close ends every stream and waits for the feed. It may be called twice, and before the last request has ended, so
// that viewers don't delay the server's shutdown.
func (b *Board) Close() { b.feed.end() }

// Failed records a request that failed through no fault of the client. route is its pattern in the table of routes.
func (b *Board) Failed(route string, err error) { b.failures.add(time.Now(), route, err) }

// Routes returns the addresses. They require auth's Middleware, and no database scope: a page served while every slot
// is taken must not count as a sign of health, and a stream must not hold a scope's resources.
func (b *Board) Routes() []web.Route {
	return []web.Route{
		web.Get(Path, b.forStaff(b.show)),
		web.Post(Path, b.forSuperusers("switch the strategy", b.change)),
		web.Get(streamPath, b.stream),
		web.Get(sessionPath, b.forSuperusers("end a session", b.askAboutSession)),
		web.Post(sessionPath, b.forSuperusers("end a session", b.endSession)),
	}
}
