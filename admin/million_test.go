package admin_test

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"ddtb/admin"
	"ddtb/db/dbtest"
)

// many puts in that many questions over six years, and lets PostgreSQL know them.
func (s *site) many(n int) {
	s.t.Helper()
	s.exec(`INSERT INTO polls_question (question_text, pub_date)
		SELECT 'Question ' || md5(n::text), '2021-01-01'::timestamptz + (n * interval '6 years' / $1::int) FROM generate_series(1, $1::int) n`, n)
	s.exec(`VACUUM ANALYZE polls_question`)
}

// aPage is what a plan says that read a hundred rows; PostgreSQL 18 counts them with decimals.
var aPage = regexp.MustCompile(`actual rows=100(\.00)? `)

func TestTheFirstPageReadsNoMoreRowsThanItShows(t *testing.T) {
	s := newSite(t)
	s.many(50_000)
	for _, query := range []string{"", "o=1", "o=-1", "o=2", "o=-2", "o=3", "pub_date__year=2023", "pub_date__gte=2023-05-01&pub_date__lt=2023-06-01"} {
		plan, err := admin.PlanOfQuestions(t.Context(), s.db, query)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(plan, "Seq Scan") || strings.Contains(plan, "Sort") || !aPage.MatchString(plan) {
			t.Errorf("%s:\n%s", query, plan)
		}
	}
	list := s.as("ada").get("/admin/polls/question/")
	if text := list.Find(".count").Text(); !strings.HasPrefix(text, "about 50,") && !strings.HasPrefix(text, "about 49,") {
		t.Errorf("counted %q", text)
	}
}

// BenchmarkTheListOfAMillionQuestions is the whole answer over HTTP; -v shows the plan of each page's query.
func BenchmarkTheListOfAMillionQuestions(b *testing.B) {
	cfg := dbtest.Config(b)
	cfg.QueryTimeout = 10 * time.Minute // of the insert
	s := newSiteOn(b, cfg)
	s.many(1_000_000)
	v := s.as("ada")
	for name, query := range map[string]string{
		"first page": "", "by text": "o=1", "by date, oldest first": "o=2", "a year": "pub_date__year=2023",
		"a month by text": "pub_date__year=2023&pub_date__month=5&o=1", "today": "pub_date__gte=2026-11-21&pub_date__lt=2026-11-22",
		"page 10": "p=10", "page 9,000": "p=9000", "search, common": "q=question", "search, rare": "q=cafe0",
	} {
		b.Run(name, func(b *testing.B) {
			plan, err := admin.PlanOfQuestions(b.Context(), s.db, query)
			if err != nil {
				b.Fatal(err)
			}
			b.Log("\n" + plan)
			for b.Loop() {
				v.get("/admin/polls/question/?" + query).want(http.StatusOK)
			}
		})
	}
}
