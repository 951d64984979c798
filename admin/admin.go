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

//go:embed templates
var templateFS embed.FS

// Files are the admin's static files, for web.Static.
var Files = web.MustFiles("admin", staticFS)

var pages = web.MustTemplates(templateFS, template.FuncMap{"static": Files.URL, "path": (*Model).path})

// Site is the admin on one database.
type Site struct {
	db      *db.DB
	users   *auth.Service
	log     *slog.Logger
	links   []web.Link
	options knownOptions
	now     func() time.Time
	csrf    *http.CrossOriginProtection
}

// New makes the admin. The links are other pages for staff, which its index and header lead to.
func New(d *db.DB, users *auth.Service, log *slog.Logger, links ...web.Link) *Site {
	for _, m := range models {
		m.check()
	}
	return &Site{db: d, users: users, log: log, links: links, now: time.Now, csrf: http.NewCrossOriginProtection()}
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
	path := r.Request().URL.Path
	if r.Request().Method == http.MethodGet && !strings.HasSuffix(path, "/") && s.known(path+"/") {
		return r.Redirect(http.StatusMovedPermanently, "/"+strings.TrimLeft(path, "/")+"/")
	}
	return fault.New(fault.NotFound, "There is no such page in the admin.")
}

// known tells whether a path is that of a model or of a row of it.
func (s *Site) known(path string) bool {
	for _, m := range models {
		if strings.HasPrefix(path, m.path()) || path == root+m.App.Name+"/" {
			return true
		}
	}
	return path == root+"login/" || path == root+"password_change/"
}
