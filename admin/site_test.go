package admin_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/PuerkitoBio/goquery"
	"github.com/labstack/echo/v4"

	"ddtb/admin"
	"ddtb/app/auth"
	"ddtb/app/fault"
	"ddtb/app/web"
	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

func TestMain(m *testing.M) { dbtest.Run(m) }

const password = "correct horse battery"

// site is the admin over HTTP on a database of its own, with the superuser "ada".
type site struct {
	*httptest.Server
	t      testing.TB
	db     *db.DB
	users  *auth.Service
	told   atomic.Int32  // failures that forms came back with
	begun  atomic.Int32  // requests
	within time.Duration // the deadline of a request; 0: none
}

func newSite(t testing.TB) *site {
	t.Helper()
	return newSiteOn(t, dbtest.Config(t))
}

func newSiteOn(t testing.TB, cfg config.Database) *site {
	t.Helper()
	d, err := db.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, db: d, users: auth.New(d, config.Admin{SessionAge: time.Hour}, nil)}
	s.Server = httptest.NewServer(s.echo())
	t.Cleanup(func() {
		s.Close()
		_ = d.Close(context.Background())
	})
	if _, err := s.users.CreateSuperuser(t.Context(), "ada", "ada@example.org", password, false); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *site) echo() *echo.Echo {
	e := echo.New()
	e.HTTPErrorHandler = answer
	e.Use(func(next echo.HandlerFunc) echo.HandlerFunc { // each request is a scope of the database
		return func(c echo.Context) error {
			ctx, end := s.db.Begin(c.Request().Context())
			defer end()
			if s.within > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, s.within)
				defer cancel()
			}
			s.begun.Add(1)
			c.SetRequest(c.Request().WithContext(ctx))
			return next(c)
		}
	}, web.NewGuard("").Middleware, s.users.Middleware)
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	a := admin.New(admin.Options{
		DB: s.db, Users: s.users, Log: log, Links: []web.Link{{Path: "/admin/connections/", Text: "Connections"}},
		Report: func(echo.Context, error) { s.told.Add(1) }, Urgent: func() string { return "" },
	})
	for _, r := range a.Routes() {
		e.Add(r.Method, r.Path, r.Handler)
	}
	e.GET("/static/*", web.Static(admin.Files))
	e.GET("/favicon.ico", web.Favicon)
	return e
}

// answer stands in for the application's error page: a status for each kind.
func answer(err error, c echo.Context) {
	status := http.StatusInternalServerError
	if he, ok := err.(*echo.HTTPError); ok { //nolint:errorlint // echo's own, unwrapped
		status = he.Code
	}
	switch fault.KindOf(err) {
	case fault.Invalid:
		status = http.StatusBadRequest
	case fault.Forbidden:
		status = http.StatusForbidden
	case fault.NotFound:
		status = http.StatusNotFound
	case fault.Conflict:
		status = http.StatusConflict
	case fault.TooLarge:
		status = http.StatusRequestEntityTooLarge
	case fault.TooManyTries:
		status = http.StatusTooManyRequests
	}
	if db.CauseOf(err) != "" {
		status = http.StatusServiceUnavailable
	}
	_ = c.String(status, err.Error())
}

func (s *site) exec(sql string, args ...any) {
	s.t.Helper()
	if _, err := s.db.Exec(s.t.Context(), sql, args...); err != nil {
		s.t.Fatal(err)
	}
}

// ask is the one value that a query finds.
func ask[T any](s *site, sql string, args ...any) (v T) {
	s.t.Helper()
	if err := s.db.QueryRow(s.t.Context(), sql, args...).Scan(&v); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// addQuestion makes a question with choices, and returns its id.
func (s *site) addQuestion(text string, published time.Time, choices ...string) (id int64) {
	s.t.Helper()
	id = ask[int64](s, `INSERT INTO polls_question (question_text, pub_date) VALUES ($1, $2) RETURNING id`, text, published)
	for _, c := range choices {
		s.exec(`INSERT INTO polls_choice (question_id, choice_text, votes) VALUES ($1, $2, 0)`, id, c)
	}
	return id
}

// addStaff makes a staff user with these permissions.
func (s *site) addStaff(name string, permissions ...string) {
	s.t.Helper()
	s.exec(`INSERT INTO auth_user (username, password, is_superuser, is_staff, is_active, first_name, last_name, email, date_joined)
		SELECT $1, password, false, true, true, '', '', '', now() FROM auth_user WHERE username = 'ada'`, name)
	s.exec(`INSERT INTO auth_user_user_permissions (user_id, permission_id)
		SELECT u.id, p.id FROM auth_user u, auth_permission p JOIN django_content_type ct ON ct.id = p.content_type_id
		WHERE u.username = $1 AND ct.app_label || '.' || p.codename = ANY($2)`, name, permissions)
}

// visitor is a browser without JavaScript: it keeps cookies, and follows no redirect by itself.
type visitor struct {
	*http.Client
	s *site
}

func (s *site) visitor() *visitor {
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return &visitor{&http.Client{
		Jar: jar, Timeout: 30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, s}
}

// as is a visitor who has signed in.
func (s *site) as(name string) *visitor {
	s.t.Helper()
	v := s.visitor()
	p := v.post("/admin/login/", url.Values{"username": {name}, "password": {password}, "next": {"/admin/"}})
	if p.StatusCode != http.StatusFound {
		s.t.Fatalf("login of %s: %d %s", name, p.StatusCode, p.text())
	}
	return v
}

// page is an answer with its document.
type page struct {
	*http.Response
	*goquery.Document
	body string
	v    *visitor
	at   string
}

func (v *visitor) do(method, path string, body io.Reader, header ...string) *page {
	v.s.t.Helper()
	req, err := http.NewRequestWithContext(v.s.t.Context(), method, v.s.URL+path, body)
	if err != nil {
		v.s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := v.Do(req)
	if err != nil {
		v.s.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		v.s.t.Fatal(err)
	}
	doc, err := goquery.NewDocumentFromReader(strings.NewReader(string(text)))
	if err != nil {
		v.s.t.Fatal(err)
	}
	return &page{res, doc, string(text), v, path}
}

func (v *visitor) get(path string) *page {
	v.s.t.Helper()
	return v.do(http.MethodGet, path, nil)
}

func (v *visitor) post(path string, form url.Values) *page {
	v.s.t.Helper()
	return v.do(http.MethodPost, path, strings.NewReader(form.Encode()),
		"Content-Type", "application/x-www-form-urlencoded", "Sec-Fetch-Site", "same-origin")
}

// follow goes where a redirect leads.
func (p *page) follow() *page {
	p.v.s.t.Helper()
	to := p.Header.Get("Location")
	if to == "" {
		p.v.s.t.Fatalf("%s: %d is no redirect: %s", p.at, p.StatusCode, p.text())
	}
	return p.v.get(to)
}

func (p *page) text() string { return strings.Join(strings.Fields(p.Document.Text()), " ") }

// want fails unless the status is this.
func (p *page) want(status int) *page {
	p.v.s.t.Helper()
	if p.StatusCode != status {
		p.v.s.t.Fatalf("%s: got %d, want %d: %.600s", p.at, p.StatusCode, status, p.text())
	}
	return p
}

// says fails unless the page has the text.
func (p *page) says(text string) *page {
	p.v.s.t.Helper()
	if !strings.Contains(p.text(), text) {
		p.v.s.t.Errorf("%s does not say %q: %.1500s", p.at, text, p.text())
	}
	return p
}

// fields are what a browser would send of the page's form, with no button pressed.
func (p *page) fields(form string) url.Values {
	p.v.s.t.Helper()
	f := p.Find(form)
	if f.Length() != 1 {
		p.v.s.t.Fatalf("%s has %d of the form %s: %.600s", p.at, f.Length(), form, p.text())
	}
	values := url.Values{}
	f.Find("input, select, textarea").Each(func(_ int, in *goquery.Selection) {
		name, kind := in.AttrOr("name", ""), in.AttrOr("type", "")
		_, checked := in.Attr("checked")
		_, disabled := in.Attr("disabled")
		switch {
		case name == "", disabled, kind == "submit", in.Closest("template").Length() > 0:
		case kind == "checkbox" || kind == "radio":
			if checked {
				values.Add(name, in.AttrOr("value", "on"))
			}
		default:
			values.Add(name, in.AttrOr("value", ""))
		}
	})
	return values
}

// send submits the page's form with changes: pairs of a name and a value; "+name" adds one to those of the name.
func (p *page) send(form string, changes ...string) *page {
	p.v.s.t.Helper()
	values := p.fields(form)
	for i := 0; i < len(changes); i += 2 {
		if name, more := strings.CutPrefix(changes[i], "+"); more {
			values.Add(name, changes[i+1])
			continue
		}
		values.Set(changes[i], changes[i+1])
	}
	action := p.Find(form).AttrOr("action", "")
	if action == "" {
		action = p.at
	}
	return p.v.post(action, values)
}

// column is the texts of one column of the changelist, from 0.
func (p *page) column(n int) []string {
	var texts []string
	p.Find("#result_list tbody tr").Each(func(_ int, row *goquery.Selection) {
		texts = append(texts, strings.TrimSpace(row.Find("th, td:not(.box)").Eq(n).Text()))
	})
	return texts
}

func change(id int64) string { return fmt.Sprintf("/admin/polls/question/%d/change/", id) }

// selection is short for what tests look at.
type selection = goquery.Selection

func day(s string) time.Time {
	t, err := time.Parse("2006-01-02", s)
	if err != nil {
		panic(err)
	}
	return t
}
