// Package admin is the admin that Django's users know: lists, forms, deletion, history, users and groups, at the
// same addresses and with the same names of inputs and parameters.
//
// A table joins it by a declaration of some twenty lines in models.go; everything else is written once. It promises:
//   - What a page shows and what a request may do is decided by the permissions of who asks, on the server, each
//     time: for the row, its inlines, and bulk actions alike. What changes something asks the database who it is.
//   - SQL is made of constants, quoted identifiers from the declarations, and parameters.
//   - Nothing typed is lost: a mistake, a conflict and a missing connection all bring the form back filled in.
//   - Nothing is overwritten unseen: a form knows what it showed, and tells when that has changed since.
//   - A row, its inlines and the history are saved in one transaction. Each page waits for a lease at most twice.
//
// Where it is stricter than Django's: only a superuser touches a superuser or makes one; permissions, and groups,
// are given and taken only by who has those permissions; setting someone's password takes all permissions they have;
// nobody deletes the account they are signed in with; and what goes along with a deletion takes the permission to
// delete it.
//
// It must not know the package polls, only names of tables and columns.
package admin

import (
	"embed"
	"html/template"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"ddtb/app/auth"
	"ddtb/app/fault"
	"ddtb/app/web"
	"ddtb/db"
)

// root is where the admin is mounted.
const root = "/admin/"

//go:embed static
var staticFS embed.FS

//go:embed all:templates
var templateFS embed.FS

// Files are the admin's static files, for web.Static.
var Files = web.MustFiles("admin", staticFS)

var pages = web.MustTemplates(templateFS, template.FuncMap{"static": Files.URL, "path": (*Model).path})

// Site is the admin on one database.
type Site struct {
	// Tell hears of a missing connection that a form was brought back with, as web.HandleErrors' tell hears of
	// those it answers; nil: nobody does. Set it before the first request.
	Tell func(echo.Context, error)

	// Urgent is the page for staff that says why other pages can't be served at the moment; "", or nil: they can. Set it
	// before the first request.
	Urgent func() string

	db      *db.DB
	users   *auth.Service
	log     *slog.Logger
	links   []web.Link
	options knownOptions
	now     func() time.Time
}

// New makes the admin. The links are other pages for staff, which its index and header lead to.
func New(d *db.DB, users *auth.Service, log *slog.Logger, links ...web.Link) *Site {
	for _, m := range models {
		m.check()
	}
	return &Site{db: d, users: users, log: log, links: links, now: time.Now}
}

// Route is one address of the admin.
type Route struct {
	Method, Path string
	Handler      echo.HandlerFunc
}

// Routes are all addresses of the admin, for the application's table. They need auth's Middleware above them. The
// last, a catch-all below /admin/, comes after whatever else is mounted there.
func (s *Site) Routes() []Route {
	all := []Route{
		{http.MethodGet, root, s.page(s.index)},
		{http.MethodGet, root + "login/", s.open(s.loginForm)},
		{http.MethodPost, root + "login/", s.open(s.login)},
		{http.MethodPost, root + "logout/", s.open(s.logout)},
		{http.MethodGet, root + "logout/", s.open(logoutByGet)},
		{http.MethodGet, root + "password_change/", s.page(s.passwordForm)},
		{http.MethodPost, root + "password_change/", s.page(s.changePassword)},
		{http.MethodGet, root + "password_change/done/", s.page(s.passwordDone)},
		{http.MethodGet, user.path(":id", "password"), s.page(s.setPasswordForm)},
		{http.MethodPost, user.path(":id", "password"), s.page(s.setPassword)},
	}
	seen := map[*App]bool{}
	for _, m := range models {
		if !seen[m.App] {
			seen[m.App] = true
			all = append(all, Route{http.MethodGet, root + m.App.Name + "/", s.page(s.appIndex(m.App))})
		}
		all = append(all, s.modelRoutes(m)...)
	}
	return append(all,
		Route{http.MethodGet, strings.TrimSuffix(root, "/"), s.open(s.addSlash)},
		Route{http.MethodGet, root + "*", s.page(s.notFound)},
		Route{http.MethodPost, root + "*", s.page(s.notFound)})
}

func (s *Site) modelRoutes(m *Model) []Route {
	return []Route{
		{http.MethodGet, m.path(), s.model(m, actionView, s.changelist)},
		{http.MethodPost, m.path(), s.model(m, actionView, s.bulk)},
		{http.MethodGet, m.path("add"), s.model(m, actionAdd, s.addForm)},
		{http.MethodPost, m.path("add"), s.editing(m, actionAdd, s.add)},
		{http.MethodGet, m.path(":id"), s.model(m, actionView, s.toChange)},
		{http.MethodGet, m.path(":id", "change"), s.model(m, actionView, s.changeForm)},
		{http.MethodPost, m.path(":id", "change"), s.editing(m, actionChange, s.change)},
		{http.MethodGet, m.path(":id", "delete"), s.model(m, actionDelete, s.confirmDelete)},
		{http.MethodPost, m.path(":id", "delete"), s.model(m, actionDelete, s.delete)},
		{http.MethodGet, m.path(":id", "history"), s.model(m, actionView, s.history)},
	}
}

func (s *Site) addSlash(c echo.Context) error { return c.Redirect(http.StatusMovedPermanently, root) }

// notFound adds a forgotten slash, as Django does; where that leads nowhere either, the second answer is 404.
func (s *Site) notFound(r *request) error {
	u := *r.Request().URL
	if r.Request().Method == http.MethodGet && !strings.HasSuffix(u.Path, "/") && s.known(u.Path+"/") {
		u.Path, u.RawPath = u.Path+"/", ""
		return r.Redirect(http.StatusMovedPermanently, u.RequestURI())
	}
	return fault.New(fault.NotFound, "There is no such page in the admin.")
}

// known reports whether a path is that of a model or of a row of it.
func (s *Site) known(path string) bool {
	for _, m := range models {
		if strings.HasPrefix(path, m.path()) || path == root+m.App.Name+"/" {
			return true
		}
	}
	return path == root+"login/" || path == root+"password_change/"
}
