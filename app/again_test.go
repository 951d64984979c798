package app_test

import (
	"fmt"
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

// A commit that waits for a standby is done on the server already. Who is cut off then can't know.
func TestAVoteWhoseConnectionDiedAtItsCommitIsCountedAndCountsOnceWhenSentAgain(t *testing.T) {
	t.Parallel()
	server := dbtest.NewServer(t, dbtest.Options{Settings: map[string]string{
		"wal_level": "replica", "max_wal_senders": "1", "synchronous_standby_names": "nobody", // for those who ask to wait
	}})
	for _, strategy := range strategies {
		t.Run(strategy.name, func(t *testing.T) {
			s := siteOn(t, server.Config(t), func(c *config.Config) { setDatabase(c, strategy.set) })
			s.loadDemo()
			control := dbtest.Control(t, s.cfg.Databases["default"])
			action, form := s.ballot()
			execute(t, control,
				`CREATE FUNCTION wait_for_standby() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
					PERFORM set_config('synchronous_commit', 'on', true); RETURN NEW; END $$`,
				"CREATE TRIGGER wait BEFORE INSERT ON ddtb_vote FOR EACH ROW EXECUTE FUNCTION wait_for_standby()")
			failed := make(chan answer, 1)
			go func() {
				a, err := s.send(t.Context(), fresh, http.MethodPost, action, strings.NewReader(form.Encode()), "Content-Type", urlencoded, "Accept", "text/html")
				if err != nil {
					t.Error(err)
				}
				failed <- a
			}()
			var pid int
			dbtest.Eventually(t, "the vote waits at its commit", func() bool {
				err := control.QueryRow(t.Context(), `SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'SyncRep'`).Scan(&pid)
				return err == nil
			})
			execute(t, control, fmt.Sprintf("SELECT pg_terminate_backend(%d)", pid))
			a := <-failed
			if a.Response == nil {
				t.Fatal("no answer")
			}
			mustContain(t, a, 503, "Send it again", "it counts only once")
			if strings.Contains(a.body, "check that before") {
				t.Errorf("the page asks the voter to check first:\n%s", a.body)
			}
			dbtest.Eventually(t, "the backend is gone", func() bool {
				var n int
				err := control.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE pid = $1", pid).Scan(&n)
				return err == nil && n == 0
			})
			mustCount(t, control, 1) // though it was not acknowledged
			execute(t, control, "DROP TRIGGER wait ON ddtb_vote")
			again, kept := formOf(t, a)
			for range 2 {
				if a := s.post(again, kept); a.StatusCode != http.StatusFound {
					t.Errorf("sent again: %s\n%s", a.Status, a.body)
				}
			}
			mustCount(t, control, 1)
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
