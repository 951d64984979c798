package app_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/PuerkitoBio/goquery"

	"ddtb/config"
	"ddtb/db/dbtest"
)

// formOf is where the form in the page goes, and what it sends.
func formOf(t testing.TB, a answer) (action string, form url.Values) {
	t.Helper()
	doc, err := goquery.NewDocumentFromReader(strings.NewReader(a.body))
	if err != nil {
		t.Fatal(err)
	}
	form = url.Values{}
	for _, input := range doc.Find(`main form input[type="hidden"]`).EachIter() {
		form.Add(input.AttrOr("name", ""), input.AttrOr("value", ""))
	}
	return doc.Find("main form").AttrOr("action", ""), form
}

func TestAVoteThatFailedIsSentAgainFromThe503PageAndCountsOnce(t *testing.T) {
	t.Parallel()
	server := dbtest.NewServer(t, dbtest.Options{})
	for _, strategy := range strategies {
		t.Run(strategy.name, func(t *testing.T) {
			cfg := server.Config(t)
			s := siteOn(t, cfg, func(c *config.Config) { setDatabase(c, strategy.set) })
			s.loadDemo()
			action, form := formOf(t, s.get("/polls/1/"))
			form.Set("choice", "5")     // which has no votes
			server.Stop(t, dbtest.Fast) // which loses nothing, though the test's server does not sync
			failed := s.post(action, form, "Accept", "text/html")
			mustContain(t, failed, 503, "Send it again")
			if json := s.post(action, form, "Accept", "application/json"); strings.Contains(json.body, form.Get("token")) || json.StatusCode != 503 {
				t.Errorf("JSON: %s %s", json.Status, json.body)
			}
			server.Start(t)
			again, kept := formOf(t, failed)
			if again != action || kept.Encode() != form.Encode() {
				t.Errorf("%s with %v, want %s with %v", again, kept, action, form)
			}
			for range 2 {
				var a answer
				dbtest.Eventually(t, "the vote is answered", func() bool {
					a = s.post(again, kept, "Accept", "text/html", "Origin", s.url)
					return a.StatusCode != http.StatusServiceUnavailable
				})
				if a.StatusCode != http.StatusFound {
					t.Errorf("%s\n%s", a.Status, a.body)
				}
			}
			var votes int
			if err := dbtest.Control(t, cfg).QueryRow(t.Context(), "SELECT votes FROM polls_choice WHERE id = 5").Scan(&votes); err != nil || votes != 1 {
				t.Errorf("%d votes, %v", votes, err)
			}
			s.mustBeIdle()
		})
	}
}

func TestALoginThatFailedWith503ShowsNoPassword(t *testing.T) {
	t.Parallel()
	cfg := dbtest.Config(t)
	cfg.Password = "not the password"
	s := siteOn(t, cfg, nil)
	a := s.post("/admin/login/", url.Values{"username": {"ada"}, "password": {"correct horse"}}, "Accept", "text/html")
	if a.StatusCode != 503 || strings.Contains(a.body, "correct horse") {
		t.Errorf("%s\n%s", a.Status, a.body)
	}
}
