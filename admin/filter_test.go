package admin_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestAListUnderstandsDjangosLookups(t *testing.T) {
	s := newSite(t)
	s.addQuestion("Alpha cats", day("2025-03-03"))
	s.addQuestion("Beta dogs", day("2026-03-04"))
	s.addQuestion("gamma cats", day("2026-11-05"))
	v := s.as("ada")
	for query, want := range map[string][]string{
		"question_text=Beta dogs":                      {"Beta dogs"},
		"question_text__iexact=beta DOGS":              {"Beta dogs"},
		"question_text__startswith=Al":                 {"Alpha cats"},
		"question_text__startswith=al":                 nil,
		"question_text__istartswith=al":                {"Alpha cats"},
		"question_text__endswith=cats":                 {"Alpha cats", "gamma cats"},
		"question_text__contains=%":                    nil,
		"question_text__icontains=GAMMA":               {"gamma cats"},
		"question_text__in=Beta dogs,gamma cats":       {"Beta dogs", "gamma cats"},
		"question_text__gte=b":                         {"gamma cats"},
		"question_text__isnull=1":                      nil,
		"question_text__isnull=0":                      {"Alpha cats", "Beta dogs", "gamma cats"},
		"id__in=0":                                     nil,
		"pk__gte=0":                                    {"Alpha cats", "Beta dogs", "gamma cats"},
		"pub_date__gte=2026-01-01":                     {"Beta dogs", "gamma cats"},
		"pub_date__range=2026-01-01,2026-06-01":        {"Beta dogs"},
		"pub_date__date=2026-03-04":                    {"Beta dogs"},
		"pub_date__month=3":                            {"Alpha cats", "Beta dogs"},
		"pub_date__month=13":                           nil,
		"pub_date__year=2026&pub_date__month=11":       {"gamma cats"},
		"pub_date__month=3&question_text__endswith=ts": {"Alpha cats"},
	} {
		t.Run(query, func(t *testing.T) {
			values, err := url.ParseQuery(strings.ReplaceAll(strings.ReplaceAll(query, " ", "+"), "%", "%25"))
			if err != nil {
				t.Fatal(err)
			}
			got := v.get("/admin/polls/question/?o=1&" + values.Encode()).want(http.StatusOK).column(0)
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestARelationIsFilteredByItsID(t *testing.T) {
	v := newSite(t).as("ada")
	for _, query := range []string{"groups=1", "groups__id__exact=1", "groups__in=1,2", "groups__isnull=0"} {
		t.Run(query, func(t *testing.T) {
			v.get("/admin/auth/user/?" + query).want(http.StatusOK).says("No users match.")
		})
	}
	v.get("/admin/auth/user/?groups__isnull=1").want(http.StatusOK).says("ada")
	for _, query := range []string{"user=0", "user__id__exact=0", "user_id__in=0", "content_type__exact=0"} {
		t.Run(query, func(t *testing.T) {
			v.get("/admin/admin/logentry/?" + query).want(http.StatusOK).says("No log entries match.")
		})
	}
}

func TestAnAddressThatAListDoesNotUnderstandLeadsToAllRowsWithANotice(t *testing.T) {
	s := newSite(t)
	s.addQuestion("Alpha cats", day("2025-03-03"))
	v := s.as("ada")
	for _, query := range []string{
		"nonsense=1", "question_text__nonsense=x", "question_text__regex=x", "choice__votes__gte=1", "pub_date__gte=yesterday",
		"pub_date__year=0", "pub_date__year=2025&pub_date__month=13", "pub_date__month=x", "id=x", "id__range=1", "p=x", "o=x", "nonsense=",
	} {
		t.Run(query, func(t *testing.T) {
			p := v.get("/admin/polls/question/?" + query).want(http.StatusFound)
			if to := p.Header.Get("Location"); to != "/admin/polls/question/?e=1" {
				t.Errorf("it leads to %q", to)
			}
			p.follow().want(http.StatusOK).says("does not understand").says("Alpha cats")
		})
	}
}
