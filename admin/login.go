package admin

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strings"

	"github.com/labstack/echo/v4"

	"ddtb/app/auth"
	"ddtb/app/fault"
	"ddtb/app/web"
)

type loginPage struct {
	frame
	Next, Username, Problem string
	Other                   string // signed in, but not staff
	Ended                   bool   // was signed in until the password hash changed
}

// loginForm shows the login. A signed-in user is redirected.
func (s *Site) loginForm(c echo.Context) error {
	next := safeNext(c.QueryParam("next"))
	u, err := auth.UserFrom(c.Request().Context())
	if err != nil {
		u = nil // the login page needs no query
	}
	if u != nil && u.Staff {
		return c.Redirect(http.StatusFound, s.landing(next))
	}
	return s.showLogin(c, http.StatusOK, loginPage{Next: next, Ended: s.sessionEnded(c)})
}

// sessionEnded reports whether the visitor's session ended because their password hash changed, and logs it.
func (s *Site) sessionEnded(c echo.Context) bool {
	ctx := c.Request().Context()
	username := auth.Ended(ctx)
	if username == "" {
		return false
	}
	s.log.InfoContext(ctx, "a session ended: the user's password hash has changed since the login, by a new password, or "+
		"because another application encoded it anew, as Django does at a login", "username", username, "client", c.RealIP())
	return true
}

// refused logs why a login was refused.
func (s *Site) refused(c echo.Context, err error) {
	username, reason := auth.RefusalReason(err)
	attrs := []any{"reason", reason, "client", c.RealIP(), "request_id", c.Response().Header().Get(echo.HeaderXRequestID)}
	if username != "" {
		attrs = append(attrs, "username", username)
	}
	s.log.WarnContext(c.Request().Context(), "a login was refused", attrs...)
}

// login signs in. A failed login has status 200, as in Django, and does not say which part was wrong.
func (s *Site) login(c echo.Context) error {
	r := &request{Context: c, ctx: c.Request().Context(), site: s}
	if err := r.readForm(); err != nil {
		return err
	}
	p := loginPage{Next: safeNext(r.form.Get("next")), Username: r.form.Get("username")}
	err := s.users.SignIn(c, p.Username, r.form.Get("password"))
	problem, known := errors.AsType[*fault.Error](err)
	switch {
	case err == nil:
		return c.Redirect(http.StatusFound, s.landing(p.Next))
	case errors.Is(err, auth.ErrWrongLogin):
		s.refused(c, err)
		p.Problem = problem.Public
		return s.showLogin(c, http.StatusOK, p)
	case known && problem.Kind == fault.TooManyTries:
		s.refused(c, err)
		slowedDown(c, err)
		p.Problem = problem.Public
		return s.showLogin(c, http.StatusTooManyRequests, p)
	}
	return err
}

// landing returns where a login leads. If no particular page was requested, and pages with queries can't be served, it
// is the page that explains why.
func (s *Site) landing(next string) string {
	if next == root && s.Urgent != nil {
		if path := s.Urgent(); path != "" {
			return path
		}
	}
	return next
}

// slowedDown sets Retry-After for the client.
func slowedDown(c echo.Context, err error) {
	seconds := 5.0
	if slow, ok := errors.AsType[*auth.SlowedError](err); ok {
		seconds = math.Ceil(slow.After.Seconds())
	}
	c.Response().Header().Set("Retry-After", fmt.Sprintf("%.0f", seconds))
}

func (s *Site) showLogin(c echo.Context, status int, p loginPage) error {
	p.frame = frame{Title: "Log in", Crumbs: []web.Link{{Text: "Log in"}}}
	s.db.Release(c.Request().Context())
	return pages.Render(c, status, "login.html", p)
}

// safeNext returns the page after the login: always a path on this host.
func safeNext(next string) string {
	u, err := url.Parse(next)
	switch {
	case err != nil, u.Scheme != "", u.Host != "", u.Opaque != "", u.User != nil:
		return root
	case !strings.HasPrefix(next, "/"), strings.HasPrefix(next, "//"), strings.ContainsAny(next, "\\\t\r\n"):
		return root // browsers read a backslash as a slash, and drop tabs and line breaks
	case strings.HasPrefix(u.Path, "//"):
		return root
	case strings.HasPrefix(u.Path, root+"login/"), strings.HasPrefix(u.Path, root+"logout/"):
		return root
	}
	return u.String()
}

// logout ends the session.
func (s *Site) logout(c echo.Context) error {
	if err := s.users.SignOut(c); err != nil {
		return err
	}
	s.db.Release(c.Request().Context())
	p := frame{Title: "Logged out", Crumbs: []web.Link{{Text: "Log out"}}}
	return pages.Render(c, http.StatusOK, "logged_out.html", p)
}

// logoutByGet refuses, as Django does since version 5: a link on any page could end the session.
func logoutByGet(c echo.Context) error {
	c.Response().Header().Set(echo.HeaderAllow, http.MethodPost)
	return echo.ErrMethodNotAllowed
}
