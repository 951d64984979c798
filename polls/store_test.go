package polls_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"ddtb/app/fault"
	"ddtb/db"
	"ddtb/db/dbtest"
	"ddtb/polls"
)

func TestEachPageIsOneQueryAndSoIsAVote(t *testing.T) {
	s := newSite(t)
	q, _ := s.ask("Anyone?", time.Hour, "Me", "You")
	for name, visit := range map[string]func() answer{
		"list":    func() answer { return s.get("/polls/") },
		"detail":  func() answer { return s.get("/polls/%d/", q) },
		"results": func() answer { return s.get("/polls/%d/results/", q) },
		"vote":    func() answer { return s.vote(q, "1") },
		"no vote": func() answer { return s.vote(q) },
		"missing": func() answer { return s.get("/polls/%d/", q+1) },
		"no id":   func() answer { return s.get("/polls/x/") },
	} {
		want := int64(1)
		if name == "no id" {
			want = 0
		}
		before := s.db.Stat().Acquired
		visit()
		if got := s.db.Stat().Acquired - before; got != want {
			t.Errorf("%s: %d leases, want %d", name, got, want)
		}
	}
}

func TestTheListReadsAHandfulOfRowsAmongManyThroughTheIndex(t *testing.T) {
	d := dbtest.Open(t)
	for _, sql := range []string{
		`INSERT INTO polls_question (question_text, pub_date) SELECT n, now() - n * interval '1 minute' FROM generate_series(1, 20000) n`,
		`ANALYZE polls_question`, // otherwise the planner assumes a small table
	} {
		if _, err := d.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	var plan []struct {
		Plan plan
	}
	var text []byte
	err := d.QueryRow(t.Context(), "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) "+polls.LatestSQL, 5).Scan(&text)
	if err == nil {
		err = json.Unmarshal(text, &plan)
	}
	if err != nil {
		t.Fatal(err)
	}
	leaf := plan[0].Plan
	for len(leaf.Plans) > 0 {
		leaf = leaf.Plans[0]
	}
	if leaf.IndexName != "polls_question_pub_date_id_idx" || leaf.Rows+leaf.Filtered > 6 {
		t.Errorf("%s on index %q read %v rows and threw away %v:\n%s", leaf.NodeType, leaf.IndexName, leaf.Rows, leaf.Filtered, text)
	}
}

// plan is a node of EXPLAIN's.
type plan struct {
	NodeType  string  `json:"Node Type"`
	IndexName string  `json:"Index Name"`
	Rows      float64 `json:"Actual Rows"`
	Filtered  float64 `json:"Rows Removed by Filter"`
	Plans     []plan
}

func TestTheDemoIsLoadedOnceWhoeverAsks(t *testing.T) {
	s := newSite(t)
	store := polls.NewStore(s.db)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var sum int
	for range 8 {
		wg.Go(func() {
			made, err := store.LoadDemo(t.Context(), now)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			sum += made
		})
	}
	wg.Wait()
	var stored, future int
	err := s.db.QueryRow(t.Context(), `SELECT count(*), count(*) FILTER (WHERE pub_date > $1) FROM polls_question`, now).Scan(&stored, &future)
	if err != nil || sum == 0 || stored != sum {
		t.Errorf("%d questions stored, %d made, %v", stored, sum, err)
	}
	list := s.page("/polls/")
	if future != 1 || list.Find(".polls a").Length() != 5 || list.Find(".polls .tag").Length() != 1 {
		t.Errorf("%d of the future, and the list is %q", future, list.texts(".polls li"))
	}
	for _, link := range list.Find(".polls a").EachIter() {
		page := s.page("%sresults/", link.AttrOr("href", ""))
		if page.Find(".results li").Length() < 2 {
			t.Errorf("%s has %d choices", words(link), page.Find(".results li").Length())
		}
	}
}

func TestTheDemoLeavesADatabaseAloneThatHasAQuestion(t *testing.T) {
	s := newSite(t)
	s.ask("Somebody's own, and of the future", -time.Hour)
	if made, err := polls.NewStore(s.db).LoadDemo(t.Context(), now); made != 0 || err != nil {
		t.Errorf("made %d, %v", made, err)
	}
}

// Django before 3.2 made the ids integer: an id beyond them is a question that is not there, no error.
func TestTablesWithIntegerIdsAreServedAsWell(t *testing.T) {
	s := newSite(t)
	if _, err := s.db.Exec(t.Context(), `ALTER TABLE polls_question ALTER id TYPE integer`); err != nil {
		t.Fatal(err)
	}
	if _, err := s.db.Exec(t.Context(), `ALTER TABLE polls_choice ALTER id TYPE integer, ALTER question_id TYPE integer`); err != nil {
		t.Fatal(err)
	}
	q, ids := s.ask("Anyone?", time.Hour, "Me")
	for _, id := range []int64{1 << 31, 1<<63 - 1} {
		if a := s.get("/polls/%d/", id); a.status != http.StatusNotFound {
			t.Errorf("question %d: %d", id, a.status)
		}
	}
	if a := s.vote(q, "2147483648"); a.status != http.StatusOK {
		t.Errorf("a choice beyond: %d", a.status)
	}
	if a := s.vote(q, "1"); a.status != http.StatusFound || s.votes()[ids[0]] != 1 {
		t.Errorf("a vote: %d, %v", a.status, s.votes())
	}
	if _, err := polls.NewStore(s.db).LoadDemo(t.Context(), now); err != nil {
		t.Error(err)
	}
}

func TestWithoutADatabaseEveryPageIsUnavailableAndTheCauseIsKept(t *testing.T) {
	s := siteOn(t, unreachable(t))
	for _, path := range []string{"/polls/", "/polls/1/", "/polls/1/results/"} {
		if a := s.get("%s", path); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
			t.Errorf("%s: %d, Retry-After %q", path, a.status, a.header.Get("Retry-After"))
		}
	}
	for _, choice := range []string{"1", ""} {
		if a := s.vote(1, choice); a.status != http.StatusServiceUnavailable {
			t.Errorf("vote %q: %d", choice, a.status)
		}
	}
	store := polls.NewStore(s.db)
	_, latest := store.Latest(t.Context(), 5)
	_, published := store.Published(t.Context(), 1)
	_, vote := store.Vote(t.Context(), 1, 1, polls.NewToken())
	_, demo := store.LoadDemo(t.Context(), now)
	for what, err := range map[string]error{
		"latest polls: ": latest, "poll 1: ": published, "vote for choice 1 of poll 1: ": vote, "load the demo polls: ": demo,
	} {
		cause := db.CauseOf(err) // after a few attempts, no more are made
		if cause != db.ServerUnavailable && cause != db.CircuitOpen || fault.KindOf(err) != fault.Internal || !strings.HasPrefix(err.Error(), what) {
			t.Errorf("not %q: %v", what, err)
		}
	}
}

// unreachable is a database at an address without a listener.
func unreachable(t *testing.T) *db.DB {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := dbtest.Config(t)
	cfg.Port = l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	d, err := db.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close(context.Background()) })
	return d
}

// A declared read may be sent to a replica, and may run twice: it must not write.
func TestDeclaredReadsWorkWhereNothingMayBeWritten(t *testing.T) {
	cfg := dbtest.Config(t)
	writable, err := db.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := polls.NewStore(writable).LoadDemo(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	cfg.Options = "-c default_transaction_read_only=on"
	d, err := db.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = writable.Close(context.Background()), d.Close(context.Background()) })
	store := polls.NewStore(d)
	questions, err := store.Latest(t.Context(), 5)
	if err != nil || len(questions) == 0 {
		t.Fatalf("the list: %d questions, %v", len(questions), err)
	}
	if _, err := store.Published(t.Context(), questions[0].ID); err != nil {
		t.Errorf("a question: %v", err)
	}
	_, err = d.Read().Exec(t.Context(), "UPDATE polls_choice SET votes = votes + 1")
	if e, ok := errors.AsType[*pgconn.PgError](err); !ok || e.Code != pgerrcode.ReadOnlySQLTransaction {
		t.Errorf("a read that writes: %v", err)
	}
}

// In a transaction the server's clock stands still.
func TestAQuestionIsPublishedFromTheMicrosecondOfItsDate(t *testing.T) {
	d := dbtest.Open(t)
	for offset, want := range map[string]int{"0 s": 1, "-1 us": 1, "1 us": 0} {
		err := d.InTx(t.Context(), func(q db.Querier) error {
			var id int64
			err := q.QueryRow(t.Context(), `INSERT INTO polls_question (question_text, pub_date) VALUES ('Now?', now() + $1::interval) RETURNING id`, offset).Scan(&id)
			if err != nil {
				return err
			}
			for sql, arg := range map[string]any{polls.LatestSQL: 5, polls.PublishedSQL: id} {
				rows, err := q.Query(t.Context(), sql, arg)
				if err != nil {
					return err
				}
				found, err := pgx.CollectRows(rows, pgx.RowToMap)
				if err != nil || len(found) != want {
					t.Errorf("%s after now: %d rows, %v, by%s", offset, len(found), err, sql)
				}
			}
			return errRollBack
		})
		if !errors.Is(err, errRollBack) {
			t.Error(err)
		}
	}
}

var errRollBack = errors.New("roll back")
