package admin_test

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const questionForm = "#question_form"

func TestAQuestionIsCreatedWithItsChoices(t *testing.T) {
	s := newSite(t)
	v := s.as("ada")
	form := v.get("/admin/polls/question/add/").want(http.StatusOK)
	form.says("Date information")
	if n := form.Find(".inline-row.new").Length(); n != 3+1 { // one in the template
		t.Errorf("%d blank rows", n)
	}
	done := form.send(questionForm, "question_text", "  What's up? ", "pub_date_0", "2026-11-20", "pub_date_1", "12:30",
		"choice_set-0-choice_text", "Not much", "choice_set-2-choice_text", "The sky", "choice_set-2-votes", "7", "_save", "Save").want(http.StatusFound)
	list := done.follow().want(http.StatusOK)
	list.says("The question “What's up?” was added successfully.")
	if got := ask[string](s, `SELECT q.question_text || pub_date::text || (SELECT string_agg(choice_text || votes, ',' ORDER BY id)
		FROM polls_choice WHERE question_id = q.id) FROM polls_question q`); !strings.HasPrefix(got, "What's up?2026-11-20 12:30:00") || !strings.HasSuffix(got, "Not much0,The sky7") {
		t.Errorf("stored %q", got)
	}
	again := v.get("/admin/polls/question/").want(http.StatusOK)
	if strings.Contains(again.text(), "added successfully") {
		t.Error("a message is told twice")
	}
}

func TestTheThreeButtonsLeadWhereTheySay(t *testing.T) {
	s := newSite(t)
	v := s.as("ada")
	add := v.get("/admin/polls/question/add/")
	for button, want := range map[string]string{"_save": "/admin/polls/question/", "_addanother": "/admin/polls/question/add/", "_continue": "/change/"} {
		p := add.send(questionForm, "question_text", "Q", "pub_date_0", "2026-11-20", "pub_date_1", "12:30:00", button, "x").want(http.StatusFound)
		if to := p.Header.Get("Location"); !strings.HasSuffix(to, want) {
			t.Errorf("%s leads to %s", button, to)
		}
		p.follow().want(http.StatusOK).says("The question “Q” was added successfully.")
	}
}

func TestWrongInputComesBackAsItWasTypedAndNothingIsSaved(t *testing.T) {
	s := newSite(t)
	v := s.as("ada")
	add := v.get("/admin/polls/question/add/")
	for _, c := range []struct{ field, value, says string }{
		{"question_text", "", "This field is required."},
		{"question_text", "   ", "This field is required."},
		{"question_text", strings.Repeat("ü", 201), "at most 200 characters (it has 201)"},
		{"question_text", "a\x00b", "Null characters are not allowed."},
		{"question_text", "a\xffb", "no valid text"},
		{"pub_date_0", "", "Enter a date."},
		{"pub_date_0", "yesterday", "Enter a valid date"},
		{"pub_date_0", "2026-02-30", "Enter a valid date"},
		{"pub_date_0", "0000-01-01", "Enter a valid date"},
		{"pub_date_1", "25:00", "Enter a valid time"},
		{"pub_date_1", "", "Enter a time."},
		{"choice_set-0-votes", "many", "Enter a whole number."},
		{"choice_set-0-votes", "-1", "greater than or equal to 0"},
		{"choice_set-0-votes", "2147483648", "less than or equal to 2147483647"},
		{"choice_set-0-votes", "99999999999999999999", "Enter a whole number."},
		{"choice_set-0-votes", "", "This field is required."},
		{"choice_set-1-votes", "5", "This field is required."}, // a number without a text
		{"choice_set-0-choice_text", strings.Repeat("x", 201), "at most 200 characters"},
	} {
		p := add.send(questionForm, "question_text", "Kept?", "pub_date_0", "2026-11-20", "pub_date_1", "12:30:00",
			"choice_set-0-choice_text", "First", c.field, c.value).want(http.StatusOK)
		p.says(c.says)
		if p.Find(`[aria-invalid="true"]`).Length() == 0 {
			t.Errorf("%s=%.20q: no field is marked", c.field, c.value)
		}
		p.says("Please correct the error")
		typed := p.fields(questionForm)
		shown := strings.ToValidUTF8(strings.ReplaceAll(c.value, "\x00", "\uFFFD"), "\uFFFD")
		if typed.Get(c.field) != shown {
			t.Errorf("%s: typed %.20q, came back %.20q", c.field, c.value, typed.Get(c.field))
		}
		if c.field != "question_text" && typed.Get("question_text") != "Kept?" {
			t.Errorf("%s: the text is lost", c.field)
		}
	}
	if n := ask[int](s, `SELECT (SELECT count(*) FROM polls_question) + (SELECT count(*) FROM polls_choice)`); n != 0 {
		t.Errorf("%d rows were saved", n)
	}
}

func TestAnEditSavesWhatChangedAndTheHistorySaysIt(t *testing.T) {
	s := newSite(t)
	id := s.addQuestion("Old", day("2026-11-01"), "A", "B", "C")
	v := s.as("ada")
	form := v.get(change(id)).want(http.StatusOK)
	form.send(questionForm, "question_text", "New", "choice_set-0-choice_text", "A2", "choice_set-1-DELETE", "on",
		"choice_set-3-choice_text", "D", "_continue", "x").want(http.StatusFound).follow().want(http.StatusOK).
		says("The question “New” was changed successfully. You may edit it again below.")
	if got := ask[string](s, `SELECT string_agg(choice_text, ',' ORDER BY id) FROM polls_choice`); got != "A2,C,D" {
		t.Errorf("choices %s", got)
	}
	v.get(strings.Replace(change(id), "change", "history", 1)).want(http.StatusOK).
		says("Changed Question text. Added choice “D”. Changed Choice text for choice “A2”. Deleted choice “B”.").says("ada")
	v.get("/admin/").want(http.StatusOK).says("Recent actions").says("New Question")
	v.get(change(id)).send(questionForm, "_save", "x").want(http.StatusFound)
	v.get(strings.Replace(change(id), "change", "history", 1)).says("No fields changed.")
}

func TestALongHistoryHasPagesOldestFirst(t *testing.T) {
	s := newSite(t)
	id := s.addQuestion("Old", day("2026-11-01"))
	s.exec(`INSERT INTO django_admin_log (action_time, object_id, object_repr, action_flag, change_message, content_type_id, user_id)
		SELECT now() - n * interval '1 minute', $1, 'Old', 2, 'change ' || n || ' before now',
			(SELECT id FROM django_content_type WHERE app_label = 'polls' AND model = 'question'), (SELECT min(id) FROM auth_user)
		FROM generate_series(1, 101) n`, strconv.FormatInt(id, 10))
	history := strings.Replace(change(id), "change", "history", 1)
	first := s.as("ada").get(history).want(http.StatusOK).text()
	oldest, newest := strings.Index(first, "change 101 before now"), strings.Index(first, "change 2 before now")
	if oldest < 0 || newest < oldest || strings.Contains(first, "change 1 before now") {
		t.Errorf("the first change is at %d, the last at %d, in %.300s", oldest, newest, first)
	}
	s.as("ada").get(history + "?p=2").says("change 1 before now").says("Earlier")
	s.as("ada").get(history + "?p=99").says("change 101 before now")
}

func TestASecondEditorSeesTheConflictAndOverwritesNothing(t *testing.T) {
	s := newSite(t)
	id := s.addQuestion("Text", day("2026-11-01"), "A", "B")
	s.addStaff("bob", "polls.change_question", "polls.change_choice", "polls.add_choice", "polls.delete_choice")
	ada, bob := s.as("ada"), s.as("bob")
	mine, theirs := ada.get(change(id)), bob.get(change(id))
	theirs.send(questionForm, "question_text", "Bob's", "choice_set-1-choice_text", "B by Bob").want(http.StatusFound)

	told := mine.send(questionForm, "question_text", "Ada's", "choice_set-0-choice_text", "A by Ada").want(http.StatusConflict)
	told.says("bob").says("Bob's").says("while you were editing")
	typed := told.fields(questionForm)
	if typed.Get("question_text") != "Ada's" || typed.Get("choice_set-0-choice_text") != "A by Ada" || typed.Get("choice_set-1-choice_text") != "B by Bob" {
		t.Errorf("the form has %v", typed)
	}
	if got := ask[string](s, `SELECT question_text FROM polls_question`); got != "Bob's" {
		t.Errorf("overwritten with %q", got)
	}
	told.send(questionForm).want(http.StatusFound)
	if got := ask[string](s, `SELECT question_text || (SELECT string_agg(choice_text, ',' ORDER BY id) FROM polls_choice) FROM polls_question`); got != "Ada'sA by Ada,B by Bob" {
		t.Errorf("after the second save: %q", got)
	}
}

func TestEachWayInWhichEditsCollideIsShown(t *testing.T) {
	for name, c := range map[string]struct {
		theirs string   // meanwhile
		mine   []string // fields
		status int
		then   string // the choices afterwards
	}{
		"votes came in":                            {`UPDATE polls_choice SET votes = votes + 5`, []string{"question_text", "New"}, 302, "A 5,B 5"},
		"votes came in to an edited choice":        {`UPDATE polls_choice SET votes = votes + 5`, []string{"choice_set-0-choice_text", "A2"}, 302, "A2 5,B 5"},
		"votes came in to a deleted choice":        {`UPDATE polls_choice SET votes = votes + 5`, []string{"choice_set-0-DELETE", "on"}, 302, "B 5"},
		"votes came in where votes were edited":    {`UPDATE polls_choice SET votes = votes + 5`, []string{"choice_set-0-votes", "1"}, 409, "A 5,B 5"},
		"both made the same edit":                  {`UPDATE polls_choice SET choice_text = 'A2' WHERE choice_text = 'A'`, []string{"choice_set-0-choice_text", "A2"}, 302, "A2 0,B 0"},
		"a choice was changed that I did not edit": {`UPDATE polls_choice SET choice_text = 'A2' WHERE choice_text = 'A'`, []string{"question_text", "New"}, 409, "A2 0,B 0"},
		"a choice was changed that I delete":       {`UPDATE polls_choice SET choice_text = 'A2' WHERE choice_text = 'A'`, []string{"choice_set-0-DELETE", "on"}, 409, "A2 0,B 0"},
		"a choice was deleted that I did not edit": {`DELETE FROM polls_choice WHERE choice_text = 'A'`, []string{"question_text", "New"}, 302, "B 0"},
		"a choice was deleted that I delete":       {`DELETE FROM polls_choice WHERE choice_text = 'A'`, []string{"choice_set-0-DELETE", "on"}, 302, "B 0"},
		"a choice was deleted that I edited":       {`DELETE FROM polls_choice WHERE choice_text = 'A'`, []string{"choice_set-0-choice_text", "A2"}, 409, "B 0"},
		"a choice was added":                       {`INSERT INTO polls_choice (question_id, choice_text, votes) SELECT id, 'C', 0 FROM polls_question`, []string{"question_text", "New"}, 302, "A 0,B 0,C 0"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			id := s.addQuestion("Text", day("2026-11-01"), "A", "B")
			form := s.as("ada").get(change(id))
			s.exec(c.theirs)
			p := form.send(questionForm, c.mine...).want(c.status)
			const choices = `SELECT string_agg(choice_text || ' ' || votes, ',' ORDER BY id) FROM polls_choice`
			if got := ask[string](s, choices); got != c.then {
				t.Errorf("the choices are %s", got)
			}
			if c.status == http.StatusConflict {
				p.send(questionForm).want(http.StatusFound) // and now knowingly
			}
		})
	}
}

func TestNoRowGetsLostWhenAnotherOneWentMeanwhile(t *testing.T) {
	s := newSite(t)
	id := s.addQuestion("Text", day("2026-11-01"), "A", "B", "C")
	s.addStaff("bob", "polls.change_question", "polls.change_choice")
	edits := []string{"choice_set-1-choice_text", "B mine", "choice_set-2-choice_text", "C mine"}
	for who, added := range map[string]string{"ada": ",D mine", "bob": ""} {
		s.exec(`DELETE FROM polls_choice`)
		s.exec(`INSERT INTO polls_choice (question_id, choice_text, votes) SELECT $1, unnest(ARRAY['A', 'B', 'C']), 0`, id)
		form := s.as(who).get(change(id))
		s.exec(`DELETE FROM polls_choice WHERE choice_text = 'A'`)
		s.exec(`UPDATE polls_choice SET choice_text = 'B theirs' WHERE choice_text = 'B'`)
		told := form.send(questionForm, edits...).want(http.StatusConflict)
		blank := told.Find(".rows .new").Last().AttrOr("id", "none")
		told.send(questionForm, blank+"-choice_text", "D mine").want(http.StatusFound)
		if got := ask[string](s, `SELECT string_agg(choice_text, ',' ORDER BY id) FROM polls_choice`); got != "B mine,C mine"+added {
			t.Errorf("%s saved %s", who, got)
		}
	}
}

func TestAnEditOfADeletedChoiceThatCanNotBeAddedIsSaidToBeLost(t *testing.T) {
	s := newSite(t)
	s.addStaff("bob", "polls.change_question", "polls.add_question", "polls.change_choice")
	for _, meanwhile := range []string{
		`DELETE FROM polls_choice WHERE choice_text = 'A'`,
		`WITH c AS (DELETE FROM polls_choice) DELETE FROM polls_question`,
	} {
		form := s.as("bob").get(change(s.addQuestion("Text", day("2026-11-01"), "A", "B")))
		s.exec(meanwhile)
		told := form.send(questionForm, "choice_set-0-choice_text", "A mine").want(http.StatusConflict).says("saving leaves it out")
		told.send(questionForm).want(http.StatusFound)
	}
}

func TestWhatWasTypedForADeletedQuestionCanBeSavedAsANewOne(t *testing.T) {
	s := newSite(t)
	id := s.addQuestion("Text", day("2026-11-01"), "A")
	form := s.as("ada").get(change(id))
	s.exec(`DELETE FROM polls_choice`)
	s.exec(`DELETE FROM polls_question`)
	told := form.send(questionForm, "question_text", "Typed").want(http.StatusConflict).says("deleted this question")
	told.send(questionForm).want(http.StatusFound)
	if got := ask[string](s, `SELECT question_text || choice_text FROM polls_question q JOIN polls_choice c ON c.question_id = q.id`); got != "TypedA" {
		t.Errorf("saved %q", got)
	}
	t.Run("without choices that were to be deleted", func(t *testing.T) {
		id := s.addQuestion("Text", day("2026-11-01"), "Stays", "Goes")
		form := s.as("ada").get(change(id))
		s.exec(`DELETE FROM polls_choice`)
		s.exec(`DELETE FROM polls_question`)
		form.send(questionForm, "choice_set-1-DELETE", "on").want(http.StatusConflict).send(questionForm).want(http.StatusFound)
		if got := ask[string](s, `SELECT string_agg(choice_text, ',') FROM polls_choice`); got != "Stays" {
			t.Errorf("saved %s", got)
		}
	})
	t.Run("without choices that this user could only read", func(t *testing.T) {
		id := s.addQuestion("Text", day("2026-11-01"), "Read only")
		s.addStaff("bob", "polls.change_question", "polls.add_question", "polls.view_choice")
		form := s.as("bob").get(change(id))
		s.exec(`DELETE FROM polls_choice`)
		s.exec(`DELETE FROM polls_question`)
		told := form.send(questionForm, "question_text", "Typed").want(http.StatusConflict)
		if n := told.Find(".inline-row").Length(); n != 0 {
			t.Errorf("%d choices are left", n)
		}
	})
}

func TestAChoiceOfAnotherQuestionIsOutOfReach(t *testing.T) {
	s := newSite(t)
	id := s.addQuestion("Mine", day("2026-11-01"), "A")
	s.addQuestion("Other", day("2026-11-01"), "Victim")
	other := ask[string](s, `SELECT id::text FROM polls_choice WHERE choice_text = 'Victim'`)
	v := s.as("ada")
	form := v.get(change(id))
	form.send(questionForm, "choice_set-0-id", other, "choice_set-0-choice_text", "Hacked")
	form.send(questionForm, "choice_set-0-id", other, "choice_set-0-DELETE", "on")
	if got := ask[int](s, `SELECT count(*) FROM polls_choice WHERE choice_text = 'Victim'`); got != 1 {
		t.Error("it was changed or deleted")
	}
}

func TestAQuestionIsDeletedWithItsChoicesByPOSTAlone(t *testing.T) {
	s := newSite(t)
	id := s.addQuestion("Doomed", day("2026-11-01"), "A", "B")
	v := s.as("ada")
	path := strings.Replace(change(id), "change", "delete", 1)
	confirm := v.get(path).want(http.StatusOK)
	confirm.says("Are you sure you want to delete the question “Doomed”?").says("Choices: 2").says("Choice: A")
	if n := ask[int](s, `SELECT count(*) FROM polls_question`); n != 1 {
		t.Fatal("GET deleted it")
	}
	confirm.send(`main form`).want(http.StatusFound).follow().says("The question “Doomed” was deleted successfully.")
	if n := ask[int](s, `SELECT (SELECT count(*) FROM polls_question) + (SELECT count(*) FROM polls_choice)`); n != 0 {
		t.Errorf("%d rows are left", n)
	}
	v.get("/admin/").says("Doomed")
	for _, gone := range []string{
		path, change(id), strings.Replace(change(id), "change", "history", 1), "/admin/polls/question/x/change/",
		"/admin/polls/question/99999999999999999999/change/", "/admin/polls/question/9223372036854775807/delete/",
	} {
		v.get(gone).want(http.StatusFound).follow().says("doesn’t exist. Perhaps it was deleted?")
	}
}

func TestSelectedQuestionsAreDeletedAfterAConfirmation(t *testing.T) {
	s := newSite(t)
	ids := []string{}
	for _, text := range []string{"One", "Two", "Three"} {
		s.addQuestion(text, day("2026-11-01"), text+"'s choice")
	}
	v := s.as("ada")
	list := v.get("/admin/polls/question/?q=T")
	list.Find("input.action-select").Each(func(_ int, in *selection) { ids = append(ids, in.AttrOr("value", "")) })
	action := list.Find("#changelist-form").AttrOr("action", "")
	values := url.Values{"action": {"delete_selected"}, "_selected_action": ids}
	confirm := v.post("/admin/polls/question/"+action, values).want(http.StatusOK)
	confirm.says("Are you sure you want to delete the selected questions?").says("Questions: 2").says("Choices: 2").says("Three's choice")
	confirm.send("main form").want(http.StatusFound)
	if got := ask[string](s, `SELECT string_agg(question_text, ',') FROM polls_question`); got != "One" {
		t.Errorf("left: %s", got)
	}
	for says, values := range map[string]url.Values{
		"No action selected.":     {"_selected_action": {"1"}},
		"Items must be selected":  {"action": {"delete_selected"}},
		"There is no such action": {"action": {"drop_tables"}, "_selected_action": {"1"}},
	} {
		v.post("/admin/polls/question/", values).want(http.StatusFound).follow().says(says)
	}
	v.post("/admin/polls/question/", url.Values{"action": {"delete_selected"}, "_selected_action": {"1; DROP TABLE x"}}).want(http.StatusBadRequest)
	v.post("/admin/polls/question/", url.Values{"action": {"delete_selected"}, "post": {"yes"}, "_selected_action": {"999999999999"}}).want(http.StatusFound)
	v.post("/admin/polls/question/", url.Values{"action": {"delete_selected"}, "_selected_action": {"999999999999"}}).want(http.StatusOK)
}

func TestTheListComposesAndSurvivesASave(t *testing.T) {
	s := newSite(t)
	now := time.Now().UTC()
	s.addQuestion("Alpha cats", now.Add(-time.Hour))
	s.addQuestion("Beta cats", now.Add(-2*time.Hour))
	s.addQuestion("Alpha dogs", now.Add(-time.Hour))
	s.addQuestion("Old cats", now.AddDate(-2, 0, 0))
	s.addQuestion("Future cats", now.AddDate(1, 0, 0))
	v := s.as("ada")
	list := v.get("/admin/polls/question/?q=cats&o=-1&pub_date__gte=" + now.AddDate(0, 0, -7).Format("2006-01-02")).want(http.StatusOK)
	if got := list.column(0); !slices.Equal(got, []string{"Future cats", "Beta cats", "Alpha cats"}) {
		t.Errorf("got %v", got)
	}
	if href := list.Find(".addlink").AttrOr("href", ""); !strings.Contains(href, "_changelist_filters=") {
		t.Errorf("the link to add forgets the list: %s", href)
	}
	link := list.Find("#result_list tbody th a").Eq(1).AttrOr("href", "")
	form := v.get(link).want(http.StatusOK)
	back := form.send(questionForm, "question_text", "Beta tomcats", "_save", "Save").want(http.StatusFound).follow().want(http.StatusOK)
	if got := back.column(0); !slices.Equal(got, []string{"Future cats", "Beta tomcats", "Alpha cats"}) {
		t.Errorf("after the save: %v at %s", got, back.at)
	}
	form = v.get(link).send(questionForm, "question_text", "Beta cats", "_continue", "x").follow()
	if !strings.Contains(form.Find(questionForm).AttrOr("action", ""), "_changelist_filters=") {
		t.Error("the list is forgotten after Save and continue")
	}
	list.Find(".filters a, #result_list thead a, .dates a").Each(func(_ int, a *selection) {
		if p := v.get("/admin/polls/question/" + a.AttrOr("href", "")).want(http.StatusOK); strings.Contains(p.text(), "does not understand") {
			t.Errorf("%s is not understood", p.at)
		}
		if href := a.AttrOr("href", ""); !strings.Contains(href, "q=cats") && a.Text() != "✕ Clear all filters" {
			t.Errorf("the link %q forgets the search", href)
		}
	})
}

func TestEachColumnSortsUpAndDown(t *testing.T) {
	s := newSite(t)
	now := time.Now().UTC()
	s.addQuestion("B", now.Add(-time.Hour))
	s.addQuestion("A", now.AddDate(0, 0, -3))
	s.addQuestion("C", now.AddDate(0, 0, 3))
	v := s.as("ada")
	for query, want := range map[string]string{
		"": "CBA", "?o=1": "ABC", "?o=-1": "CBA", "?o=2": "ABC", "?o=-2": "CBA", "?o=3": "ABC", "?o=-3": "CBA", "?o=-3.1": "CBA",
	} {
		if got := strings.Join(v.get("/admin/polls/question/"+query).column(0), ""); got != want {
			t.Errorf("%s: %s", query, got)
		}
	}
	list := v.get("/admin/polls/question/?o=1")
	if got := list.Find("thead th[aria-sort]").AttrOr("aria-sort", ""); got != "ascending" {
		t.Errorf("aria-sort is %q", got)
	}
	if got := list.Find("tbody tr").Map(func(_ int, r *selection) string { return r.Find("img").AttrOr("alt", "") }); !slices.Equal(got, []string{"False", "True", "False"}) {
		t.Errorf("published recently: %v", got)
	}
}

func TestTheFiltersAreDjangos(t *testing.T) {
	s := newSite(t)
	now := time.Now().UTC()
	today := time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, time.UTC)
	s.addQuestion("today", today)
	s.addQuestion("six days ago", today.AddDate(0, 0, -6))
	s.addQuestion("two years ago", today.AddDate(-2, 0, 0))
	v := s.as("ada")
	list := v.get("/admin/polls/question/")
	want := map[string]int{"Any date": 3, "Today": 1, "Past 7 days": 2}
	var titles []string
	list.Find(".filters li a").Each(func(_ int, a *selection) {
		titles = append(titles, a.Text())
		p := v.get("/admin/polls/question/" + a.AttrOr("href", ""))
		if n, ok := want[a.Text()]; ok && len(p.column(0)) != n {
			t.Errorf("%s: %v", a.Text(), p.column(0))
		}
		if got := p.Find(".filters li.selected").Text(); got != a.Text() {
			t.Errorf("%s: %q is marked", a.Text(), got)
		}
	})
	if !slices.Equal(titles, []string{"Any date", "Today", "Past 7 days", "This month", "This year"}) {
		t.Errorf("the filters are %v", titles)
	}
}

func TestTheDateHierarchyOpensYearMonthAndDay(t *testing.T) {
	for _, copies := range []int{1, 120} { // the dates come from the rows of one page, or from the database
		s := newSite(t)
		for _, d := range []string{"2024-02-29", "2024-02-29", "2024-03-01", "2025-12-31", "2031-01-01"} {
			s.exec(`INSERT INTO polls_question (question_text, pub_date) SELECT $1, $2 FROM generate_series(1, $3)`, d, day(d), copies)
		}
		v := s.as("ada")
		for _, c := range []struct {
			query, steps string
			rows         int
		}{
			{"", "2024, 2025, 2031", 5},
			{"?pub_date__year=2024", "‹ All dates, 2024, February, March", 3},
			{"?pub_date__year=2024&pub_date__month=2", "‹ 2024, February 2024, 29 February", 2},
			{"?pub_date__year=2024&pub_date__month=2&pub_date__day=29", "‹ February 2024, 29 February 2024", 2},
			{"?pub_date__year=2024&q=03", "‹ All dates, 2024, March", 1},
			{"?pub_date__year=1999", "‹ All dates, 1999", 0},
		} {
			p := v.get("/admin/polls/question/" + c.query).want(http.StatusOK)
			steps := strings.Join(p.Find(".dates li").Map(func(_ int, li *selection) string { return strings.TrimSpace(li.Text()) }), ", ")
			if rows := min(100, c.rows*copies); steps != c.steps || len(p.column(0)) != rows {
				t.Errorf("%s of %d copies: %s, %d rows", c.query, copies, steps, len(p.column(0)))
			}
		}
	}
}

func TestALongListHasPagesOfAHundred(t *testing.T) {
	s := newSite(t)
	s.exec(`INSERT INTO polls_question (question_text, pub_date) SELECT 'Q' || n, '2026-01-01'::timestamptz + n * interval '1 minute' FROM generate_series(1, 150) n`)
	v := s.as("ada")
	first := v.get("/admin/polls/question/").says("150 questions")
	if rows := first.column(0); len(rows) != 100 || rows[0] != "Q150" {
		t.Errorf("the first page has %d rows from %s", len(rows), rows[0])
	}
	second := v.get("/admin/polls/question/" + first.Find(".pages a").First().AttrOr("href", ""))
	if rows := second.column(0); len(rows) != 50 || rows[0] != "Q50" {
		t.Errorf("the second page has %d rows", len(rows))
	}
	if rows := v.get("/admin/polls/question/?all=1").column(0); len(rows) != 150 {
		t.Errorf("all are %d", len(rows))
	}
	v.get("/admin/polls/question/?p=9").want(http.StatusOK).says("Go to the first page")
	s.exec(`INSERT INTO polls_question (question_text, pub_date) SELECT 'Q' || n, '2026-01-01' FROM generate_series(151, 250) n`)
	many := v.get("/admin/polls/question/?all=1")
	if rows, last := many.column(0), many.Find(`a[href="?p=3"]`).Length(); len(rows) != 100 || last == 0 {
		t.Errorf("of 250, %d rows, and %d links to the last page", len(rows), last)
	}
}

func TestAllPagesCanBeSelectedButNotTooMuch(t *testing.T) {
	s := newSite(t)
	s.exec(`INSERT INTO polls_question (question_text, pub_date) SELECT 'Q' || n, '2026-01-01' FROM generate_series(1, 1200) n`)
	v := s.as("ada")
	all := url.Values{"action": {"delete_selected"}, "select_across": {"1"}, "_selected_action": {"1"}}
	v.post("/admin/polls/question/", all).want(http.StatusFound).follow().says("At most 1,000 questions can be deleted at once.")
	v.post("/admin/polls/question/?nonsense=1", all).want(http.StatusBadRequest)
	confirm := v.post("/admin/polls/question/?q=Q11", all).want(http.StatusOK).says("Questions: 111")
	confirm.send("main form").want(http.StatusFound).follow().says("Successfully deleted 111 questions.")
	if n := ask[int](s, `SELECT count(*) FROM polls_question`); n != 1200-111 {
		t.Errorf("%d are left", n)
	}
}

func TestAnInvalidDateDoesNotWidenWhatIsDeleted(t *testing.T) {
	s := newSite(t)
	s.addQuestion("Q", day("2026-03-03"))
	v := s.as("ada")
	all := url.Values{"action": {"delete_selected"}, "select_across": {"1"}, "post": {"yes"}}
	for _, date := range []string{"pub_date__month=x", "pub_date__year=2026&pub_date__month=13", "pub_date__year=2025&pub_date__day=3", "pub_date__year=2026&pub_date__month=2&pub_date__day=31"} {
		v.get("/admin/polls/question/?" + date).want(http.StatusFound).follow().want(http.StatusOK).says("does not understand")
		v.post("/admin/polls/question/?"+date, all).want(http.StatusBadRequest)
	}
	if n := ask[int](s, `SELECT count(*) FROM polls_question`); n != 1 {
		t.Error("it was deleted")
	}
}

func TestALookupOfASecondFindsItsFractions(t *testing.T) {
	s := newSite(t)
	s.addQuestion("Half past", day("2026-11-01").Add(5500*time.Millisecond))
	for second, want := range map[string]int{"5": 1, "6": 0} {
		if rows := s.as("ada").get("/admin/polls/question/?pub_date__second=" + second).want(http.StatusOK).column(0); len(rows) != want {
			t.Errorf("second %s: %d rows", second, len(rows))
		}
	}
}

func TestASearchHasAsManyCharactersInAnyWriting(t *testing.T) {
	s := newSite(t)
	text := strings.Repeat("я", 150)
	s.addQuestion(text, day("2026-11-01"))
	if rows := s.as("ada").get("/admin/polls/question/?q=" + url.QueryEscape(text)).want(http.StatusOK).column(0); len(rows) != 1 {
		t.Errorf("%d rows", len(rows))
	}
}

func TestTheSearchTakesWordsAndPhrasesLiterally(t *testing.T) {
	s := newSite(t)
	for _, text := range []string{"100% sure", "1000 sure things", "snake_case", "snakeXcase", `back\slash`, "One two three", "Three two one"} {
		s.addQuestion(text, day("2026-01-01"))
	}
	v := s.as("ada")
	for q, want := range map[string][]string{
		"100%": {"100% sure"}, "snake_case": {"snake_case"}, `\`: {`back\slash`}, "SURE": {"100% sure", "1000 sure things"},
		"one THREE": {"One two three", "Three two one"}, `"two three"`: {"One two three"}, `"two three" one`: {"One two three"}, "four": nil,
	} {
		got := v.get("/admin/polls/question/?o=1&" + url.Values{"q": {q}}.Encode()).column(0)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s finds %v", q, got)
		}
	}
}

// undoOnce is a function that undoes the first transaction that calls it: a sequence counts on when that is undone.
var undoOnce = []string{
	"CREATE SEQUENCE tries",
	`CREATE FUNCTION undo_once() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
		IF nextval('tries') = 1 THEN
			RAISE 'deadlock detected' USING ERRCODE = 'deadlock_detected';
		END IF;
		RETURN true;
	END $$`,
}

// undoOnceAt has the first transaction undone that writes (INSERT) or reads (SELECT) an entry of the history.
func (s *site) undoOnceAt(command string) {
	s.t.Helper()
	check := map[string]string{"INSERT": "WITH CHECK", "SELECT": "USING"}[command]
	for _, sql := range append(undoOnce, "ALTER TABLE django_admin_log ENABLE ROW LEVEL SECURITY",
		"ALTER TABLE django_admin_log FORCE ROW LEVEL SECURITY", "CREATE POLICY others ON django_admin_log USING (true)",
		"CREATE POLICY once ON django_admin_log AS RESTRICTIVE FOR "+command+" "+check+" (undo_once())") {
		s.exec(sql)
	}
}

func (s *site) mustHaveTriedAgain() {
	s.t.Helper()
	if tries := ask[int64](s, "SELECT last_value FROM tries"); tries < 2 {
		s.t.Errorf("nothing was undone, after %d tries", tries)
	}
}

func TestASaveThatADeadlockUndidIsMadeAgainByItself(t *testing.T) {
	s := newSite(t)
	v := s.as("ada")
	add := v.get("/admin/polls/question/add/")
	s.undoOnceAt("INSERT")
	add.send(questionForm, "question_text", "Who?", "pub_date_0", "2026-11-20", "pub_date_1", "12:30:00",
		"choice_set-0-choice_text", "Me", "_save", "Save").want(http.StatusFound)
	s.mustHaveTriedAgain()
	if rows := ask[int64](s, `SELECT (SELECT count(*) FROM polls_question) + 10 * (SELECT count(*) FROM polls_choice)
		+ 100 * (SELECT count(*) FROM django_admin_log)`); rows != 111 {
		t.Errorf("%d", rows)
	}
}

func TestAConflictIsShownAlsoAfterADeadlockUndidTheFirstRead(t *testing.T) {
	s := newSite(t)
	id := s.addQuestion("Old?", time.Now(), "First", "Second")
	ann, bob := s.as("ada"), s.as("ada")
	form := ann.get(change(id))
	bob.get(change(id)).send(questionForm, "question_text", "Bob's?",
		"choice_set-0-DELETE", "on").want(http.StatusFound)
	s.undoOnceAt("SELECT")
	p := form.send(questionForm, "question_text", "Ann's?", "choice_set-0-choice_text", "Ann's first").want(http.StatusConflict)
	s.mustHaveTriedAgain()
	p.says("Bob's?")
	p.says("Someone deleted this choice meanwhile.")
	if got := ask[string](s, "SELECT question_text FROM polls_question"); got != "Bob's?" {
		t.Errorf("%q is stored", got)
	}
}
