package admin_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

func TestAnonymousGoesToTheLoginAndBack(t *testing.T) {
	s := newSite(t)
	id := s.addQuestion("Q", day("2026-01-01"))
	v := s.visitor()
	form := v.get(change(id) + "?x=1").want(http.StatusFound).follow().want(http.StatusOK)
	if form.Find("#login-form").Length() != 1 {
		t.Fatal("no login form")
	}
	wrong := form.send("#login-form", "username", "ada", "password", "wrong").want(http.StatusOK)
	wrong.says("Please enter the correct username and password for a staff account.")
	if f := wrong.fields("#login-form"); f.Get("username") != "ada" || f.Get("password") != "" || f.Get("next") != change(id)+"?x=1" {
		t.Errorf("the form has %v", f)
	}
	in := wrong.send("#login-form", "password", password).want(http.StatusFound)
	if in.Header.Get("Location") != change(id)+"?x=1" {
		t.Errorf("leads to %s", in.Header.Get("Location"))
	}
	in.follow().want(http.StatusOK)
	v.get("/admin/login/").want(http.StatusFound)
	for _, path := range []string{"/admin/nothing/", "/admin/nothing", "/admin/polls/question/1/nothing/", "/admin//evil.example"} {
		v.get(path).want(http.StatusNotFound)
	}
}

func TestNextNeverLeavesTheHost(t *testing.T) {
	s := newSite(t)
	for next, want := range map[string]string{
		"/admin/polls/question/?q=a+b": "/admin/polls/question/?q=a+b", "/polls/": "/polls/", "": "/admin/",
		"//evil.example/": "/admin/", "https://evil.example/": "/admin/", "/\\evil.example": "/admin/", "\\\\evil.example": "/admin/",
		"javascript:alert(1)": "/admin/", "/\t/evil.example": "/admin/", "/\n/evil.example": "/admin/", " //evil.example": "/admin/",
		"///evil.example": "/admin/", "http:evil.example": "/admin/", "evil.example": "/admin/", "/%2F/evil.example": "/admin/",
		"/admin/logout/": "/admin/", "/admin/login/?next=/": "/admin/", "%zz": "/admin/", "/\x00": "/admin/", "?a": "/admin/",
	} {
		p := s.visitor().post("/admin/login/", url.Values{"username": {"ada"}, "password": {password}, "next": {next}}).want(http.StatusFound)
		if got := p.Header.Get("Location"); got != want {
			t.Errorf("%q leads to %q", next, got)
		}
	}
}

func TestTheSessionsCookieIsOutOfReachAndNewAtEachLogin(t *testing.T) {
	s := newSite(t)
	v := s.visitor()
	cookie := func() *http.Cookie {
		p := v.post("/admin/login/", url.Values{"username": {"ada"}, "password": {password}})
		for _, c := range p.Cookies() {
			if c.Name == "ddtb_session" {
				return c
			}
		}
		t.Fatal("no cookie")
		return nil
	}
	first, second := cookie(), cookie()
	if !first.HttpOnly || first.SameSite != http.SameSiteLaxMode || first.Secure || first.Path != "/" || first.Value == second.Value {
		t.Errorf("got %v, then %v", first, second)
	}
	old := s.visitor()
	if p := old.do(http.MethodGet, "/admin/", nil, "Cookie", "ddtb_session="+first.Value); p.StatusCode != http.StatusFound {
		t.Error("the old session lives")
	}
	in := url.Values{"username": {"ada"}, "password": {password}}.Encode()
	for name, value := range map[string]string{
		"X-Forwarded-Proto": "https", "x-forwarded-proto": "https, http", "X-Forwarded-Ssl": "on",
	} {
		p := s.visitor().do(http.MethodPost, "/admin/login/", strings.NewReader(in),
			"Content-Type", "application/x-www-form-urlencoded", name, value)
		secret, settings, _ := strings.Cut(p.Header.Get("Set-Cookie"), ";")
		if !strings.HasPrefix(secret, "__Host-ddtb_session=") || !strings.Contains(settings, "Secure") {
			t.Errorf("with %s: %s the cookie is %q", name, value, secret+settings)
		}
		s.visitor().do(http.MethodGet, "/admin/", nil, name, value, "Cookie", secret).want(http.StatusOK)
		s.visitor().do(http.MethodGet, "/admin/", nil, name, value, "Cookie", strings.TrimPrefix(secret, "__Host-")).want(http.StatusFound)
	}
}

func TestLogoutIsByPOSTAndEndsTheSession(t *testing.T) {
	s := newSite(t)
	v := s.as("ada")
	if p := v.get("/admin/logout/"); p.StatusCode == http.StatusOK || v.get("/admin/").StatusCode != http.StatusOK {
		t.Error("GET signed out")
	}
	index := v.get("/admin/")
	index.send(".userbar form").want(http.StatusOK).says("Logged out")
	v.get("/admin/").want(http.StatusFound)
	if n := ask[int](s, `SELECT count(*) FROM ddtb_session`); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

func TestRepeatedFailuresAreSlowedDown(t *testing.T) {
	s := newSite(t)
	v := s.visitor()
	for range 5 {
		v.post("/admin/login/", url.Values{"username": {"ada"}, "password": {"wrong"}}).want(http.StatusOK)
	}
	p := v.post("/admin/login/", url.Values{"username": {"ada"}, "password": {password}}).want(http.StatusTooManyRequests)
	p.says("Too many failed logins. Try again in 1 second.")
	if p.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	if p.fields("#login-form").Get("username") != "ada" {
		t.Error("the name is lost")
	}
}

func TestAFormFromAnotherSiteIsRefused(t *testing.T) {
	s := newSite(t)
	id := s.addQuestion("Q", day("2026-01-01"))
	v := s.as("ada")
	for _, path := range []string{"/admin/login/", "/admin/logout/", change(id), "/admin/polls/question/", "/admin/password_change/"} {
		for _, header := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Origin", "https://evil.example"}, {"Sec-Fetch-Site", "same-site"}} {
			p := v.do(http.MethodPost, path, strings.NewReader("post=yes&question_text=x"), append(header, "Content-Type", "application/x-www-form-urlencoded")...)
			if p.StatusCode != http.StatusForbidden {
				t.Errorf("%s %v: %d", path, header, p.StatusCode)
			}
		}
	}
	v.get("/admin/").want(http.StatusOK)
}

func TestEveryPageForbidsInlineScriptAndStyleAndHasNone(t *testing.T) {
	s := newSite(t)
	id := s.addQuestion("Q", day("2026-01-01"), "A")
	v := s.as("ada")
	for _, path := range pagesOf(s, id) {
		p := v.get(path).want(http.StatusOK)
		policy := p.Header.Get("Content-Security-Policy")
		if !strings.Contains(policy, "script-src 'self'") || strings.Contains(policy, "unsafe") || p.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %q", path, policy)
		}
		if n := p.Find("script:not([src]), style, [style], [onclick], [onsubmit], [onload]").Length(); n != 0 {
			t.Errorf("%s has %d inline scripts or styles", path, n)
		}
	}
}

// pagesOf is a page of each kind.
func pagesOf(s *site, question int64) []string {
	return []string{
		"/admin/", "/admin/polls/", "/admin/polls/question/", "/admin/polls/question/?q=none", "/admin/polls/question/add/", change(question),
		strings.Replace(change(question), "change", "delete", 1), strings.Replace(change(question), "change", "history", 1),
		"/admin/auth/user/", "/admin/auth/user/add/", userPath(s, "ada", "change"), userPath(s, "ada", "password"), userPath(s, "ada", "delete"),
		"/admin/auth/group/", "/admin/auth/group/add/", "/admin/admin/logentry/", "/admin/password_change/", "/admin/password_change/done/",
	}
}

func TestOnesOwnPasswordIsChangedAndOtherSessionsEnd(t *testing.T) {
	s := newSite(t)
	v, elsewhere := s.as("ada"), s.as("ada")
	form := v.get("/admin/password_change/").want(http.StatusOK)
	send := func(old, one, two string) *page {
		return form.send("main form", "old_password", old, "new_password1", one, "new_password2", two)
	}
	send("wrong", "another long password", "another long password").want(http.StatusOK).says("Your old password was entered incorrectly.")
	send(password, "one", "two").want(http.StatusOK).says("didn’t match")
	send(password, "12345678", "12345678").want(http.StatusOK).says("too common")
	elsewhere.get("/admin/").want(http.StatusOK)
	send(password, "another long password", "another long password").want(http.StatusFound).follow().want(http.StatusOK).says("Your password was changed.")
	v.get("/admin/").want(http.StatusOK)
	elsewhere.get("/admin/").want(http.StatusFound)
}

func TestAUserWhoIsNotStaffIsAskedForAnotherAccount(t *testing.T) {
	s := newSite(t)
	s.addStaff("bob")
	v := s.as("bob")
	s.exec(`UPDATE auth_user SET is_staff = false WHERE username = 'bob'`)
	s.users.Forget()
	v.get("/admin/").want(http.StatusOK).says("You are authenticated as bob, but are not authorized to access this page.")
	v.post("/admin/password_change/", nil).want(http.StatusOK).says("not authorized")
}

func TestUnderExhaustionStaffAreKnownAndFormsComeBackFilledIn(t *testing.T) {
	cfg := dbtest.Config(t)
	cfg.Pool.MaxSize, cfg.Pool.Timeout, cfg.Pool.MaxWaiting = 1, time.Second, 10
	s := newSiteOn(t, cfg)
	id := s.addQuestion("Old", day("2026-01-01"), "A")
	v := s.as("ada")
	form, user := v.get(change(id)), v.get(userPath(s, "ada", "change"))
	add := v.get("/admin/polls/question/add/")
	l, err := s.db.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	v.get("/admin/password_change/").want(http.StatusOK) // needs no query
	v.get("/admin/polls/question/add/").want(http.StatusOK)
	v.get("/admin/polls/question/").want(http.StatusServiceUnavailable)
	back := form.send(questionForm, "question_text", "Typed", "choice_set-0-choice_text", "A typed", "choice_set-1-choice_text", "B").want(http.StatusServiceUnavailable)
	back.says("This is not saved.").says("were busy for")
	if back.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	if f := back.fields(questionForm); f.Get("question_text") != "Typed" || f.Get("choice_set-0-choice_text") != "A typed" || f.Get("choice_set-1-choice_text") != "B" {
		t.Errorf("the form has %v", f)
	}
	added := add.send(questionForm, "question_text", "New", "pub_date_0", "2026-01-01", "pub_date_1", "1:00").want(http.StatusServiceUnavailable)
	userBack := user.send(userForm, "first_name", "Ada", "user_permissions", permissionIDKnown).want(http.StatusServiceUnavailable)
	l.Release()
	for _, name := range []string{"password", "last_login", "date_joined"} {
		if got := userBack.Find(".field-" + name + " .readonly").Text(); !strings.HasPrefix(got, "can’t be read at this moment") {
			t.Errorf("%s, which could not be read, is shown as %q", name, got)
		}
	}
	for _, name := range []string{"groups", "user_permissions"} {
		if got := userBack.Find(".field-" + name + " .options").Text(); !strings.Contains(got, "What you chose is kept") {
			t.Errorf("%s, which were sent, are shown as %q", name, got)
		}
	}
	if n := s.told.Load(); n != 3 {
		t.Errorf("%d failures were told", n)
	}
	back.send(questionForm).want(http.StatusFound)
	added.send(questionForm).want(http.StatusFound)
	userBack.send(userForm).want(http.StatusFound)
	if got := ask[string](s, `SELECT string_agg(question_text, ',' ORDER BY id) || (SELECT string_agg(choice_text, ',' ORDER BY id) FROM polls_choice) FROM polls_question`); got != "Typed,NewA typed,B" {
		t.Errorf("saved %s", got)
	}
	if n := ask[int](s, `SELECT count(*) FROM auth_user_user_permissions`); n != 1 {
		t.Errorf("%d permissions", n)
	}
}

const permissionIDKnown = "1"

func TestWhatWasChosenIsKeptWhereTheChoicesAreNotKnown(t *testing.T) {
	cfg := dbtest.Config(t)
	cfg.Pool.MaxSize, cfg.Pool.Timeout = 1, time.Second
	s := newSiteOn(t, cfg)
	v := s.as("ada")
	v.get("/admin/")
	l, err := s.db.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	back := v.post("/admin/auth/group/add/", url.Values{"name": {"G"}, "permissions": {permissionIDKnown}}).want(http.StatusServiceUnavailable)
	if back.Find(".errorlist").Length() > 0 {
		t.Errorf("what was chosen is said to be wrong: %s", back.Find(".errorlist").Text())
	}
	user := v.post("/admin/auth/user/add/", url.Values{"username": {"bob"}, "password1": {"secret words"}, "password2": {"secret words"}})
	user.want(http.StatusServiceUnavailable).says("but for the password")
	if strings.Contains(user.body, "secret words") {
		t.Error("the page keeps a password")
	}
	l.Release()
	back.send("#group_form").want(http.StatusFound)
	if n := ask[int](s, `SELECT count(*) FROM auth_group_permissions`); n != 1 {
		t.Errorf("%d permissions", n)
	}
}

// strategies are what the admin must work under, each with so few connections that a nested acquire would hang.
func strategies(t *testing.T, run func(*testing.T, config.Database)) {
	for name, set := range map[string]func(*config.Database){
		"pool, held for a query":   func(c *config.Database) { c.Pool.Hold = db.HoldQuery },
		"pool, held for a request": func(c *config.Database) { c.Pool.Hold = db.HoldRequest },
		"persistent":               func(c *config.Database) { c.Strategy, c.Persistent.Workers = db.Persistent, 1 },
		"multiplex":                func(c *config.Database) { c.Strategy, c.Multiplex.Connections = db.Multiplex, 1 },
		"per-request":              func(c *config.Database) { c.Strategy, c.PerRequest.MaxSize = db.PerRequest, 1 },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := dbtest.Config(t)
			cfg.Pool.MaxSize, cfg.Pool.MinSize, cfg.Pool.Timeout = 1, 0, 2*time.Second
			cfg.PerRequest.Timeout = 2 * time.Second
			set(&cfg)
			run(t, cfg)
		})
	}
}

func TestTheAdminWorksUnderEachStrategyWithOneConnection(t *testing.T) {
	strategies(t, func(t *testing.T, cfg config.Database) {
		s := newSiteOn(t, cfg)
		id := s.addQuestion("Q", day("2026-01-01"), "A")
		v := s.as("ada")
		for _, path := range pagesOf(s, id) {
			v.get(path).want(http.StatusOK)
		}
		form := v.get(change(id))
		form.send(questionForm, "question_text", "", "_continue", "x").want(http.StatusOK)
		form.send(questionForm, "question_text", "Q2", "choice_set-1-choice_text", "B", "_continue", "x").want(http.StatusFound).follow().want(http.StatusOK)
		form.send(questionForm, "question_text", "Q3").want(http.StatusConflict).send(questionForm).want(http.StatusFound)
		v.get("/admin/auth/user/add/").send(userForm, "username", "bob", "password1", password, "password2", password).want(http.StatusFound)
		v.get(userPath(s, "bob", "password")).send("main form", "password1", "another long password", "password2", "another long password").want(http.StatusFound)
		v.get("/admin/password_change/").send("main form", "old_password", password, "new_password1", "a third password", "new_password2", "a third password").want(http.StatusFound)
		v.get(strings.Replace(change(id), "change", "delete", 1)).send("main form").want(http.StatusFound)
		v.get("/admin/").send(".userbar form").want(http.StatusOK)
	})
}

func TestWhatWasTypedOutlivesTheSession(t *testing.T) {
	s := newSite(t)
	id := s.addQuestion("Q", day("2026-01-01"), "A")
	v := s.as("ada")
	form := v.get(change(id))
	s.exec(`DELETE FROM ddtb_session`)
	kept := form.send(questionForm, "question_text", "<Typed>").want(http.StatusForbidden).says("You are signed out")
	v.post("/admin/login/", url.Values{"username": {"ada"}, "password": {password}}).want(http.StatusFound)
	kept.send("main form").want(http.StatusFound)
	if got := ask[string](s, `SELECT question_text FROM polls_question`); got != "<Typed>" {
		t.Errorf("saved %q", got)
	}
	add := s.visitor().post("/admin/auth/user/add/", url.Values{"username": {"x"}, "password1": {"secret words"}}).want(http.StatusForbidden)
	add.says("but for the password")
	if strings.Contains(add.body, "secret words") {
		t.Error("the page keeps a password")
	}
}
