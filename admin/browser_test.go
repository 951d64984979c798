package admin_test

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	cdp "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp" // drives a real browser: what JavaScript, keyboard and layout do can't be seen over HTTP
)

var screenshots = flag.String("screenshots", "", "folder for screenshots of the main pages; none without it")

// browser is a tab of a headless Chromium.
type browser struct {
	t   testing.TB
	ctx context.Context
	s   *site
}

// open starts a browser with a profile of its own.
func (s *site) open() *browser {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	s.t.Cleanup(cancel)
	options := []chromedp.ExecAllocatorOption{
		chromedp.Headless, chromedp.NoFirstRun, chromedp.DisableGPU, chromedp.WindowSize(1280, 900),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true),
	}
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium's sandbox refuses root
	}
	ctx, cancelAllocator := chromedp.NewExecAllocator(ctx, options...)
	s.t.Cleanup(cancelAllocator)
	ctx, cancelTab := chromedp.NewContext(ctx)
	s.t.Cleanup(cancelTab)
	return &browser{s.t, ctx, s}
}

func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

func (b *browser) visit(path string) {
	b.t.Helper()
	b.do(chromedp.Navigate(b.s.URL + path))
}

// press clicks what leads to another page, and waits for it.
func (b *browser) press(selector string) {
	b.t.Helper()
	if _, err := chromedp.RunResponse(b.ctx, chromedp.Click(chromedp.CSS(selector))); err != nil {
		b.t.Fatalf("press %s: %v", selector, err)
	}
}

func (b *browser) click(selector string) {
	b.t.Helper()
	b.do(chromedp.Click(chromedp.CSS(selector)))
}

func (b *browser) typeInto(selector, text string) {
	b.t.Helper()
	b.do(chromedp.Clear(chromedp.CSS(selector)), chromedp.SendKeys(chromedp.CSS(selector), text))
}

// value is what an expression is in the page.
func value[T any](b *browser, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

func (b *browser) says(text string) {
	b.t.Helper()
	if got := value[string](b, `document.body.innerText`); !strings.Contains(got, text) {
		b.t.Errorf("the page does not say %q: %.800s", text, got)
	}
}

func (b *browser) login() {
	b.t.Helper()
	b.visit("/admin/")
	b.typeInto("#id_username", "ada")
	b.typeInto("#id_password", password)
	b.press("input[type=submit]")
}

func TestAPersonWorksInTheBrowser(t *testing.T) {
	s := newSite(t)
	b := s.open()
	b.login()
	b.says("Site administration")
	b.visit("/admin/polls/question/add/")
	b.typeInto("#id_question_text", "What's new?")
	b.click(".vDateField ~ *, label:has(.vDateField) + button")
	b.click("label:has(.vTimeField) + button")
	if got, today := value[string](b, `document.querySelector(".vDateField").value`), time.Now().UTC().Format("2006-01-02"); got != today {
		t.Errorf("Today is %s, not %s", got, today)
	}
	if got := value[string](b, `document.querySelector(".vTimeField").value`); len(got) != len("15:04:05") {
		t.Errorf("Now is %q", got)
	}
	b.typeInto("#id_choice_set-0-choice_text", "Not much")
	b.click(".add-row")
	b.click(".add-row")
	if got := value[string](b, `document.activeElement.id`); got != "id_choice_set-4-choice_text" {
		t.Errorf("the focus is on %q", got)
	}
	b.typeInto("#id_choice_set-4-choice_text", "The fifth")
	b.typeInto("#id_choice_set-3-choice_text", "Removed")
	b.click("#choice_set-3 .shortcut")
	b.press("input[name=_continue]")
	b.says("was added successfully. You may edit it again below.")
	if got := ask[string](s, `SELECT string_agg(choice_text, ',' ORDER BY id) FROM polls_choice`); got != "Not much,The fifth" {
		t.Errorf("the choices are %s", got)
	}
	b.typeInto("#id_question_text", "What's old?")
	b.press("input[name=_save]")
	b.says("was changed successfully.")

	s.addQuestion("Another", time.Now().AddDate(0, 0, -3), "x")
	b.visit("/admin/polls/question/")
	b.press("#result_list thead th:nth-child(2) a")
	if got := value[string](b, `document.querySelector("#result_list tbody th").innerText`); got != "Another" {
		t.Errorf("sorted by text, the first is %q", got)
	}
	b.press(".filters li:nth-child(2) a")
	b.says("1 result (2 total)")
	b.press("#result_list tbody th a")
	b.press(".historylink")
	b.says("Changed Question text.")

	b.visit("/admin/polls/question/")
	b.click("#action-toggle")
	b.says("2 of 2 selected")
	b.do(chromedp.SetValue(chromedp.CSS("#action"), "delete_selected"))
	b.press(".actionbar button")
	b.says("Are you sure you want to delete the selected questions?")
	b.press("main form button")
	b.says("Successfully deleted 2 questions.")
	b.visit("/admin/")
	b.says("What's old?")
	b.press(".userbar button")
	b.says("Logged out")
}

func TestUnsavedChangesAreWarnedOf(t *testing.T) {
	s := newSite(t)
	id := s.addQuestion("Q", day("2026-01-01"))
	b := s.open()
	b.login()
	b.visit(change(id))
	b.do(chromedp.SendKeys(chromedp.CSS("#id_question_text"), " edited"))
	asked := make(chan string, 1)
	dialogs := chromedp.Events(b.ctx, cdp.JavascriptDialogOpening)
	go func() {
		for dialog, err := range dialogs {
			if err != nil {
				return
			}
			asked <- string(dialog.Type)
			_, _ = chromedp.Call(b.ctx, cdp.HandleJavaScriptDialog, cdp.HandleJavaScriptDialogParams{Accept: true})
			return
		}
	}()
	b.visit("/admin/")
	select {
	case kind := <-asked:
		if kind != "beforeunload" {
			t.Errorf("asked by %s", kind)
		}
	case <-b.ctx.Done():
		t.Error("not asked")
	}
	b.visit(change(id))
	b.visit("/admin/") // nothing was typed: this would hang at a question that nobody answers
}

func TestAWholeEditIsDoneFromTheKeyboard(t *testing.T) {
	s := newSite(t)
	id := s.addQuestion("Q", day("2026-01-01"), "A")
	b := s.open()
	b.login()
	b.visit(change(id))
	keys := func(text string) { b.do(chromedp.KeyEvent(text)) }
	for range 60 { // Tab reaches the save button, and everything before it
		keys("\t")
		if value[string](b, `document.activeElement.id`) == "id_question_text" {
			keys("!")
		}
		if value[string](b, `document.activeElement.name || ""`) == "_save" {
			break
		}
	}
	if _, err := chromedp.RunResponse(b.ctx, chromedp.KeyEvent("\r")); err != nil {
		t.Fatal(err)
	}
	if got := ask[string](s, `SELECT question_text FROM polls_question`); !strings.Contains(got, "!") {
		t.Errorf("saved %q", got)
	}
}

// circumstances are how pages are looked at.
var circumstances = []struct {
	name   string
	width  int64
	scheme string
}{
	{"wide-light", 1280, "light"}, {"wide-dark", 1280, "dark"}, {"narrow-light", 360, "light"}, {"narrow-dark", 360, "dark"},
}

func (b *browser) lookAs(width int64, scheme string) {
	b.t.Helper()
	b.do(chromedp.EmulateViewport(width, 900))
	if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{
			{Name: "prefers-color-scheme", Value: scheme},
			{Name: "prefers-reduced-motion", Value: "reduce"}, // colours on their way are of neither scheme
		},
	}); err != nil {
		b.t.Fatal(err)
	}
}

// violations are what axe-core finds on the page, one a line.
func (b *browser) violations(axe string) string {
	b.t.Helper()
	if !value[bool](b, `typeof axe === "object"`) {
		value[bool](b, axe+"; true")
	}
	found, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](`axe.run({resultTypes: ["violations"]}).then(r => r.violations.map(
		v => v.id + ": " + v.help + "\n" + v.nodes.map(n => "    " + n.html + "\n    " + n.failureSummary).join("\n")).join("\n"))`,
		chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatal(err)
	}
	return found
}

func TestEveryPageIsAccessibleAndFitsThePhone(t *testing.T) {
	axe, err := os.ReadFile("testdata/axe-core-4.14.1/axe.min.js")
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t)
	id := s.fill()
	b := s.open()
	look := func(paths ...string) {
		for _, path := range paths {
			b.visit(path)
			for _, c := range circumstances {
				b.lookAs(c.width, c.scheme)
				if found := b.violations(string(axe)); found != "" {
					t.Errorf("%s, %s:\n%s", path, c.name, found)
				}
				if width := value[int64](b, `document.documentElement.scrollWidth`); width > c.width {
					t.Errorf("%s, %s: %d pixels wide", path, c.name, width)
				}
				b.shoot(path, c.name)
			}
		}
	}
	b.visit("/admin/login/")
	value[bool](b, `document.querySelector("label").remove() === undefined`)
	if b.violations(string(axe)) == "" {
		t.Fatal("axe-core does not miss a label that was taken away")
	}
	look("/admin/login/")
	b.login()
	look(pagesOf(s, id)...)
	b.lookAs(360, "light")
	b.visit("/admin/polls/question/add/")
	b.press("input[name=_save]") // a form with mistakes
	if found := b.violations(string(axe)); found != "" {
		t.Errorf("a form with mistakes:\n%s", found)
	}
	b.shoot("/admin/mistakes/", "narrow-light")
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

func (b *browser) shoot(path, name string) {
	b.t.Helper()
	if *screenshots == "" || strings.Contains(path, "?") {
		return
	}
	png, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	if err != nil {
		b.t.Fatal(err)
	}
	file := strings.ReplaceAll(strings.Trim(path, "/"), "/", "-") + "-" + name + ".png"
	if err := os.WriteFile(filepath.Join(*screenshots, file), png, 0o644); err != nil {
		b.t.Fatal(err)
	}
}
