package admin

import (
	"cmp"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/labstack/echo/v4"

	"ddtb/app/auth"
	"ddtb/app/fault"
	"ddtb/app/web"
)

// Login and logout.

type loginPage struct {
	frame
	Next, Username, Problem string
	Other                   string // signed in, but not staff
	Ended                   bool   // was signed in until the password hash changed
}

// loginForm shows the login. A signed-in user is redirected.
func (s *Site) loginForm(r *request) error {
	next := safeNext(r.QueryParam("next"))
	u, err := auth.UserOnce(r.ctx)
	if err == nil && u != nil && u.Staff { // despite an error the form can be shown
		return r.to(s.landing(next))
	}
	ended := ""
	if err == nil && u == nil {
		ended = auth.Ended(r.ctx)
	}
	if ended != "" {
		s.Log.InfoContext(r.ctx, "a session ended: the user's password hash has changed since the login, by a new password, or "+
			"because another application encoded it anew, as Django does at a login", "username", ended, "client", r.RealIP())
	}
	return r.showLogin(http.StatusOK, loginPage{Next: next, Ended: ended != ""})
}

// login signs in. A failed login has status 200, as in Django, and does not say which part was wrong.
func (s *Site) login(r *request) error {
	p := loginPage{Next: safeNext(r.form.Get("next")), Username: r.form.Get("username")}
	err := s.Users.SignIn(r.Context, p.Username, r.form.Get("password"))
	problem, known := errors.AsType[*fault.Error](err)
	status := http.StatusOK
	switch {
	case err == nil:
		return r.to(s.landing(p.Next))
	case known && problem.Kind == fault.TooManyTries:
		status = http.StatusTooManyRequests
		web.SetRetryAfter(r.Context, problem.RetryAfter)
	case !errors.Is(err, auth.ErrWrongLogin):
		return err
	}
	r.logRefusal(err)
	p.Problem = problem.Public
	return r.showLogin(status, p)
}

func (r *request) logRefusal(err error) {
	username, reason := auth.RefusalReason(err)
	attrs := []any{"reason", reason, "client", r.RealIP(), "request_id", r.Response().Header().Get(echo.HeaderXRequestID)}
	if username != "" {
		attrs = append(attrs, "username", username)
	}
	r.site.Log.WarnContext(r.ctx, "a login was refused", attrs...)
}

// landing returns where a login leads. If no particular page was requested, and pages with queries can't be served, it
// is the page that explains why.
func (s *Site) landing(next string) string {
	if next != root {
		return next
	}
	return cmp.Or(s.Urgent(), root)
}

func (r *request) showLogin(status int, p loginPage) error {
	p.frame = frame{Title: "Log in"}
	return r.show(status, "login.html", p)
}

// safeNext returns the page after the login: always a path on this host.
func safeNext(next string) string {
	u, err := url.Parse(next)
	switch {
	case err != nil, !strings.HasPrefix(next, "/"), strings.HasPrefix(next, "//"), strings.HasPrefix(u.Path, "//"):
		return root
	case strings.ContainsAny(next, "\\\t\r\n"):
		return root // browsers read a backslash as a slash, and drop tabs and line breaks
	case strings.HasPrefix(u.Path, root+"login/"), strings.HasPrefix(u.Path, root+"logout/"):
		return root
	}
	return u.String()
}

func (s *Site) logout(r *request) error {
	if err := s.Users.SignOut(r.Context); err != nil {
		return err
	}
	return r.show(http.StatusOK, "logged_out.html", frame{Title: "Logged out"})
}

// logoutByGet refuses, as Django does since version 5: a link on any page could end the session.
func (s *Site) logoutByGet(r *request) error {
	r.Response().Header().Set(echo.HeaderAllow, http.MethodPost)
	return echo.ErrMethodNotAllowed
}
