package admin_test

import (
	"strings"
	"testing"
	"time"

	cdp "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"ddtb/app/web/webtest"
)

// open starts a browser in which ada is signed in.
func (s *site) open() *webtest.Browser {
	s.t.Helper()
	b := webtest.Open(s.t, s.URL)
	b.Login("ada", password)
	return b
}

func TestAPersonWorksInTheBrowser(t *testing.T) {
	s := newSite(t)
	b := s.open()
	b.MustSay("Site administration")
	b.Visit("/admin/polls/question/add/")
	b.Type("#id_question_text", "What's new?")
	b.Click(".vDateField ~ *, label:has(.vDateField) + button")
	b.Click("label:has(.vTimeField) + button")
	if got, today := webtest.Value[string](b, `document.querySelector(".vDateField").value`), time.Now().UTC().Format("2006-01-02"); got != today {
		t.Errorf("Today is %s, not %s", got, today)
	}
	if got := webtest.Value[string](b, `document.querySelector(".vTimeField").value`); len(got) != len("15:04:05") {
		t.Errorf("Now is %q", got)
	}
	b.Type("#id_choice_set-0-choice_text", "Not much")
	b.Click(".add-row")
	b.Click(".add-row")
	if got := webtest.Value[string](b, `document.activeElement.id`); got != "id_choice_set-4-choice_text" {
		t.Errorf("the focus is on %q", got)
	}
	b.Type("#id_choice_set-4-choice_text", "The fifth")
	b.Type("#id_choice_set-3-choice_text", "Removed")
	b.Click("#choice_set-3 .shortcut")
	b.Press("input[name=_continue]")
	b.MustSay("was added successfully. You may edit it again below.")
	if got := ask[string](s, `SELECT string_agg(choice_text, ',' ORDER BY id) FROM polls_choice`); got != "Not much,The fifth" {
		t.Errorf("the choices are %s", got)
	}
	b.Type("#id_question_text", "What's old?")
	b.Press("input[name=_save]")
	b.MustSay("was changed successfully.")

	s.addQuestion("Another", time.Now().AddDate(0, 0, -3), "x")
	b.Visit("/admin/polls/question/")
	b.Press("#result_list thead th:nth-child(2) a")
	if got := webtest.Value[string](b, `document.querySelector("#result_list tbody th").innerText`); got != "Another" {
		t.Errorf("sorted by text, the first is %q", got)
	}
	b.Press(".filters li:nth-child(2) a")
	b.MustSay("1 result (2 total)")
	b.Press("#result_list tbody th a")
	b.Press(".historylink")
	b.MustSay("Changed Question text.")

	b.Visit("/admin/polls/question/")
	b.Click("#action-toggle")
	b.MustSay("2 of 2 selected")
	b.Do(chromedp.SetValue(chromedp.CSS("#action"), "delete_selected"))
	b.Press(".actionbar button")
	b.MustSay("Are you sure you want to delete the selected questions?")
	b.Press("main form button")
	b.MustSay("Successfully deleted 2 questions.")
	b.Visit("/admin/")
	b.MustSay("What's old?")
	b.Press(".userbar button")
	b.MustSay("Logged out")
}

func TestUnsavedChangesAreWarnedOf(t *testing.T) {
	s := newSite(t)
	id := s.addQuestion("Q", day("2026-01-01"))
	b := s.open()
	b.Visit(change(id))
	b.Do(chromedp.SendKeys(chromedp.CSS("#id_question_text"), " edited"))
	asked := make(chan string, 1)
	dialogs := chromedp.Events(b.Tab, cdp.JavascriptDialogOpening)
	go func() {
		for dialog, err := range dialogs {
			if err != nil {
				return
			}
			asked <- string(dialog.Type)
			_, _ = chromedp.Call(b.Tab, cdp.HandleJavaScriptDialog, cdp.HandleJavaScriptDialogParams{Accept: true})
			return
		}
	}()
	b.Visit("/admin/")
	select {
	case kind := <-asked:
		if kind != "beforeunload" {
			t.Errorf("asked by %s", kind)
		}
	case <-b.Tab.Done():
		t.Error("not asked")
	}
	b.Visit(change(id))
	b.Visit("/admin/") // nothing was typed: a confirmation dialog would block here
}

func TestAWholeEditIsDoneFromTheKeyboard(t *testing.T) {
	s := newSite(t)
	id := s.addQuestion("Q", day("2026-01-01"), "A")
	b := s.open()
	b.Visit(change(id))
	keys := func(text string) { b.Do(chromedp.KeyEvent(text)) }
	for range 60 { // Tab reaches the save button, and everything before it
		keys("\t")
		if webtest.Value[string](b, `document.activeElement.id`) == "id_question_text" {
			keys("!")
		}
		if webtest.Value[string](b, `document.activeElement.name || ""`) == "_save" {
			break
		}
	}
	if _, err := chromedp.RunResponse(b.Tab, chromedp.KeyEvent("\r")); err != nil {
		t.Fatal(err)
	}
	if got := ask[string](s, `SELECT question_text FROM polls_question`); !strings.Contains(got, "!") {
		t.Errorf("saved %q", got)
	}
}

func TestEveryPageIsAccessibleAndFitsThePhone(t *testing.T) {
	s := newSite(t)
	id := s.fill()
	b := webtest.Open(t, s.URL)
	look := func(paths ...string) {
		for _, path := range paths {
			b.Visit(path)
			for _, l := range webtest.Looks {
				b.LookAs(l)
				b.MustSuitEverybody(path)
			}
		}
	}
	b.Visit("/admin/login/")
	webtest.Value[bool](b, `document.querySelector("label").remove() === undefined`)
	if b.Violations() == "" {
		t.Fatal("axe-core does not miss a label that was taken away")
	}
	look("/admin/login/")
	b.Login("ada", password)
	look(pagesOf(s, id)...)
	b.LookAs(webtest.Look{Width: 360, Scheme: "light"})
	b.Visit("/admin/polls/question/add/")
	b.Press("input[name=_save]") // a form with mistakes
	b.MustSuitEverybody("admin-mistakes")
}

func TestADateIsOnOneLineOnThePhone(t *testing.T) {
	s := newSite(t)
	path := change(s.fill())
	b := s.open()
	b.LookAs(webtest.Look{Width: 360, Scheme: "light"})
	for _, path := range []string{"/admin/polls/question/", strings.Replace(path, "change", "history", 1)} {
		b.Visit(path)
		lines := webtest.Value[int](b, `(() => {
			const date = document.createRange();
			const text = document.createTreeWalker(document.querySelector("td time, th time"), NodeFilter.SHOW_TEXT).nextNode();
			date.setStart(text, 0);
			date.setEnd(text, "2006-01-02".length);
			return date.getClientRects().length;
		})()`)
		if lines != 1 {
			t.Errorf("%s breaks a date into %d lines", path, lines)
		}
	}
}

// fill puts in what makes pages look as in life, and returns a question.
func (s *site) fill() (id int64) {
	v := s.as("ada")
	now := time.Now().UTC()
	for i, text := range []string{
		"What’s your favourite database?", "Tabs or spaces?", "Which strategy runs out of connections first?",
		"How many slots does your server have?", "Is it the pool, or the server?", "Did you close your rows?",
	} {
		id = s.addQuestion(text, now.Add(-time.Duration(i*i*i)*8*time.Hour), "Yes", "No", "It depends")
	}
	s.addQuestion("A question from the future?", now.AddDate(0, 1, 0), "Soon")
	s.exec(`UPDATE polls_choice SET votes = id * 7 % 23`)
	s.exec(`INSERT INTO auth_group (name) VALUES ('Editors'), ('Moderators')`)
	s.addStaff("grace", "polls.add_question")
	v.get(change(id)).send(questionForm, "question_text", "Did you close your rows, all of them?", "choice_set-3-choice_text", "Maybe")
	v.get("/admin/polls/question/add/").send(questionForm, "question_text", "What’s up?", "pub_date_0", now.Format("2006-01-02"), "pub_date_1", "09:00:00")
	doomed := s.addQuestion("Delete me", now)
	v.post(strings.Replace(change(doomed), "change", "delete", 1), nil)
	return id
}
