package admin_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/PuerkitoBio/goquery"
)

// hostile is what an attacker types: each must come back as the text that it is, or be refused.
var hostile = []string{
	`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `' onmouseover='alert(1)`, `</textarea><svg/onload=alert(1)>`,
	`javascript:alert(1)`, `{{.User}}`, `'; DROP TABLE polls_question; --`, `" OR ""="`, `1 OR 1=1`, `%27%20OR%201=1`, `\'; SELECT pg_sleep(9); --`,
	`$1`, `%s%n`, `%`, `_`, `\`, `$$`, "\u202eevil", "\U0001F4A5", "a\nb", strings.Repeat("x", 5000), "\x00", "\xff\xfe",
}

// harmless fails if a page carries a script of the attacker's, or an error of ours.
func harmless(t *testing.T, what string, p *page) {
	t.Helper()
	if p.StatusCode >= http.StatusInternalServerError {
		t.Errorf("%s: %d %.300s", what, p.StatusCode, p.text())
	}
	if n := p.Find("script:not([src]), img[onerror], svg, [onmouseover], [onload]").Length(); n != 0 {
		t.Errorf("%s: %d foreign elements", what, n)
	}
	p.Find("a[href]").Each(func(_ int, a *goquery.Selection) {
		if strings.HasPrefix(strings.ToLower(strings.TrimSpace(a.AttrOr("href", ""))), "javascript:") {
			t.Errorf("%s: a link to %s", what, a.AttrOr("href", ""))
		}
	})
}

func TestHostileTextIsTextInEveryField(t *testing.T) {
	s := newSite(t)
	v := s.as("ada")
	for _, text := range hostile {
		what := fmt.Sprintf("%.30q", text)
		p := v.get("/admin/polls/question/add/").send(questionForm, "question_text", text, "pub_date_0", "2026-01-01", "pub_date_1", "1:00",
			"choice_set-0-choice_text", text, "_continue", "x")
		harmless(t, "question "+what, p)
		if p.StatusCode == http.StatusFound {
			p = p.follow().want(http.StatusOK)
			harmless(t, "question saved "+what, p)
			if got := p.fields(questionForm).Get("question_text"); got != strings.TrimSpace(strings.ReplaceAll(text, "\n", " ")) {
				t.Errorf("%s came back as %q", what, got)
			}
			for _, page := range []string{"history", "delete"} {
				harmless(t, page+" "+what, v.get(strings.Replace(strings.Split(p.at, "?")[0], "change", page, 1)).want(http.StatusOK))
			}
		}
		for _, field := range []string{"pub_date_0", "pub_date_1", "choice_set-0-votes", "choice_set-0-id", "choice_set-TOTAL_FORMS", "initial-question_text", "_save"} {
			harmless(t, field+" "+what, v.get("/admin/polls/question/add/").send(questionForm, "question_text", "Q", "choice_set-0-choice_text", "C", field, text))
		}
		for _, field := range []string{"username", "password1"} {
			harmless(t, field+" "+what, v.get("/admin/auth/user/add/").send(userForm, "username", "u", field, text))
		}
		for _, field := range []string{"first_name", "email", "groups", "user_permissions", "is_active", "username"} {
			harmless(t, field+" "+what, v.get(userPath(s, "ada", "change")).send(userForm, field, text, "username", "ada"))
		}
		harmless(t, "group "+what, v.get("/admin/auth/group/add/").send("#group_form", "name", text))
		anonymous := s.visitor()
		harmless(t, "login "+what, anonymous.post("/admin/login/", url.Values{"username": {text}, "password": {text}, "next": {text}}))
		harmless(t, "bulk "+what, v.post("/admin/polls/question/", url.Values{"action": {text}, "_selected_action": {text}}))
		harmless(t, "bulk ids "+what, v.post("/admin/polls/question/", url.Values{"action": {"delete_selected"}, "_selected_action": {text}}))
	}
	for _, list := range []string{"/admin/", "/admin/polls/question/?all=1", "/admin/auth/user/", "/admin/auth/group/", "/admin/admin/logentry/?all=1"} {
		harmless(t, list, v.get(list).want(http.StatusOK))
	}
}

func TestHostileParametersAreHarmlessOnEveryList(t *testing.T) {
	s := newSite(t)
	s.addQuestion("Q", day("2026-01-01"))
	v := s.as("ada")
	names := []string{
		"q", "o", "p", "all", "e", "_changelist_filters", "pub_date__gte", "pub_date__lt", "pub_date__year", "pub_date__month", "pub_date__day",
		"pub_date__exact", "is_staff__exact", "groups__id__exact", "action_flag__exact", "user_id__id__exact", "password__startswith", "id", "x); --",
		"content_type_id__id__exact", "action_time__gte", `"><script>`,
	}
	for _, list := range []string{"/admin/polls/question/", "/admin/auth/user/", "/admin/auth/group/", "/admin/admin/logentry/"} {
		for _, name := range names {
			for _, text := range append(hostile, "99999999999999999999", "-9223372036854775808", "-1", "0", "1.1.1.1.1", "9999-12-31", "0001-01-01", "2026-13-01") {
				began := time.Now()
				p := v.get(list + "?" + url.Values{name: {text}}.Encode())
				if p.StatusCode == http.StatusFound { // it is not understood
					p = p.follow()
				}
				p.want(http.StatusOK)
				harmless(t, fmt.Sprintf("%s?%s=%.30q", list, name, text), p)
				if time.Since(began) > 8*time.Second {
					t.Errorf("%s?%s=%.30q slept", list, name, text)
				}
			}
		}
	}
	if n := ask[int](s, `SELECT count(*) FROM polls_question`); n != 1 {
		t.Errorf("%d questions", n)
	}
}

func TestAPasswordHashIsNeverSearchedOrFilteredBy(t *testing.T) {
	s := newSite(t)
	v := s.as("ada")
	v.get("/admin/auth/user/?q=argon2").want(http.StatusOK).says("No users match.")
	for _, query := range []string{"password__startswith=argon2", "password__exact=x", "password=x", "user__password__contains=x"} {
		v.get("/admin/auth/user/?" + query).want(http.StatusFound).follow().want(http.StatusOK).says("does not understand")
	}
}

func TestAMessageCanNotBeForged(t *testing.T) {
	s := newSite(t)
	v := s.as("ada")
	p := v.do(http.MethodGet, "/admin/", nil, "Cookie", "ddtb_messages=eyJCZWZvcmUiOiJGb3JnZWQifQ.AAAA")
	if strings.Contains(p.text(), "Forged") {
		t.Error("a forged message is told")
	}
}

func TestTheLongestNameFitsTheMessageAboutIt(t *testing.T) {
	s := newSite(t)
	v := s.as("ada")
	for _, c := range []string{"<", "\"", "ü", "漢", "😀", "\u2028"} {
		text := strings.Repeat(c, 198)
		saved := v.post("/admin/polls/question/add/?_changelist_filters="+strings.Repeat("q", 200), url.Values{
			"question_text": {"x" + text + "x"}, "pub_date_0": {"2026-01-01"}, "pub_date_1": {"1:00"},
		}).want(http.StatusFound)
		for _, cookie := range saved.Header.Values("Set-Cookie") {
			if len(cookie) > 4000 {
				t.Errorf("with %q the cookie has %d bytes", c, len(cookie))
			}
		}
		saved.follow().follow().says("was added successfully.")
	}
}

func TestABodyBeyondTheLimitIsRefused(t *testing.T) {
	s := newSite(t)
	v := s.as("ada")
	v.post("/admin/polls/question/add/", url.Values{"question_text": {strings.Repeat("x", 2<<20)}}).want(http.StatusRequestEntityTooLarge)
	s.visitor().post("/admin/login/", url.Values{"username": {strings.Repeat("x", 2<<20)}}).want(http.StatusRequestEntityTooLarge)
	v.get("/admin/polls/question/add/").send(questionForm, "question_text", "Q", "pub_date_0", "2026-01-01", "pub_date_1", "1:00",
		"choice_set-TOTAL_FORMS", "1001").want(http.StatusOK).says("At most 1000 choices")
}

func TestAFormWhoseRowsAreNotCountedIsNotSaved(t *testing.T) {
	v := newSite(t).as("ada")
	v.get("/admin/polls/question/add/").send(questionForm, "question_text", "Q", "choice_set-0-choice_text", "typed",
		"choice_set-TOTAL_FORMS", "").want(http.StatusOK).says("At most 1000 choices")
}
