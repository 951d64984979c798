// Package admin reproduces Django's admin: lists, forms, deletion, history, users and groups, at the same addresses and
// with the same names of inputs and parameters.
//
// A table is added with a declaration of about twenty lines in models.go. What callers can rely on:
//   - The server checks the user's permissions for each page and request: for the row, its inlines, and bulk actions
//     alike. A change checks the user in the database.
//   - SQL consists of constants, quoted identifiers from the declarations, and parameters.
//   - No input is lost: after a mistake, a conflict or a missing connection the form returns filled in.
//   - No change is overwritten unseen: a form carries the values that it showed, and reports those that have changed.
//   - A row, its inlines and the history are saved in one transaction. Besides the lookups of the user, a change waits for
//     a lease at most twice. A page that only reads may need a lease for each of its queries.
//
// It is stricter than Django's admin in these points. Only a superuser can change or create a superuser. Granting or
// revoking a permission, or a group, requires having its permissions. Setting a user's password requires all
// permissions of that user. Users can't delete their own account. A deletion requires permission to delete the rows
// that go with it.
//
// The package does not depend on the package polls, only on names of tables and columns.
package admin

import (
	"embed"
	"html/template"
	"log/slog"

	"github.com/labstack/echo/v4"

	"ddtb/app/auth"
	"ddtb/app/fault"
	"ddtb/app/web"
	"ddtb/db"
)

// root is the admin's path.
const root = "/admin/"

//go:embed static
var staticFS embed.FS

//go:embed all:templates
var templateFS embed.FS

// Files are the admin's static files, for web.Static.
var Files = web.MustFiles("admin", staticFS)

var pages = web.MustTemplates(templateFS, template.FuncMap{"static": Files.URL, "path": (*Model).path, "title": web.Capitalized})

// Options are what the admin needs. All are required, except Links.
type Options struct {
	DB    *db.DB
	Users *auth.Service
	Log   *slog.Logger
	Links []web.Link // to other staff pages, in the index

	// Report is called with a connection failure for which a form was returned. web.HandleErrors reports the others.
	Report func(echo.Context, error)

	// Urgent returns the staff page that explains why other pages can't be served at the moment; "" if they can.
	Urgent func() string
}

// Site is the admin on one database.
type Site struct{ Options }

// New makes the admin.
func New(o Options) *Site { return &Site{o} }

// Routes returns all addresses of the admin for the application's table, which redirects to the final slash. They require
// auth's Middleware. The last one, a catch-all below /admin/, must come after all other routes there.
func (s *Site) Routes() []web.Route {
	all := []web.Route{
		web.Get(root, s.page(s.index)),
		web.Get(root+"login/", s.open(s.loginForm)),
		web.Post(root+"login/", s.open(s.login)),
		web.Post(root+"logout/", s.open(s.logout)),
		web.Get(root+"logout/", s.open(s.logoutByGet)),
		web.Get(root+"password_change/", s.page(s.passwordForm)),
		web.Post(root+"password_change/", s.page(s.changePassword)),
		web.Get(root+"password_change/done/", s.page(s.passwordDone)),
		web.Get(user.path(":id", "password"), s.page(s.setPasswordForm)),
		web.Post(user.path(":id", "password"), s.page(s.setPassword)),
	}
	seen := map[*App]bool{}
	for _, m := range models {
		if !seen[m.App] {
			seen[m.App] = true
			all = append(all, web.Get(root+m.App.Name+"/", s.page(s.appIndex(m.App))))
		}
		all = append(all, s.modelRoutes(m)...)
	}
	return append(all,
		web.Get(root+"*", s.page(s.notFound)),
		web.Post(root+"*", s.page(s.notFound)))
}

func (s *Site) modelRoutes(m *Model) []web.Route {
	return []web.Route{
		web.Get(m.path(), s.model(m, actionView, s.changelist)),
		web.Post(m.path(), s.model(m, actionView, s.bulk)),
		web.Get(m.path("add"), s.model(m, actionAdd, s.addForm)),
		web.Post(m.path("add"), s.model(m, actionAdd, s.saveForm)),
		web.Get(m.path(":id"), s.model(m, actionView, s.toChange)),
		web.Get(m.path(":id", "change"), s.model(m, actionView, s.changeForm)),
		web.Post(m.path(":id", "change"), s.model(m, actionChange, s.saveForm)),
		web.Get(m.path(":id", "delete"), s.model(m, actionDelete, s.confirmDelete)),
		web.Post(m.path(":id", "delete"), s.model(m, actionDelete, s.delete)),
		web.Get(m.path(":id", "history"), s.model(m, actionView, s.history)),
	}
}

func (s *Site) notFound(*request) error {
	return fault.New(fault.NotFound, "There is no such page in the admin.")
}
