package admin_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/PuerkitoBio/goquery"

	"ddtb/db"
	"ddtb/db/dbtest"
)

const userForm = "#user_form"

func userPath(s *site, name, page string) string {
	s.t.Helper()
	return fmt.Sprintf("/admin/auth/user/%d/%s/", ask[int64](s, `SELECT id FROM auth_user WHERE username = $1`, name), page)
}

// permissionID is the value of a permission's checkbox.
func permissionID(s *site, codename string) string {
	s.t.Helper()
	return ask[string](s, `SELECT id::text FROM auth_permission WHERE codename = $1`, codename)
}

func TestAUserIsCreatedInTwoSteps(t *testing.T) {
	s := newSite(t)
	v := s.as("ada")
	add := v.get("/admin/auth/user/add/").want(http.StatusOK).says("First, enter a username and password")
	for _, c := range []struct{ name, one, two, says string }{
		{"bob", "12345678", "12345678", "too common"},
		{"bob", "short", "short", "too short"},
		{"robertson", "robertson1", "robertson1", "too similar to the username"},
		{"bob", password, password + "x", "didn’t match"},
		{"bob", "", "", "Enter the same password twice."},
		{"bob smith", password, password, "Enter a valid username."},
		{"", password, password, "This field is required."},
		{"ada", password, password, "A user with that username already exists."},
	} {
		p := add.send(userForm, "username", c.name, "password1", c.one, "password2", c.two).want(http.StatusOK).says(c.says)
		if p.fields(userForm).Get("username") != c.name {
			t.Errorf("the name %q is lost", c.name)
		}
		if strings.Contains(p.body, password) {
			t.Error("the page shows the password")
		}
	}
	edit := add.send(userForm, "username", "bob", "password1", password, "password2", password, "_save", "x").want(http.StatusFound).follow().want(http.StatusOK)
	edit.says("The user “bob” was added successfully. You may edit it again below.").says("algorithm: argon2")
	if strings.Contains(edit.body, "$argon2id$") {
		t.Error("the page shows the hash")
	}
	edit.send(userForm, "first_name", "Bob", "email", "bob@EXAMPLE.org", "is_staff", "on", "user_permissions", permissionID(s, "view_question")).want(http.StatusFound)
	if got := ask[string](s, `SELECT email FROM auth_user WHERE username = 'bob'`); got != "bob@example.org" {
		t.Errorf("email %s", got)
	}
	bob := s.as("bob")
	bob.get("/admin/").want(http.StatusOK).says("Welcome, Bob").says("Questions")
	bob.get("/admin/polls/question/").want(http.StatusOK)
	v.get(userPath(s, "bob", "history")).says("Changed First name, Email address, Staff status and User permissions.")
}

func TestAGroupsPermissionsReachItsMembersAtOnce(t *testing.T) {
	s := newSite(t)
	s.addStaff("bob")
	ada, bob := s.as("ada"), s.as("bob")
	bob.get("/admin/").want(http.StatusOK).says("You don’t have permission to view or edit anything.")
	bob.get("/admin/polls/question/").want(http.StatusForbidden)
	form := ada.get("/admin/auth/group/add/").want(http.StatusOK)
	form.send("#group_form", "name", "Editors", "permissions", permissionID(s, "change_question")).want(http.StatusFound)
	form.send("#group_form", "name", "Editors").want(http.StatusOK).says("Group with this Name already exists.")
	id := ask[string](s, `SELECT id::text FROM auth_group`)
	ada.get(userPath(s, "bob", "change")).send(userForm, "groups", id).want(http.StatusFound)
	bob.get("/admin/polls/question/").want(http.StatusOK)
	list := ada.get("/admin/auth/user/?groups__id__exact=" + id)
	if got := list.column(0); len(got) != 1 || got[0] != "bob" {
		t.Errorf("members: %v", got)
	}
	ada.get("/admin/auth/group/" + id + "/delete/").want(http.StatusOK).send("main form").want(http.StatusFound)
	bob.get("/admin/polls/question/").want(http.StatusForbidden)
}

func TestASetPasswordEndsTheUsersSessions(t *testing.T) {
	s := newSite(t)
	s.addStaff("bob")
	ada, bob := s.as("ada"), s.as("bob")
	form := ada.get(userPath(s, "bob", "password")).want(http.StatusOK).says("Change password: bob")
	form.send("main form", "password1", "12345678", "password2", "12345678").want(http.StatusOK).says("too common")
	form.send("main form", "password1", "another long password", "password2", "another long password").want(http.StatusFound).
		follow().says("Password changed successfully for “bob”")
	bob.get("/admin/").want(http.StatusFound)
	ada.get(userPath(s, "bob", "history")).says("Changed password.")
}

func TestWhoEditsUsersCanNotBecomeMoreThanTheyAre(t *testing.T) {
	s := newSite(t)
	s.addStaff("helper", "auth.view_user", "auth.add_user", "auth.change_user", "auth.delete_user", "auth.change_group", "auth.add_group", "auth.delete_group",
		"auth.view_group", "polls.view_question", "admin.delete_logentry")
	s.addStaff("editor", "polls.delete_question")
	s.addStaff("plain", "polls.view_question")
	s.exec(`INSERT INTO auth_group (name) VALUES ('Deleters')`)
	s.exec(`INSERT INTO auth_group_permissions (group_id, permission_id) SELECT g.id, p.id FROM auth_group g, auth_permission p WHERE codename = 'delete_question'`)
	group := ask[string](s, `SELECT id::text FROM auth_group`)
	v := s.as("helper")
	own := v.get(userPath(s, "helper", "change")).want(http.StatusOK)
	own.send(userForm, "is_superuser", "on", "+groups", group, "+user_permissions", permissionID(s, "delete_question")).want(http.StatusFound)
	if got := ask[bool](s, `SELECT is_superuser OR EXISTS (SELECT FROM auth_user_groups g WHERE g.user_id = u.id) OR EXISTS
		(SELECT FROM auth_user_user_permissions p JOIN auth_permission a ON a.id = p.permission_id WHERE p.user_id = u.id AND codename = 'delete_question')
		FROM auth_user u WHERE username = 'helper'`); got {
		t.Error("the helper is more than before")
	}
	v.get("/admin/auth/group/"+group+"/change/").send("#group_form", "name", "Renamed", "permissions", permissionID(s, "add_question")).want(http.StatusFound)
	if got := ask[string](s, `SELECT string_agg(codename, ',') FROM auth_group_permissions JOIN auth_permission p ON p.id = permission_id`); got != "delete_question" {
		t.Errorf("the group has %s", got)
	}
	target := v.get(userPath(s, "ada", "change")).want(http.StatusOK)
	if n := target.Find(`main input:not([type="hidden"]):not([disabled])`).Length(); n != 0 {
		t.Errorf("a superuser's form has %d inputs", n)
	}
	for what, p := range map[string]*page{
		"change":                   v.post(userPath(s, "ada", "change"), map[string][]string{"username": {"ada2"}}),
		"delete":                   v.post(userPath(s, "ada", "delete"), map[string][]string{"post": {"yes"}}),
		"bulk":                     v.post("/admin/auth/user/", map[string][]string{"action": {"delete_selected"}, "post": {"yes"}, "_selected_action": {ask[string](s, `SELECT id::text FROM auth_user WHERE username = 'ada'`)}}),
		"password":                 v.post(userPath(s, "ada", "password"), map[string][]string{"password1": {"another long password"}, "password2": {"another long password"}}),
		"password of who may more": v.post(userPath(s, "editor", "password"), map[string][]string{"password1": {"another long password"}, "password2": {"another long password"}}),
		"a group of who may more":  v.post("/admin/auth/group/"+group+"/delete/", map[string][]string{"post": {"yes"}}),
		"such groups in bulk":      v.post("/admin/auth/group/", map[string][]string{"action": {"delete_selected"}, "post": {"yes"}, "_selected_action": {group}}),
		"form for the password":    v.get(userPath(s, "ada", "password")),
	} {
		if p.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %d", what, p.StatusCode)
		}
	}
	if ask[string](s, `SELECT username FROM auth_user WHERE is_superuser`) != "ada" {
		t.Error("ada was changed")
	}
	s.as("ada") // with the old password
	v.post(userPath(s, "plain", "password"), map[string][]string{"password1": {"another long password"}, "password2": {"another long password"}}).want(http.StatusFound)
	v.get(userPath(s, "plain", "delete")).want(http.StatusOK).send("main form").want(http.StatusFound)
}

func TestLockedPermissionsStayWhenOthersAreEdited(t *testing.T) {
	s := newSite(t)
	s.addStaff("helper", "auth.change_user", "polls.view_question", "polls.view_choice")
	s.addStaff("bob", "polls.delete_question", "polls.view_question")
	form := s.as("helper").get(userPath(s, "bob", "change")).want(http.StatusOK)
	form.Find(`input[name="user_permissions"]`).Each(func(_ int, in *goquery.Selection) {
		_, disabled := in.Attr("disabled")
		id := in.AttrOr("value", "")
		mine := id == permissionID(s, "change_user") || id == permissionID(s, "view_question") || id == permissionID(s, "view_choice")
		if disabled == mine {
			t.Errorf("permission %s: disabled %v", id, disabled)
		}
	})
	form.send(userForm, "user_permissions", permissionID(s, "view_choice")).want(http.StatusFound)
	if got := ask[string](s, `SELECT string_agg(codename, ',' ORDER BY codename) FROM auth_user_user_permissions up JOIN auth_permission p ON p.id = permission_id
		JOIN auth_user u ON u.id = user_id WHERE username = 'bob'`); got != "delete_question,view_choice" {
		t.Errorf("bob has %s", got)
	}
}

func TestLockedPermissionsStayTickedAfterAMistake(t *testing.T) {
	s := newSite(t)
	s.addStaff("helper", "auth.change_user")
	s.addStaff("bob", "polls.delete_question")
	told := s.as("helper").get(userPath(s, "bob", "change")).send(userForm, "username", "").want(http.StatusOK).says("This field is required.")
	locked := told.Find(`input[name="user_permissions"][disabled][value="` + permissionID(s, "delete_question") + `"]`)
	if _, ticked := locked.Attr("checked"); locked.Length() != 1 || !ticked {
		t.Errorf("%d boxes, ticked: %v", locked.Length(), ticked)
	}
}

func TestAPermissionThatWasRevokedDuringASaveStaysRevoked(t *testing.T) {
	s := newSite(t)
	s.addStaff("bob", "polls.delete_question")
	mine := s.as("ada").get(userPath(s, "bob", "change"))
	told := make(chan *page)
	err := s.db.InTx(t.Context(), func(q db.Querier) error {
		_, err := q.Exec(t.Context(), "SELECT FROM auth_user WHERE username = 'bob' FOR UPDATE")
		if err != nil {
			return err
		}
		if _, err = q.Exec(t.Context(), "DELETE FROM auth_user_user_permissions"); err != nil {
			return err
		}
		go func() { told <- mine.send(userForm, "+user_permissions", permissionID(s, "view_question")) }()
		dbtest.Eventually(t, "the save waits", func() bool {
			return ask[bool](s, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')")
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	(<-told).want(http.StatusConflict).says("Saved by someone else meanwhile: nothing")
	if n := ask[int](s, "SELECT count(*) FROM auth_user_user_permissions"); n != 0 {
		t.Errorf("bob has %d permissions", n)
	}
}

func TestAConflictNamesPermissions(t *testing.T) {
	s := newSite(t)
	s.exec(`INSERT INTO auth_group (name) VALUES ('Editors')`)
	path := "/admin/auth/group/" + ask[string](s, `SELECT id::text FROM auth_group`) + "/change/"
	mine, theirs := s.as("ada").get(path), s.as("ada").get(path)
	theirs.send("#group_form", "permissions", permissionID(s, "add_question")).want(http.StatusFound)
	mine.send("#group_form", "permissions", permissionID(s, "view_question")).want(http.StatusConflict).
		says("Saved by someone else meanwhile: Can add question")
}

func TestNobodyDeletesTheirOwnAccount(t *testing.T) {
	s := newSite(t)
	v := s.as("ada")
	v.get(userPath(s, "ada", "delete")).want(http.StatusOK).says("Cannot delete user You can’t delete the account that you are signed in with.")
	v.post(userPath(s, "ada", "delete"), nil).want(http.StatusForbidden)
}

func TestADeletedUserTakesSessionsAndHistoryAlong(t *testing.T) {
	s := newSite(t)
	s.addStaff("bob", "polls.add_question")
	bob := s.as("bob")
	bob.get("/admin/polls/question/add/").send(questionForm, "question_text", "Bob's", "pub_date_0", "2026-01-01", "pub_date_1", "1:00").want(http.StatusFound)
	v := s.as("ada")
	v.get(userPath(s, "bob", "delete")).says("Log entry: Bob's").send("main form").want(http.StatusFound)
	bob.get("/admin/").want(http.StatusFound)
	if n := ask[int](s, `SELECT (SELECT count(*) FROM django_admin_log WHERE object_repr = 'Bob''s') + (SELECT count(*) FROM auth_user WHERE username = 'bob')`); n != 0 {
		t.Errorf("%d rows are left", n)
	}
}

func TestTheHistoryIsListedAndCanNotBeEdited(t *testing.T) {
	s := newSite(t)
	v := s.as("ada")
	v.get("/admin/polls/question/add/").send(questionForm, "question_text", "Q", "pub_date_0", "2026-01-01", "pub_date_1", "1:00")
	list := v.get("/admin/admin/logentry/?action_flag__exact=1&user_id__id__exact=1").want(http.StatusOK).says("Addition").says("Added.").says("ada")
	view := v.get(list.Find("#result_list tbody th a").AttrOr("href", "")).want(http.StatusOK).says("View log entry").says("question")
	if n := view.Find("main input:not([type=hidden])").Length(); n != 0 {
		t.Errorf("%d inputs", n)
	}
	v.get("/admin/admin/logentry/add/").want(http.StatusForbidden).says("Log entries are only shown here")
	v.post("/admin/admin/logentry/1/change/", nil).want(http.StatusForbidden)
	v.post("/admin/admin/logentry/1/delete/", nil).want(http.StatusForbidden)
	v.post("/admin/admin/logentry/", map[string][]string{"action": {"delete_selected"}, "post": {"yes"}, "_selected_action": {"1"}}).want(http.StatusForbidden)
}

func TestTheLastPermissionCanBeTaken(t *testing.T) {
	s := newSite(t)
	s.addStaff("bob", "polls.view_question")
	form := s.as("ada").get(userPath(s, "bob", "change"))
	sent := form.fields(userForm)
	sent.Del("user_permissions")
	form.v.post(userPath(s, "bob", "change"), sent).want(http.StatusFound)
	if n := ask[int](s, `SELECT count(*) FROM auth_user_user_permissions`); n != 0 {
		t.Errorf("%d permissions are left", n)
	}
}
