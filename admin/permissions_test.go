package admin_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// roles are staff with these permissions, and what they may do: the letters of view, add, change, delete, for
// questions (Q) and for the choices on their pages (C).
var roles = []struct {
	name        string
	permissions []string
}{
	{"nothing", nil},
	{"viewer", []string{"polls.view_question"}},
	{"viewer of both", []string{"polls.view_question", "polls.view_choice"}},
	{"adder", []string{"polls.add_question"}},
	{"adder of both", []string{"polls.add_question", "polls.add_choice"}},
	{"changer", []string{"polls.change_question"}},
	{"changer who adds choices", []string{"polls.change_question", "polls.add_choice"}},
	{"changer of both", []string{"polls.change_question", "polls.change_choice"}},
	{"changer who deletes choices", []string{"polls.change_question", "polls.view_choice", "polls.delete_choice"}},
	{"deleter", []string{"polls.view_question", "polls.delete_question"}},
	{"deleter of both", []string{"polls.view_question", "polls.delete_question", "polls.delete_choice"}},
	{"of choices alone", []string{"polls.view_choice", "polls.add_choice", "polls.change_choice", "polls.delete_choice"}},
	{"of users alone", []string{"auth.view_user", "auth.add_user", "auth.change_user", "auth.delete_user"}},
	{"everything", []string{
		"polls.view_question", "polls.add_question", "polls.change_question", "polls.delete_question",
		"polls.view_choice", "polls.add_choice", "polls.change_choice", "polls.delete_choice",
	}},
}

// TestPermissionsDecideEveryPageAndEveryAction is the table of role × page × action. What a role may do follows
// from its permissions by the rules written here once more, apart from the code; and what an answer claims is
// compared with what the database has afterwards.
func TestPermissionsDecideEveryPageAndEveryAction(t *testing.T) {
	s := newSite(t)
	for _, role := range roles {
		t.Run(role.name, func(t *testing.T) {
			name := strings.ReplaceAll(role.name, " ", "-")
			s.addStaff(name, role.permissions...)
			v := s.as(name)
			has := func(p string) bool { return slices.Contains(role.permissions, "polls."+p) }
			sees := has("view_question") || has("change_question")
			reset := func() (int64, string) {
				s.exec(`DELETE FROM polls_choice`)
				s.exec(`DELETE FROM polls_question`)
				id := s.addQuestion("Q", day("2026-01-01"), "A")
				return id, ask[string](s, `SELECT id::text FROM polls_choice`)
			}
			state := func() string {
				return ask[string](s, `SELECT coalesce(string_agg(question_text, ',' ORDER BY id), '') || '/' ||
					coalesce((SELECT string_agg(choice_text || votes, ',' ORDER BY id) FROM polls_choice), '') FROM polls_question`)
			}
			status := func(what string, p *page, may bool, ok int) {
				t.Helper()
				want := http.StatusForbidden
				if may {
					want = ok
				}
				if p.StatusCode != want {
					t.Errorf("%s: %d, want %d", what, p.StatusCode, want)
				}
			}
			is := func(what, want string) {
				t.Helper()
				if got := state(); got != want {
					t.Errorf("%s: the database has %s, want %s", what, got, want)
				}
			}
			either := func(c bool, a, b string) string {
				if c {
					return a
				}
				return b
			}

			id, child := reset()
			del := strings.Replace(change(id), "change", "delete", 1)
			status("list", v.get("/admin/polls/question/"), sees, 200)
			status("form", v.get(change(id)), sees, 200)
			status("history", v.get(strings.Replace(change(id), "change", "history", 1)), sees, 200)
			status("add form", v.get("/admin/polls/question/add/"), has("add_question"), 200)
			status("delete form", v.get(del), has("delete_question"), 200)
			if sees {
				list, form := v.get("/admin/polls/question/"), v.get(change(id))
				if got := list.Find(".addlink").Length() > 0; got != has("add_question") {
					t.Errorf("the list offers to add: %v", got)
				}
				if got := list.Find("#action").Length() > 0; got != has("delete_question") {
					t.Errorf("the list offers to delete: %v", got)
				}
				if got := form.Find("[name=_save]").Length() > 0; got != has("change_question") {
					t.Errorf("the form offers to save: %v", got)
				}
				if got := strings.Contains(form.text(), "Choices"); got != (has("view_choice") || has("change_choice") || has("add_choice")) {
					t.Errorf("the form shows choices: %v", got)
				}
			}
			index := v.get("/admin/")
			if got := index.Find(`.models a[href="/admin/polls/question/"]`).Length() > 0; got != sees {
				t.Errorf("the index leads to the list: %v", got)
			}
			status("app", v.get("/admin/polls/"), true, map[bool]int{true: 200, false: 404}[sees || has("add_question")])

			everything := url.Values{
				"question_text": {"Q2"}, "pub_date_0": {"2026-01-01"}, "pub_date_1": {"00:00:00"},
				"choice_set-TOTAL_FORMS": {"2"}, "choice_set-0-id": {child}, "choice_set-0-choice_text": {"A2"}, "choice_set-0-votes": {"9"},
				"choice_set-1-choice_text": {"B"}, "choice_set-1-votes": {"0"},
			}
			status("save", v.post(change(id), everything), has("change_question"), 302)
			is("save", either(has("change_question"), "Q2", "Q")+"/"+
				either(has("change_question") && has("change_choice"), "A29", "A0")+either(has("change_question") && has("add_choice"), ",B0", ""))

			id, child = reset()
			status("save with a deleted choice", v.post(change(id), url.Values{
				"question_text": {"Q"}, "pub_date_0": {"2026-01-01"}, "pub_date_1": {"00:00:00"},
				"choice_set-TOTAL_FORMS": {"1"}, "choice_set-0-id": {child}, "choice_set-0-DELETE": {"on"}, "choice_set-0-choice_text": {"A"}, "choice_set-0-votes": {"0"},
			}), has("change_question"), 302)
			is("save with a deleted choice", "Q/"+either(has("change_question") && has("delete_choice"), "", "A0"))

			reset()
			delete(everything, "choice_set-0-id")
			status("add", v.post("/admin/polls/question/add/", everything), has("add_question"), 302)
			is("add", "Q"+either(has("add_question"), ",Q2", "")+"/A0"+either(has("add_question") && has("add_choice"), ",A29,B0", ""))

			may := has("delete_question") && has("delete_choice")
			id, _ = reset()
			status("delete", v.post(strings.Replace(change(id), "change", "delete", 1), url.Values{"post": {"yes"}}), may, 302)
			is("delete", either(may, "/", "Q/A0"))
			id, _ = reset()
			bulk := url.Values{"action": {"delete_selected"}, "_selected_action": {fmt.Sprint(id)}}
			status("bulk confirmation", v.post("/admin/polls/question/", bulk), sees && has("delete_question"), 200)
			bulk.Set("post", "yes")
			status("bulk", v.post("/admin/polls/question/", bulk), sees && may, 302)
			is("bulk", either(sees && may, "/", "Q/A0"))
		})
	}
}

func TestWhoMayOnlyAddChoicesSeesNone(t *testing.T) {
	s := newSite(t)
	id := s.addQuestion("Q", day("2026-01-01"), "Not for Bob")
	child := ask[string](s, `SELECT id::text FROM polls_choice`)
	s.addStaff("bob", "polls.change_question", "polls.add_choice", "polls.delete_choice")
	form := s.as("bob").get(change(id)).want(http.StatusOK)
	again := form.send(questionForm, "pub_date_0", "x", "choice_set-0-id", child)
	s.exec(`UPDATE polls_question SET question_text = 'Q2'`)
	conflict := form.send(questionForm, "question_text", "Q3").want(http.StatusConflict)
	for what, p := range map[string]*page{"form": form, "form with a mistake": again, "conflict": conflict} {
		if strings.Contains(p.body, "Not for Bob") {
			t.Errorf("the %s shows the choice", what)
		}
	}
	conflict.send(questionForm, "choice_set-0-choice_text", "Bob’s", "choice_set-1-id", child, "choice_set-1-DELETE", "on").want(http.StatusFound)
	if got := ask[string](s, `SELECT string_agg(choice_text, ',' ORDER BY id) FROM polls_choice`); got != "Not for Bob,Bob’s" {
		t.Errorf("the choices are %s", got)
	}
}

func TestNothingIsServedToWhoIsNotSignedIn(t *testing.T) {
	s := newSite(t)
	id := s.addQuestion("Q", day("2026-01-01"), "A")
	s.addStaff("gone")
	gone := s.as("gone")
	s.exec(`UPDATE auth_user SET is_active = false WHERE username = 'gone'`)
	s.users.Forget()
	forged := s.visitor()
	for _, path := range pagesOf(s, id) {
		for who, v := range map[string]*visitor{"anonymous": s.visitor(), "deactivated": gone, "forged": forged} {
			p := v.do(http.MethodGet, path, nil, "Cookie", map[string]string{"forged": "ddtb_session=" + strings.Repeat("A", 43)}[who])
			if p.StatusCode != http.StatusFound || !strings.HasPrefix(p.Header.Get("Location"), "/admin/login/?next=%2Fadmin%2F") {
				t.Errorf("%s at %s: %d to %s", who, path, p.StatusCode, p.Header.Get("Location"))
			}
			p = v.post(path, url.Values{"post": {"yes"}, "question_text": {"x"}, "pub_date_0": {"2026-01-01"}, "pub_date_1": {"1:00"}})
			if p.StatusCode != http.StatusFound && p.StatusCode != http.StatusMethodNotAllowed && p.StatusCode != http.StatusForbidden {
				t.Errorf("%s posts to %s: %d", who, path, p.StatusCode)
			}
		}
	}
	if got := ask[string](s, `SELECT string_agg(question_text, ',') FROM polls_question`); got != "Q" {
		t.Errorf("the questions are %s", got)
	}
}

func TestARevokedRightChangesNothingEvenWhileItIsRemembered(t *testing.T) {
	s := newSite(t)
	id := s.addQuestion("Q", day("2026-01-01"))
	for how, revoke := range map[string]string{
		"a permission":      `DELETE FROM auth_user_user_permissions`,
		"the staff status":  `UPDATE auth_user SET is_staff = false WHERE username = 'bob'`,
		"the session":       `DELETE FROM ddtb_session WHERE user_id = (SELECT id FROM auth_user WHERE username = 'bob')`,
		"the whole account": `UPDATE auth_user SET is_active = false WHERE username = 'bob'`,
	} {
		s.exec(`DELETE FROM auth_user_user_permissions`)
		s.exec(`DELETE FROM auth_user WHERE username = 'bob'`)
		s.addStaff("bob", "polls.change_question")
		bob := s.as("bob")
		form := bob.get(change(id)).want(http.StatusOK)
		s.exec(revoke) // behind the application's back, as another process would
		if p := form.send(questionForm, "question_text", "by Bob"); p.StatusCode != http.StatusForbidden {
			t.Errorf("%s was revoked: %d", how, p.StatusCode)
		}
	}
	if got := ask[string](s, `SELECT question_text FROM polls_question`); got != "Q" {
		t.Errorf("saved %q", got)
	}
}

func TestAFormWithAMistakeShowsWhatTheUserCanNotChange(t *testing.T) {
	s := newSite(t)
	id := s.addQuestion("Q", day("2026-01-01"), "First", "Second")
	s.addStaff("bob", "polls.change_question", "polls.view_choice", "polls.delete_choice")
	p := s.as("bob").get(change(id)).send(questionForm, "question_text", "").want(http.StatusOK).says("This field is required.")
	shown := p.Find(".inline-row .readonly").Map(func(_ int, value *selection) string { return strings.TrimSpace(value.Text()) })
	if want := []string{"First", "0", "Second", "0"}; !slices.Equal(shown, want) {
		t.Errorf("the choices are %q, want %q", shown, want)
	}
}

func TestAProtectedRowIsRefusedBeforeItsMistakesAreNamed(t *testing.T) {
	s := newSite(t)
	s.addStaff("helper", "auth.change_user")
	s.as("helper").post(userPath(s, "ada", "change"), url.Values{"username": {""}}).want(http.StatusForbidden)
}
