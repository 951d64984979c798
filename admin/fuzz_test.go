package admin

import (
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
)

func FuzzTheListUnderstandsAnyAddress(f *testing.F) {
	for _, seed := range []string{
		"q=a+b&o=1.-2&p=3", "pub_date__year=2024&pub_date__month=2&pub_date__day=30", "pub_date__gte=2026-01-01&pub_date__lt=x",
		`q="a b" c%00`, "o=-0.9999999999999999999", "o=-9223372036854775808", "pub_date__month=3", "p=-1", "all=", "groups__id__exact=1", "is_staff__exact=2&_changelist_filters=q%3Dx",
	} {
		f.Add(seed)
	}
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, raw string) {
		query, _ := url.ParseQuery(raw)
		for _, m := range models {
			l, understood := parseChangelist(m, query, now)
			if !understood {
				continue
			}
			if l.page < 1 || l.page > maxPage {
				t.Errorf("page %d", l.page)
			}
			sql := l.where.String() + l.orderBy()
			for _, c := range l.where.conditions {
				if strings.ContainsAny(strings.ReplaceAll(c, "'UTC'", ""), "';\x00") || strings.Contains(c, "--") {
					t.Errorf("the condition %q", c)
				}
			}
			if n := strings.Count(sql, "$"); len(l.where.args) > n {
				t.Errorf("%d parameters for %d places in %s", len(l.where.args), n, sql)
			}
			again, understood := parseChangelist(m, mustParse(t, l.Self()[1:]), now)
			if !understood || again.where.String() != l.where.String() || again.page != l.page {
				t.Errorf("%q does not survive its own link %q", raw, l.with())
			}
			l.Heads()
			l.Filters()
			l.steps, l.Matches = []time.Time{now}, count{N: 1_000_000}
			if l.depth == len(dateUnits) {
				l.steps = nil
			}
			l.Dates()
			l.Pages()
		}
	})
}

func mustParse(t *testing.T, query string) url.Values {
	t.Helper()
	v, err := url.ParseQuery(query)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func FuzzAFieldTakesAnyTextAndGivesItBack(f *testing.F) {
	for _, seed := range []string{"", "a", " x ", "2026-11-21", "25:61", "12:30:00.5", "99999999999999999999", "-0", "\x00", "\xff", "1/2/06", "0000-01-01", "9999-12-31"} {
		f.Add(seed, seed)
	}
	fields := []*Field{{Kind: Text, Max: 5}, {Kind: Integer, Max: maxInt4}, {Kind: Boolean}, {Kind: DateTime}, {Kind: Many}, {Kind: NewPassword}}
	f.Fuzz(func(t *testing.T, one, two string) {
		form := url.Values{"f": {one, two}, "f_0": {one}, "f_1": {two}, "password1": {one}, "password2": {two}}
		for _, k := range fields {
			value, problem := k.parse(k.posted(form, "f"))
			if problem != "" || value == nil {
				continue
			}
			if k.Kind == NewPassword {
				continue
			}
			if back, problem := k.parse(k.raw(k.text(value))); problem != "" || k.text(back) != k.text(value) {
				t.Errorf("%s: %q, %q is %q, shown as %q, read as %q: %s", k.Kind, one, two, k.text(value), k.raw(k.text(value)), k.text(back), problem)
			}
			if n, ok := value.(int64); ok && (n < 0 || n > maxInt4) {
				t.Errorf("%d is out of bounds", n)
			}
			if s, ok := value.(string); ok && (!utf8.ValidString(s) || strings.ContainsRune(s, 0) || utf8.RuneCountInString(s) > 5) {
				t.Errorf("%q is taken", s)
			}
		}
	})
}

func FuzzNextNeverLeavesTheHost(f *testing.F) {
	for _, seed := range []string{"/admin/", "//x", "/\\x", "http://x", "/a?b#c", "/%2f/x", "/\t/x", "/a//b", "\x00", "/..//x"} {
		f.Add(seed)
	}
	base, _ := url.Parse("https://here.example/admin/login/")
	f.Fuzz(func(t *testing.T, next string) {
		to := safeNext(next)
		u, err := base.Parse(to)
		if err != nil || u.Host != "here.example" || u.Scheme != "https" {
			t.Errorf("%q leads to %q", next, to)
		}
		if !strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//") || strings.HasPrefix(to, "/\\") || strings.ContainsAny(to, "\r\n\t\\") {
			t.Errorf("%q leads to %q", next, to)
		}
	})
}

func FuzzAnyChangeMessageIsReadable(f *testing.F) {
	for _, seed := range []string{"", "[]", `[{"added": {}}]`, `[{"changed": {"fields": ["A", "B"]}}, {"deleted": {"name": "c", "object": "x"}}]`, "[", `[{"changed":null}]`, `[[]]`, "old text"} {
		f.Add(seed)
	}
	f.Fuzz(func(_ *testing.T, text string) { readable(text) })
}

func TestChangeMessagesReadAsDjangos(t *testing.T) {
	for text, want := range map[string]string{
		`[]`: "No fields changed.", `[{"added": {}}]`: "Added.", ``: "", `Changed name.`: "Changed name.",
		`[{"changed": {"fields": ["A"]}}]`:                                  "Changed A.",
		`[{"changed": {"fields": ["A", "B", "C"]}}]`:                        "Changed A, B and C.",
		`[{"added": {"name": "choice", "object": "x"}}]`:                    "Added choice “x”.",
		`[{"changed": {"name": "choice", "object": "x", "fields": ["V"]}}]`: "Changed V for choice “x”.",
		`[{"deleted": {"name": "choice", "object": "x"}}]`:                  "Deleted choice “x”.",
	} {
		if got := readable(text); got != want {
			t.Errorf("%s: %q", text, got)
		}
	}
}

func TestADeclarationThatNamesNoFieldPanics(t *testing.T) {
	for _, m := range models {
		m.check()
	}
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	(&Model{Name: "x", Search: []string{"missing"}}).check()
}

func TestIdentifiersAreQuoted(t *testing.T) {
	if got, want := ident(`a"; DROP`), (pgx.Identifier{`a"; DROP`}).Sanitize(); got != want || got != `"a""; DROP"` {
		t.Errorf("got %s", got)
	}
}
