package app_test

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"ddtb/config"
	"ddtb/db/dbtest"
)

const (
	htmlType = "text/html; charset=UTF-8"
	jsonType = "application/json"

	problemType = "application/problem+json"
	textType    = "text/plain; charset=UTF-8"
)

// addresses are what there is to GET, and a few that are not there. Those marked query use the database.
var addresses = []struct {
	path, accept string
	status       int
	contentType  string
	has          string // in the body, or in Location
	query        bool
}{
	{"/", "text/html", 200, htmlType, "<h1>", false},
	{"/", "", 200, jsonType, `"connection_info"`, false},
	{"/polls/", "", 200, htmlType, "How many connections should a pool have?", true},
	{"/polls/1/", "", 200, htmlType, `action="/polls/1/vote/"`, true},
	{"/polls/1/results/", "", 200, htmlType, "Vote again?", true},
	{"/polls/7/", "", 404, htmlType, "There is no poll", true}, // of the future
	{"/polls/99999/", "", 404, htmlType, "There is no poll", true},
	{"/polls/99999/", "application/json", 404, "application/problem+json", `"status":404`, true},

	{"/polls", "", 301, "", "/polls/", false},
	{"/polls/1", "", 301, "", "/polls/1/", false},
	{"/polls/1/results?a=1&b=%20x", "", 301, "", "/polls/1/results/?a=1&b=%20x", false},
	{"/polls?next=//other.example/", "", 301, "", "/polls/?next=//other.example/", false},
	{"/test", "", 301, "", "/test/", false},
	{"/admin", "", 301, "", "/admin/", false},
	{"/admin/polls", "", 301, "", "/admin/polls/", false},
	{"/admin/polls/question/%3F%0D%0A%C3%A9?q=a+b", "", 301, "", "/admin/polls/question/%3F%0D%0A%C3%A9/?q=a+b", false},

	{"/test/", "text/html", 200, htmlType, "/test/pool-stress", false},
	{"/test/", "", 200, jsonType, `"endpoints"`, false},
	{"/test/pool-stress?threads=0", "", 400, problemType, "threads", false},
	{"/test/pool-stress/?threads=0", "", 400, problemType, "threads", false},
	{"/test/connection-leak?count=0", "", 400, problemType, "count", false},
	{"/test/connection-leak/?count=0", "text/html", 400, htmlType, "count", false},
	{"/test/no-such-test", "", 404, problemType, "GET /test/ lists them", false},
	{"/test/connection-leak/?count=0", "", 400, problemType, "count", false},

	{"/test/sentry-db-interaction?hook=x", "", 400, problemType, "hook", false},
	{"/test/sentry-db-interaction/?hook=x", "", 400, problemType, "hook", false},
	{"/error", "", 301, "", "/error/", false},
	{"/error/", "", 500, htmlType, "Something went wrong on our side", false},

	{"/healthz", "", 200, textType, "ok", false},
	{"/readyz", "", 200, jsonType, `"ready":true`, false},
	{"/metrics", "", 200, "text/plain; version=0.0.4; charset=utf-8", "ddtb_build_info", false},
	{"/static/polls/style.css", "", 200, "text/css; charset=utf-8", "{", false},
	{"/static/web/ddtb.css", "", 200, "text/css; charset=utf-8", "{", false},
	{"/static/admin/admin.js", "", 200, "text/javascript; charset=utf-8", "", false},
	{"/static/nothing.css", "", 404, htmlType, "There is no such file", false},
	{"/favicon.ico", "", 200, "image/svg+xml", "<svg", false},

	{"/nothing", "", 404, htmlType, "There is no such page", false},
	{"/nothing", "application/json", 404, "application/problem+json", `"status":404`, false},
	{"/polls/12345678901234567890/", "", 404, htmlType, "no valid number", false},
	{"/polls/0/", "", 404, htmlType, "no valid number", false},
	{"/polls/-1/results/", "", 404, htmlType, "no valid number", false},
	{"/polls/one/", "", 404, htmlType, "no valid number", false},
	{"/polls/<script>alert(1)</script>/", "", 404, htmlType, "no such page", false},
	{"/%3Cscript%3Ealert(1)%3C/script%3E", "", 404, htmlType, "no such page", false},
	{"/test/pool-stress?threads=<script>alert(1)</script>", "text/html", 400, htmlType, "&lt;script&gt;", false},
	{"/test/pool-stress?<script>alert(1)</script>=1", "text/html", 400, htmlType, "&lt;script&gt;", false},
	{"/polls/1/vote/", "", 200, htmlType, "You didn&#39;t select a choice.", true},
	{"/polls/999/vote/", "", 404, htmlType, "", true},
	{"/polls/1/vote", "", 301, "", "/polls/1/vote/", false},
}

func TestPages(t *testing.T) {
	underEachStrategy(t, []promise{
		{"a request that needs no database takes no connection", takesNoConnection}, // first: no connection yet
		{"every address answers, and leaves no lease behind", everyAddressAnswers},
		{"every route of the table is there", everyRouteIsThere},
		{"a vote counts once, and only from this site", votesCount},
	})
}

func everyAddressAnswers(t *testing.T, s *site) {
	for _, a := range addresses {
		got := s.get(a.path, "Accept", a.accept)
		if got.StatusCode != a.status || got.header("Content-Type") != a.contentType ||
			!strings.Contains(got.body+got.header("Location"), a.has) {
			t.Errorf("GET %s: %s, %s, without %q:\n%s", a.path, got.Status, got.header("Content-Type"), a.has, got.body)
		}
		if a.status == http.StatusMovedPermanently && got.header("Location") != a.has {
			t.Errorf("GET %s leads to %s", a.path, got.header("Location"))
		}
		head := s.do(http.MethodHead, a.path, nil, "Accept", a.accept)
		if head.StatusCode != a.status || head.body != "" || head.header("Content-Type") != a.contentType {
			t.Errorf("HEAD %s: %s, %s", a.path, head.Status, head.header("Content-Type"))
		}
		s.mustBeIdle()
	}
}

// Those of the admin are followed up by its own tests; here a stranger asks for each.
func everyRouteIsThere(t *testing.T, s *site) {
	for _, r := range s.Addresses() {
		method, path := r[0], strings.NewReplacer(":id", "1", ":name", "thread-leak", "*", "polls/style.css").Replace(r[1])
		if strings.HasPrefix(path, "/test/") && path != "/test/" {
			path += "?threads=0&count=0"
		}
		a := s.do(method, path, nil)
		if path == "/error/" && a.StatusCode == 500 || method+path == "GET/admin/logout/" && a.header("Allow") == "POST" { // on purpose
			continue
		}
		if catchAll := strings.HasSuffix(r[1], "/admin/*") || r[1] == "/test/*"; a.StatusCode >= 500 || a.StatusCode == 405 || a.StatusCode == 404 && !catchAll {
			t.Errorf("%s %s: %s\n%s", method, r[1], a.Status, a.body)
		}
		s.mustBeIdle()
	}
}

func takesNoConnection(t *testing.T, s *site) {
	control := dbtest.Control(t, s.cfg.Databases["default"])
	for _, a := range addresses {
		if !a.query {
			s.get(a.path, "Accept", a.accept)
		}
	}
	if n := s.DB().Stat().Connects; n != 0 {
		t.Errorf("%d attempts to connect", n)
	}
	if n := s.backends(control); n != 0 {
		t.Errorf("%d backends", n)
	}
}

func TestAMethodThatAPageDoesNotTakeIs405WithThoseItTakes(t *testing.T) {
	s := newSite(t, nil)
	for _, r := range []struct{ method, path, allow string }{
		{"POST", "/", "GET"},
		{"POST", "/polls/", "GET"},
		{"PUT", "/polls/1/", "GET"},
		{"DELETE", "/polls/1/results/", "GET"},
		{"PATCH", "/polls/1/vote/", "POST"},
		{"POST", "/healthz", "GET"},
		{"POST", "/static/web/ddtb.css", "GET"},
		{"POST", "/test/pool-stress", "GET"},
		{"BREW", "/polls/", "GET"},
	} {
		if a := s.do(r.method, r.path, nil); a.StatusCode != 405 || !strings.Contains(a.header("Allow"), r.allow) {
			t.Errorf("%s %s: %s, Allow: %q", r.method, r.path, a.Status, a.header("Allow"))
		}
	}
}

func TestABodyOverItsLimitIs413(t *testing.T) {
	s := newSite(t, nil)
	tenMegabytes := bytes.Repeat([]byte("x"), 10<<20)
	a := s.do("POST", "/polls/1/vote/", bytes.NewReader(tenMegabytes), "Content-Type", urlencoded, "Expect", "100-continue")
	if a.StatusCode != 413 || !strings.Contains(a.body, "1 MB") {
		t.Errorf("told in advance: %s\n%s", a.Status, a.body)
	}
	chunked := io.MultiReader(strings.NewReader("choice="), bytes.NewReader(tenMegabytes[:1<<20+1<<10])) // of no known length
	a = s.do("POST", "/polls/1/vote/", chunked, "Content-Type", urlencoded)
	if a.StatusCode != 413 {
		t.Errorf("found out on the way: %s\n%s", a.Status, a.body)
	}
	s.mustBeIdle()
}

func votesCount(t *testing.T, s *site) {
	votes := func() (n int) {
		if err := dbtest.Control(t, s.cfg.Databases["default"]).QueryRow(t.Context(),
			"SELECT votes FROM polls_choice WHERE id = 1").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before, form := votes(), url.Values{"choice": {"1"}}
	for _, header := range [][]string{
		{"Origin", "http://other.example"},
		{"Origin", "null"},
		{"Sec-Fetch-Site", "cross-site"},
		{"Sec-Fetch-Site", "same-site"},
		{"Origin", "http://other.example", "Accept", "application/json"},
	} {
		a := s.post("/polls/1/vote/", form, header...)
		if a.StatusCode != 403 || !strings.Contains(a.body, "another site") {
			t.Errorf("%v: %s\n%s", header, a.Status, a.body)
		}
	}
	if now := votes(); now != before {
		t.Errorf("%d votes came from other sites", now-before)
	}
	for _, header := range [][]string{{"Origin", s.url}, {"Sec-Fetch-Site", "same-origin"}, {}} {
		a := s.post("/polls/1/vote/", form, header...)
		if a.StatusCode != 302 || a.header("Location") != "/polls/1/results/" {
			t.Errorf("%v: %s to %s", header, a.Status, a.header("Location"))
		}
	}
	if now := votes(); now != before+3 {
		t.Errorf("%d votes counted of 3", now-before)
	}
	a := s.post("/polls/1/vote/", nil)
	if a.StatusCode != 200 || !strings.Contains(a.body, "select a choice.") {
		t.Errorf("no choice: %s\n%s", a.Status, a.body)
	}
	if a := s.post("/polls/12345678901234567890/vote/", form); a.StatusCode != 404 {
		t.Errorf("an id beyond bigint: %s", a.Status)
	}
	s.mustBeIdle()
}

func TestAPageOfTestsIsNotOfferedWhereTheyAreOff(t *testing.T) {
	s := newSite(t, func(c *config.Config) { c.Test.Enabled = false })
	if a := s.get("/", "Accept", "text/html"); a.StatusCode != 200 || strings.Contains(a.body, `href="/test/`) {
		t.Errorf("%s\n%s", a.Status, a.body)
	}
	for _, path := range []string{"/test/", "/test/pool-stress", "/test/connection-leak/"} {
		if a := s.get(path); a.StatusCode != 404 || !strings.Contains(a.body, "enabled = true") {
			t.Errorf("%s: %s\n%s", path, a.Status, a.body)
		}
	}
}

func TestTheHeaderLinksToTheLabWhileItIsEnabled(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	for _, enabled := range []bool{true, false, true} {
		cfg := *s.cfg
		cfg.Test.Enabled = enabled
		if _, err := s.Reconfigure(t.Context(), &cfg); err != nil {
			t.Fatal(err)
		}
		page := s.get("/polls/", "Accept", "text/html").body
		for _, link := range []string{`href="/lab/"`, `href="/test/"`} {
			if strings.Contains(page, link) != enabled {
				t.Errorf("enabled = %v: the header links to %s: %v", enabled, link, !enabled)
			}
		}
	}
}
