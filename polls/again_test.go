package polls_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
	"ddtb/polls"
)

// form is the question's form as the page has it, with that choice.
func (s *site) form(question, choice int64) url.Values {
	s.t.Helper()
	token := s.page("/polls/%d/", question).Find(`form input[type="hidden"][name="token"]`)
	return url.Values{"token": {token.AttrOr("value", "")}, "choice": {fmt.Sprint(choice)}}
}

func (s *site) send(question int64, form url.Values) answer {
	s.t.Helper()
	a, err := s.do(http.MethodPost, fmt.Sprintf("/polls/%d/vote/", question), urlencoded, strings.NewReader(form.Encode()))
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

// notes is how many forms are known to have voted.
func (s *site) notes() (n int) {
	s.t.Helper()
	if err := s.db.QueryRow(s.t.Context(), `SELECT count(*) FROM ddtb_vote`).Scan(&n); err != nil {
		s.t.Fatal(err)
	}
	return n
}

func TestEachRenderingOfAFormHasItsOwnVoteTokenAndIsNotCached(t *testing.T) {
	s := newSite(t)
	q, ids := s.ask("Anyone?", time.Hour, "Me")
	seen := map[string]bool{}
	for range 20 {
		token := s.form(q, ids[0]).Get("token")
		if len(token) != 32 || seen[token] {
			t.Errorf("token %q", token)
		}
		seen[token] = true
	}
	page := s.page("/polls/%d/", q)
	if got := page.header.Get("Cache-Control"); got != "private, no-cache" {
		t.Errorf("Cache-Control: %q", got)
	}
	if page.Find("[name=token]").AttrOr("autocomplete", "") != "off" {
		t.Error("a reload puts the old token back")
	}
}

func TestAVoteThatIsSentAgainCountsOnceAndIsAnsweredAlike(t *testing.T) {
	s := newSite(t)
	q, ids := s.ask("Anyone?", time.Hour, "Me", "You")
	form := s.form(q, ids[0])
	for range 3 {
		a := s.send(q, form)
		if want := fmt.Sprintf("/polls/%d/results/", q); a.status != http.StatusFound || a.header.Get("Location") != want {
			t.Errorf("%d to %q", a.status, a.header.Get("Location"))
		}
	}
	if got, want := s.votes(), (map[int64]int64{ids[0]: 1}); !maps.Equal(got, want) {
		t.Errorf("votes: %v, want %v", got, want)
	}
	s.send(q, s.form(q, ids[0])) // another form
	form.Set("choice", fmt.Sprint(ids[1]))
	s.send(q, form) // another choice from the first
	if got, want := s.votes(), (map[int64]int64{ids[0]: 2, ids[1]: 1}); !maps.Equal(got, want) {
		t.Errorf("votes: %v, want %v", got, want)
	}
}

func TestAnInvalidTokenIsRejected(t *testing.T) {
	s := newSite(t)
	q, ids := s.ask("Anyone?", time.Hour, "Me")
	good := polls.NewToken().String()
	for name, tokens := range map[string][]string{
		"empty": {""}, "short": {good[1:]}, "long": {good + "0"}, "no hex": {strings.Repeat("z", 32)}, "two": {good, good},
		"zero": {strings.Repeat("0", 32)}, "NUL": {good[1:] + "\x00"}, "SQL": {"' OR 1=1 --"},
	} {
		a := s.send(q, url.Values{"choice": {fmt.Sprint(ids[0])}, "token": tokens})
		if a.status != http.StatusOK || !strings.Contains(a.text("[role=alert]"), "nothing was counted") || a.Find("[name=token]").Length() != 1 {
			t.Errorf("%s: %d %s", name, a.status, a.text("main"))
		}
	}
	if votes := s.votes(); len(votes) != 0 {
		t.Errorf("votes were counted: %v", votes)
	}
}

func TestATokenOfARefusedVoteIsNotUsedUp(t *testing.T) {
	s := newSite(t)
	q, ids := s.ask("Anyone?", time.Hour, "Me")
	future, later := s.ask("Of the future", -time.Hour, "Me")
	form := s.form(q, ids[0])
	form.Set("choice", fmt.Sprint(later[0]))
	for _, question := range []int64{q, future} { // another question's choice, and one that is not open
		if a := s.send(question, form); a.status == http.StatusFound {
			t.Errorf("question %d: %d", question, a.status)
		}
	}
	if n := s.notes(); n != 0 {
		t.Errorf("%d forms are held for used", n)
	}
	if _, err := s.db.Exec(t.Context(), `UPDATE polls_question SET pub_date = $1`, now); err != nil {
		t.Fatal(err)
	}
	if a := s.send(future, form); a.status != http.StatusFound || s.votes()[later[0]] != 1 {
		t.Errorf("%d, %v", a.status, s.votes())
	}
}

// underEachStrategy runs a test on a database of its own with each way to get a connection.
func underEachStrategy(t *testing.T, test func(*testing.T, *site)) {
	for name, set := range map[string]func(*config.Database){
		"per-request":             func(c *config.Database) { c.Strategy = db.PerRequest },
		"persistent":              func(c *config.Database) { c.Strategy = db.Persistent },
		"persistent with workers": func(c *config.Database) { c.Strategy, c.Persistent.Workers = db.Persistent, 5 },
		"pool":                    func(c *config.Database) { c.Strategy, c.Pool.MaxSize = db.Pool, 5 },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := dbtest.Config(t)
			set(&cfg)
			d, err := db.Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = d.Close(context.Background()) })
			test(t, siteOn(t, d))
		})
	}
}

func TestFiftyVotesAtOnceFromOneFormCountAsOneAndFiftyFormsAsFifty(t *testing.T) {
	underEachStrategy(t, func(t *testing.T, s *site) {
		q, ids := s.ask("Anyone?", time.Hour, "Me", "You")
		same, other := s.form(q, ids[0]), make([]url.Values, 50)
		for i := range other {
			other[i] = s.form(q, ids[1])
		}
		var wg sync.WaitGroup
		for _, form := range other {
			for _, f := range []url.Values{same, form} {
				wg.Go(func() {
					a := s.send(q, f)
					for a.status == http.StatusServiceUnavailable && t.Context().Err() == nil { // out of slots
						a = s.send(q, f)
					}
					if a.status != http.StatusFound {
						t.Errorf("%d %s", a.status, a.text("main"))
					}
				})
			}
		}
		wg.Wait()
		if got, want := s.votes(), (map[int64]int64{ids[0]: 1, ids[1]: 50}); !maps.Equal(got, want) {
			t.Errorf("votes: %v, want %v", got, want)
		}
	})
}

// A vote waits for another transaction at its choice; meanwhile its connection dies, or another vote with the same
// token arrives. Whichever comes through, one is counted.
func TestAVoteWhoseConnectionDiedWhileItWasCountedCountsOnceWhenItIsSentAgain(t *testing.T) {
	underEachStrategy(t, func(t *testing.T, s *site) {
		q, ids := s.ask("Anyone?", time.Hour, "Me")
		form := s.form(q, ids[0])
		control := dbtest.Control(t, s.db.Config())
		blocker, err := dbtest.Control(t, s.db.Config()).Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := blocker.Exec(t.Context(), `SELECT FROM polls_choice FOR UPDATE`); err != nil {
			t.Fatal(err)
		}
		waiting := func(n int) {
			t.Helper()
			dbtest.Eventually(t, fmt.Sprintf("%d votes wait", n), func() bool {
				var got int
				if err := control.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity
					WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%ddtb_vote%'`).Scan(&got); err != nil {
					t.Fatal(err)
				}
				return got == n
			})
		}
		statuses := make(chan int)
		vote := func() { statuses <- s.send(q, form).status }
		go vote()
		waiting(1)
		if _, err := control.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock'`); err != nil {
			t.Fatal(err)
		}
		if got := <-statuses; got != http.StatusServiceUnavailable {
			t.Errorf("the vote whose connection died: %d", got)
		}
		go vote()
		waiting(1)
		go vote() // waits for the one before it, not for the choice
		waiting(2)
		if err := blocker.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if got := <-statuses; got != http.StatusFound {
				t.Errorf("sent again: %d", got)
			}
		}
		if got := s.votes()[ids[0]]; got != 1 {
			t.Errorf("%d votes", got)
		}
	})
}

func TestVotesOfADayAgoAreForgottenAFewAtATime(t *testing.T) {
	s := newSite(t)
	q, ids := s.ask("Anyone?", time.Hour, "Me")
	if _, err := s.db.Exec(t.Context(), `INSERT INTO ddtb_vote (token, choice_id, at)
		SELECT md5(n::text)::uuid, $1, $2::timestamptz - interval '24 hours' - n * interval '1 second' FROM generate_series(0, 40) n`, ids[0], now); err != nil {
		t.Fatal(err)
	}
	s.send(q, s.form(q, ids[0]))
	if n := s.notes(); n != 41+1-2 {
		t.Errorf("%d are left after one vote", n)
	}
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() { s.vote(q, fmt.Sprint(ids[0])) })
	}
	wg.Wait()
	s.send(q, s.form(q, ids[0]))
	if n := s.notes(); n < 1+41 || n > 1+41+1 { // the new ones, and one that two votes met at
		t.Errorf("%d are left", n)
	}
	if got := s.votes()[ids[0]]; got != 42 {
		t.Errorf("%d votes", got)
	}
}

// A database whose transactions are REPEATABLE READ refuses to change a row that another changed meanwhile.
func TestFiftyVotesAtOnceCountAsFiftyWhereTheServerUndoesAllButOneAtATime(t *testing.T) {
	underEachStrategy(t, func(t *testing.T, s *site) {
		q, ids := s.ask("Anyone?", time.Hour, "Me", "You")
		control := dbtest.Control(t, s.db.Config())
		if _, err := control.Exec(t.Context(), "ALTER DATABASE "+s.db.Config().Name+" SET default_transaction_isolation = 'repeatable read'"); err != nil {
			t.Fatal(err)
		}
		dbtest.KillBackends(t, control, s.db.Config().ApplicationName+"/"+s.db.Config().Strategy)
		dbtest.Eventually(t, "sessions are new", func() bool { return s.get("/polls/").status == http.StatusOK })
		same := s.form(q, ids[1])
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				form := s.form(q, ids[0])
				a := s.send(q, form)
				for a.status == http.StatusConflict && t.Context().Err() == nil { // a slow machine needs more tries than there are
					a = s.send(q, form)
				}
				if a.status != http.StatusFound {
					t.Errorf("%d %s", a.status, a.text("main"))
				}
			})
		}
		for range 5 {
			wg.Go(func() {
				a := s.send(q, same)
				for a.status == http.StatusConflict && t.Context().Err() == nil {
					a = s.send(q, same)
				}
				if a.status != http.StatusFound {
					t.Errorf("a repeated vote: %d %s", a.status, a.text("main"))
				}
			})
		}
		wg.Wait()
		if got, want := s.votes(), (map[int64]int64{ids[0]: 50, ids[1]: 1}); !maps.Equal(got, want) {
			t.Errorf("votes: %v, want %v", got, want)
		}
	})
}
