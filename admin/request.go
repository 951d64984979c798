package admin

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/labstack/echo/v4"

	"ddtb/app/auth"
	"ddtb/app/fault"
	"ddtb/app/web"
	"ddtb/db"
)

// request is a request by a signed-in staff member.
type request struct {
	echo.Context
	ctx   context.Context
	site  *Site
	user  *auth.User
	model *Model     // of model pages
	id    int64      // in the path; 0: none
	form  url.Values // of a POST
}

// policy allows only our own files: no inline script or style, no framing, no form sent elsewhere.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// handler answers a request.
type handler func(*request) error

// open wraps every page of the admin, for anonymous visitors too.
func (s *Site) open(next handler) echo.HandlerFunc {
	return func(c echo.Context) error {
		h := c.Response().Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Frame-Options", "DENY")
		h.Set("Cache-Control", "no-store") // after logout, Back must not show the pages again
		r := &request{Context: c, ctx: c.Request().Context(), site: s}
		if r.isPost() {
			if err := r.readForm(); err != nil {
				return err
			}
		}
		return next(r)
	}
}

func (s *Site) page(next handler) echo.HandlerFunc { return s.model(nil, "", next) }

// model wraps a page of a model, if any, that requires a permission. The permission to change includes viewing. Visitors
// who are not staff get the login, which leads back. A POST is checked in the database, not in the cache; if the database
// can't be reached, a form to save is returned filled in.
func (s *Site) model(m *Model, action string, next handler) echo.HandlerFunc {
	return s.open(func(r *request) error {
		r.model = m
		if err := r.identify(auth.UserFrom, action); err != nil {
			return err
		}
		exists := true
		if text := r.Param("id"); text != "" {
			r.id, exists = web.ParseID(text)
		}
		if r.isPost() && r.user != nil {
			err := r.identify(auth.Recheck, action)
			if saving := action == actionAdd || action == actionChange; saving && db.CauseOf(err) != "" {
				return r.unsaved(r.postedForm(r.id), err)
			}
			if err != nil {
				return err
			}
		}
		switch staff := r.user != nil && r.user.Staff; {
		case staff && m != nil && !exists:
			return r.gone()
		case staff:
			if err := next(r); !errors.Is(err, errGone) {
				return err
			}
			return r.gone()
		case r.isPost() && m != nil:
			return r.signedOut()
		}
		return r.toLogin()
	})
}

func (r *request) isPost() bool { return r.Request().Method == http.MethodPost }

// identify finds the user. It returns Forbidden for staff without the permission.
func (r *request) identify(find func(context.Context) (*auth.User, error), action string) error {
	user, err := find(r.ctx)
	if err != nil {
		return err
	}
	r.user = user
	return r.allowed(action)
}

// allowed refuses staff without the permission. It leaves other visitors to the login.
func (r *request) allowed(action string) error {
	if r.model == nil || r.user == nil || !r.user.Staff || r.can(r.model, action) {
		return nil
	}
	if r.model.ReadOnly && action != actionView {
		return fault.New(fault.Forbidden, "%s are only shown here: no one adds, changes or deletes them.", web.Capitalized(r.model.Plural))
	}
	return fault.New(fault.Forbidden,
		"You don’t have permission to %s %s. Ask a superuser for it.", action, r.model.Plural)
}

// can reports whether the user may do the action on rows of a model: on pages, in inlines and in bulk actions.
func (r *request) can(m *Model, action string) bool {
	switch {
	case action == actionView:
		return r.user.Can(m.permission(actionView)) || r.user.Can(m.permission(actionChange))
	case m.ReadOnly:
		return false
	}
	return r.user.Can(m.permission(action))
}

// allowedRows returns Forbidden if the model protects one of the rows from this user.
func (r *request) allowedRows(q db.Querier, action string, ids ...int64) error {
	for _, id := range ids {
		if r.model.protect == nil {
			return nil
		}
		if err := r.model.protect(r.ctx, q, r.user, action, id); err != nil {
			return err
		}
	}
	return nil
}

func (r *request) readForm() error {
	_, err := r.FormParams()
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return fault.New(fault.TooLarge, "The form is larger than %d KiB. Save it in smaller parts.", web.MaxBody>>10)
	}
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "The form could not be read.")
	}
	r.form = r.Request().PostForm
	return nil
}

// toLogin redirects to the login, which leads back to this page.
func (r *request) toLogin() error {
	next := r.Request().URL.RequestURI()
	if r.isPost() {
		next = root // a link can't resubmit a form
	}
	if r.user != nil {
		return r.showLogin(http.StatusOK, loginPage{Next: next, Other: r.user.Username})
	}
	return r.to(root + "login/?" + url.Values{"next": {next}}.Encode())
}

type signedOutPage struct {
	frame
	Fields   url.Values
	Password bool // a password was typed: it is not among the fields
}

// signedOut keeps a form whose session ended: the page submits it again after a login in another tab.
func (r *request) signedOut() error {
	p := signedOutPage{frame: frame{Title: "You are signed out"}, Fields: r.form}
	for name := range p.Fields {
		if web.IsSecret(name) {
			delete(p.Fields, name)
			p.Password = true
		}
	}
	return r.show(http.StatusForbidden, "signed_out.html", p)
}

func (r *request) to(path string) error { return r.Redirect(http.StatusFound, path) }

// frame is the layout of every staff page.
type frame struct {
	Title   string
	User    *auth.User
	Crumbs  []web.Link // the last one is this page, and has no Path
	Message *message   // or nil
}

func (r *request) frame(title string, crumbs ...web.Link) frame {
	crumbs = append([]web.Link{{Path: root, Text: "Home"}}, crumbs...)
	crumbs[len(crumbs)-1].Path = ""
	return frame{title, r.user, crumbs, r.takeMessage()}
}

// show renders a page after releasing the request's lease: rendering needs no database.
func (r *request) show(status int, page string, data any) error {
	r.site.DB.Release(r.ctx)
	return pages.Render(r.Context, status, page, data)
}

// crumbs returns the breadcrumbs to an object, or to a page below it.
func (r *request) crumbs(object *row, below string) []web.Link {
	crumbs := []web.Link{
		{Path: root + r.model.App.Name + "/", Text: r.model.App.Title},
		{Path: r.model.path(), Text: web.Capitalized(r.model.Plural)},
	}
	if object != nil {
		crumbs = append(crumbs, web.Link{Path: r.model.path(object.id, "change"), Text: cut(r.called(object.label), 40)})
	}
	if below != "" {
		crumbs = append(crumbs, web.Link{Text: below})
	}
	return crumbs
}

// called returns an object's name for a sentence, even if it is empty.
func (r *request) called(label string) string {
	return cmp.Or(strings.TrimSpace(label), r.model.Singular+" without a name")
}

// cut shortens s to n characters.
func cut(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

// errGone means that the page's row does not exist. Site.model answers it by calling request.gone.
var errGone = fault.New(fault.NotFound, "It was deleted meanwhile.")

// gone redirects to the index with the message that the object does not exist, as Django does.
func (r *request) gone() error {
	r.notify(message{
		Class: "warn", Before: web.Capitalized(r.model.Singular) + " with ID “", Object: cut(r.Param("id"), 41),
		After: "” doesn’t exist. Perhaps it was deleted?",
	})
	return r.to(root)
}

// A form carries the query of the changelist that it was opened from, so that a save returns to it.

// preserve returns the query of a link to a form, for a changelist with this query; "" if that is empty.
func preserve(list url.Values) string {
	if len(list) == 0 {
		return ""
	}
	return "?" + url.Values{"_changelist_filters": {list.Encode()}}.Encode()
}

// preservedFilters returns the changelist's query that came with the form. It was parsed, and will be encoded again, so
// that a redirect can't contain anything else.
func (r *request) preservedFilters() url.Values {
	q, err := url.ParseQuery(r.QueryParam("_changelist_filters"))
	if err != nil {
		return nil
	}
	return q
}

// preserved returns the query of links to other forms.
func (r *request) preserved() string { return preserve(r.preservedFilters()) }

// list returns the changelist to return to, or the index if the user may not view it.
func (r *request) list() string {
	if !r.can(r.model, actionView) {
		return root
	}
	return r.model.list(r.preservedFilters())
}

// list returns the address of the changelist with a query.
func (m *Model) list(query url.Values) string {
	if len(query) == 0 {
		return m.path()
	}
	return m.path() + "?" + query.Encode()
}
