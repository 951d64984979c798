package polls_test

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/PuerkitoBio/goquery"
	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"ddtb/app/web"
	"ddtb/db"
	"ddtb/db/dbtest"
	"ddtb/polls"
)

func TestMain(m *testing.M) { dbtest.Run(m) }

// site is the polls over HTTP, on a database of their own.
type site struct {
	t   *testing.T
	db  *db.DB
	url string
}

func newSite(t *testing.T) *site {
	t.Helper()
	return siteOn(t, dbtest.Open(t))
}

func siteOn(t *testing.T, d *db.DB) *site {
	t.Helper()
	h := polls.New(polls.NewStore(d))
	e := echo.New()
	e.HTTPErrorHandler = web.HandleErrors(slog.New(slog.DiscardHandler), nil)
	for _, r := range append(h.Routes(), web.Get("/static/*", web.Static(polls.Static))) {
		e.Add(r.Method, r.Path, r.Handler)
		if r.Method == http.MethodGet {
			e.HEAD(r.Path, r.Handler)
		}
	}
	srv := httptest.NewServer(e)
	t.Cleanup(srv.Close)
	return &site{t, d, srv.URL}
}

// ask stores a question that was published that long ago, with choices without votes, and gives their ids.
func (s *site) ask(text string, age time.Duration, choices ...string) (question int64, ids []int64) {
	s.t.Helper()
	ctx := s.t.Context()
	err := s.db.QueryRow(ctx, `INSERT INTO polls_question (question_text, pub_date) VALUES ($1, $2) RETURNING id`,
		text, now.Add(-age)).Scan(&question)
	for _, c := range choices {
		var id int64
		if err == nil {
			err = s.db.QueryRow(ctx, `INSERT INTO polls_choice (choice_text, votes, question_id) VALUES ($1, 0, $2) RETURNING id`,
				c, question).Scan(&id)
		}
		ids = append(ids, id)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return question, ids
}

func (s *site) setVotes(choice, votes int64) {
	s.t.Helper()
	if _, err := s.db.Exec(s.t.Context(), `UPDATE polls_choice SET votes = $2 WHERE id = $1`, choice, votes); err != nil {
		s.t.Fatal(err)
	}
}

// votes are all votes in the database, by choice.
func (s *site) votes() map[int64]int64 {
	s.t.Helper()
	m := map[int64]int64{}
	rows, err := s.db.Query(s.t.Context(), `SELECT id, votes FROM polls_choice WHERE votes <> 0`)
	if err == nil {
		var id, votes int64
		_, err = pgx.ForEachRow(rows, []any{&id, &votes}, func() error {
			m[id] = votes
			return nil
		})
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return m
}

// answer is a response that was read to its end. Redirects are not followed.
type answer struct {
	status int
	header http.Header
	body   string
	*goquery.Document
}

var client = &http.Client{
	Transport:     &http.Transport{MaxIdleConnsPerHost: 8},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func (s *site) do(method, path, contentType string, body io.Reader) (answer, error) {
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, body)
	if err != nil {
		return answer{}, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	text, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		return answer{}, err
	}
	doc, err := goquery.NewDocumentFromReader(strings.NewReader(string(text)))
	return answer{resp.StatusCode, resp.Header, string(text), doc}, err
}

func (s *site) get(format string, args ...any) answer {
	s.t.Helper()
	a, err := s.do(http.MethodGet, fmt.Sprintf(format, args...), "", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

// page is a get that must succeed.
func (s *site) page(format string, args ...any) answer {
	s.t.Helper()
	a := s.get(format, args...)
	if a.status != http.StatusOK {
		s.t.Fatalf("%s: %d", fmt.Sprintf(format, args...), a.status)
	}
	return a
}

const urlencoded = "application/x-www-form-urlencoded"

// vote posts the form as a browser does.
func (s *site) vote(question int64, choice ...string) answer {
	s.t.Helper()
	a, err := s.do(http.MethodPost, fmt.Sprintf("/polls/%d/vote/", question), urlencoded,
		strings.NewReader(url.Values{"choice": choice}.Encode()))
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

// text is what a reader sees of the selection, with blanks as one reads them.
func (a answer) text(selector string) string { return words(a.Find(selector)) }

func (a answer) texts(selector string) []string {
	return a.Find(selector).Map(func(_ int, sel *goquery.Selection) string { return words(sel) })
}

func words(sel *goquery.Selection) string { return strings.Join(strings.Fields(sel.Text()), " ") }
