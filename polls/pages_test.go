package polls_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestWithNothingPublishedTheListSaysSo(t *testing.T) {
	s := newSite(t)
	for _, state := range []string{"an empty database", "only a question of the future"} {
		list := s.page("/polls/")
		if !strings.Contains(list.body, "No polls are available.") || list.Find(".polls a").Length() != 0 {
			t.Errorf("%s: %s", state, list.text("main"))
		}
		s.ask("Of the future", -time.Hour, "Yes")
	}
}

func TestTheListShowsTheFiveNewestOfThePublishedNewestFirst(t *testing.T) {
	s := newSite(t)
	oldest, _ := s.ask("oldest", 90*24*time.Hour)
	third, _ := s.ask("third", 3*time.Hour)
	s.ask("future", -time.Hour)
	ids := []int64{0, 0, third, 0, 0}
	ids[1], _ = s.ask("second", 2*time.Hour)
	ids[4], _ = s.ask("fifth, asked before its twin", 4*time.Hour)
	ids[3], _ = s.ask("fourth, asked after its twin", 4*time.Hour)
	ids[0], _ = s.ask("first, of this very moment", 0)

	list := s.page("/polls/")
	var want []string
	for _, id := range ids {
		want = append(want, fmt.Sprintf("/polls/%d/", id))
	}
	var got []string
	for _, a := range list.Find(".polls a").EachIter() {
		got = append(got, a.AttrOr("href", ""))
	}
	if !slices.Equal(got, want) {
		t.Errorf("links: got %v, want %v", got, want)
	}
	if texts := list.texts(".polls a"); !slices.Equal(texts, []string{
		"first, of this very moment", "second", "third", "fourth, asked after its twin", "fifth, asked before its twin",
	}) {
		t.Errorf("texts: %q", texts)
	}
	if title := list.text("title"); title != "Polls" {
		t.Errorf("title %q", title)
	}
	if s.get("/polls/%d/", oldest).status != http.StatusOK {
		t.Error("a question that is too old for the list has no page any more")
	}
}

func TestAQuestionOfTheLastDayIsMarkedAsNew(t *testing.T) {
	s := newSite(t)
	s.ask("today's", 23*time.Hour)
	s.ask("yesterday's", 25*time.Hour)
	date := func(age time.Duration) string { return now.Add(-age).Format("2 January 2006") }
	want := []string{"today's " + date(23*time.Hour) + " New", "yesterday's " + date(25*time.Hour)}
	if got := s.page("/polls/").texts(".polls li"); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTheDetailPageHasAFormWithARadioForEachChoice(t *testing.T) {
	s := newSite(t)
	q, ids := s.ask("What's new?", time.Hour, "Not much", "The sky")
	s.ask("Another question", time.Hour, "with a choice of its own")
	page := s.page("/polls/%d/", q)
	if page.text("h1") != "What's new?" || page.Find("h1").Length() != 1 {
		t.Errorf("h1: %q", page.texts("h1"))
	}
	form := page.Find("form")
	if form.AttrOr("action", "") != fmt.Sprintf("/polls/%d/vote/", q) || form.AttrOr("method", "") != "post" {
		t.Errorf("form: %q %q", form.AttrOr("method", ""), form.AttrOr("action", ""))
	}
	if button := form.Find("button"); words(button) != "Vote" || button.AttrOr("type", "submit") != "submit" {
		t.Errorf("button: %q", words(button))
	}
	if form.Find("input").Length() != 3 { // and the token
		t.Errorf("%d inputs", form.Find("input").Length())
	}
	for i, label := range []string{"Not much", "The sky"} {
		id := fmt.Sprintf("choice%d", i+1)
		radio := form.Find(fmt.Sprintf(`input[type="radio"][name="choice"][id=%q][value="%d"]`, id, ids[i]))
		if radio.Length() != 1 || words(form.Find(fmt.Sprintf("label[for=%q]", id))) != label {
			t.Errorf("no radio for %q", label)
		}
	}
	if page.Find("[role=alert]").Length() != 0 || strings.Contains(page.body, "select a choice") {
		t.Error("an error before anything was sent")
	}
}

func TestAQuestionWithoutChoicesHasAPageAndNoForm(t *testing.T) {
	s := newSite(t)
	q, _ := s.ask("Nothing to choose", time.Hour)
	page := s.page("/polls/%d/", q)
	if page.Find("form").Length() != 0 || !strings.Contains(page.text("main"), "no choices yet") {
		t.Errorf("got %q", page.text("main"))
	}
	if page := s.page("/polls/%d/results/", q); !strings.Contains(page.text("main"), "no choices yet") {
		t.Errorf("results: got %q", page.text("main"))
	}
}

func TestTheResultsShowVotesSharesAndABarForEachChoice(t *testing.T) {
	s := newSite(t)
	q, ids := s.ask("Tabs or spaces?", time.Hour, "Tabs", "Spaces", "Neither", "Both")
	s.setVotes(ids[0], 7)
	s.setVotes(ids[1], 1)
	s.setVotes(ids[3], 100_000)
	page := s.page("/polls/%d/results/", q)
	if page.text("h1") != "Tabs or spaces?" {
		t.Errorf("h1: %q", page.text("h1"))
	}
	for i, want := range []string{"Tabs -- 7 votes", "Spaces -- 1 vote", "Neither -- 0 votes", "Both -- 100000 votes"} {
		bar := page.Find(`.results [role="meter"]`).Eq(i)
		label := page.text("#" + bar.AttrOr("aria-labelledby", "none"))
		if label != want {
			t.Errorf("the label of bar %d: %q, want %q", i+1, label, want)
		}
		if !strings.Contains(page.body, want+"<") { // in one piece, for programs
			t.Errorf("not in one piece: %q", want)
		}
	}
	if got := page.texts(".results .share"); !slices.Equal(got, []string{"under 1 %", "under 1 %", "0 %", "over 99 %"}) {
		t.Errorf("shares: %q", got)
	}
	if got := page.Find(`.results .ahead [role="meter"] rect`).AttrOr("width", ""); got != "99.99%" {
		t.Errorf("the longest bar: %q", got)
	}
	if !strings.Contains(page.text("main"), "100008 votes in all") {
		t.Errorf("no total: %q", page.text("main"))
	}
	if again := page.Find(fmt.Sprintf(`a[href="/polls/%d/"]`, q)); words(again) != "Vote again?" {
		t.Errorf("the link back: %q", words(again))
	}
}

func TestTheResultsBeforeTheFirstVoteHaveNoLeader(t *testing.T) {
	s := newSite(t)
	q, _ := s.ask("Anyone?", time.Hour, "Me", "You")
	page := s.page("/polls/%d/results/", q)
	if page.Find(".ahead, rect").Length() != 0 || !strings.Contains(page.text("main"), "No one has voted yet") {
		t.Errorf("got %q", page.text("main"))
	}
}

// missing are addresses in the place of an id under which there is no question.
func missing(s *site) []string {
	future, _ := s.ask("Of the future", -time.Hour, "Yes", "No")
	return []string{
		fmt.Sprint(future), fmt.Sprint(future + 1), "0", "-1", "+1", "x", "1x", "1.0", "%20", "%00", "%31%2e", "١",
		"9223372036854775807", "9223372036854775808", "12345678901234567890", "1%27%20OR%201=1--", "..%2f..",
	}
}

func TestAMissingFutureOrMalformedQuestionIsNotFound(t *testing.T) {
	s := newSite(t)
	s.ask("There is one", time.Hour, "Yes")
	for _, id := range missing(s) {
		for _, page := range []string{"/polls/" + id + "/", "/polls/" + id + "/results/"} {
			if a := s.get("%s", page); a.status != http.StatusNotFound || strings.Contains(a.body, "future") {
				t.Errorf("GET %s: %d %s", page, a.status, a.text("main"))
			}
		}
		for _, body := range []string{"choice=1", "choice=2", ""} {
			a, err := s.do(http.MethodPost, "/polls/"+id+"/vote/", urlencoded, strings.NewReader(body))
			if err != nil || a.status != http.StatusNotFound {
				t.Errorf("POST %s %q: %d %v", id, body, a.status, err)
			}
		}
	}
	if votes := s.votes(); len(votes) != 0 {
		t.Errorf("votes were counted: %v", votes)
	}
}

func TestAQuestionIsOpenFromTheVeryMomentOfItsPublication(t *testing.T) {
	s := newSite(t)
	q, ids := s.ask("Just now?", 0, "Yes")
	s.page("/polls/%d/", q)
	if a := s.vote(q, fmt.Sprint(ids[0])); a.status != http.StatusFound {
		t.Errorf("vote: %d", a.status)
	}
	s.page("/polls/%d/results/", q)
}

func TestEverythingAPersonTypedIsEscaped(t *testing.T) {
	s := newSite(t)
	for i, typed := range []string{
		`<script>alert(1)</script>`, `</title></h1><script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`,
		`' onmouseover='alert(1)`, `" autofocus onfocus="alert(1)`, `<!-- `, `]]>`, `{{.}}`, `&lt;b&gt; &amp; &#39;`,
		`javascript:alert(1)`, "line\nline\ttab", "\u202egnal\u200b", `<svg/onload=alert(1)>`, strings.Repeat("x", 200),
	} {
		t.Run(typed[:min(len(typed), 20)], func(t *testing.T) {
			q, ids := s.ask(typed, time.Hour-time.Duration(i)*time.Minute, typed, "harmless") // the newest
			pages := map[string]string{
				"/polls/":                            ".polls li:first-child a",
				fmt.Sprintf("/polls/%d/", q):         "h1, label[for=choice1]",
				fmt.Sprintf("/polls/%d/results/", q): "h1",
			}
			for path, selector := range pages {
				page := s.page("%s", path)
				for _, sel := range page.Find(selector).EachIter() {
					if sel.Text() != typed {
						t.Errorf("%s: shown as %q", path, sel.Text())
					}
				}
				if page.Find("script, img, h1 *, label *, [onmouseover], [onfocus], [onload], [style]").Length() != 0 {
					t.Errorf("%s: what was typed became markup: %s", path, page.body)
				}
				if path != "/polls/" && !strings.Contains(page.Find("title").Text(), typed) {
					t.Errorf("%s: title %q", path, page.Find("title").Text())
				}
			}
			results := s.page("/polls/%d/results/", q)
			if got := results.Find(fmt.Sprintf("#c%d", ids[0])).Text(); got != typed+" -- 0 votes" {
				t.Errorf("choice shown as %q", got)
			}
			again := s.vote(q)
			if again.Find("h1").Text() != typed || again.Find("script, img").Length() != 0 {
				t.Errorf("the form again: %s", again.body)
			}
		})
	}
}

func TestHEADAnswersLikeGETWithoutTheBody(t *testing.T) {
	s := newSite(t)
	q, _ := s.ask("Anyone?", time.Hour, "Me")
	for _, path := range []string{
		"/polls/", fmt.Sprintf("/polls/%d/", q), fmt.Sprintf("/polls/%d/results/", q), "/polls/99/", "/static/polls/style.css",
	} {
		get := s.get("%s", path)
		head, err := s.do(http.MethodHead, path, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		if head.status != get.status || head.body != "" ||
			head.header.Get("Content-Type") != get.header.Get("Content-Type") ||
			head.header.Get("Content-Length") != fmt.Sprint(len(get.body)) {
			t.Errorf("%s: HEAD %d %v, GET %d with %d bytes", path, head.status, head.header, get.status, len(get.body))
		}
	}
}

func TestThePagesLinkTheirStylesheetWhichIsCSS(t *testing.T) {
	s := newSite(t)
	links := s.page("/polls/").Find(`link[rel="stylesheet"]`)
	if links.Length() != 2 {
		t.Fatalf("%d stylesheets", links.Length())
	}
	for _, link := range links.EachIter() {
		css := s.page("%s", link.AttrOr("href", ""))
		if got := css.header.Get("Content-Type"); got != "text/css; charset=utf-8" {
			t.Errorf("%s: %s", link.AttrOr("href", ""), got)
		}
	}
	if got := s.page("/static/polls/style.css").header.Get("Content-Type"); got != "text/css; charset=utf-8" {
		t.Errorf("without a version: %s", got)
	}
}
