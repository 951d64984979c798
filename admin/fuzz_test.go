package admin

import (
	"net/url"
	"slices"
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

func TestDeclarationsNameTheirFieldsAndColumns(t *testing.T) {
	for _, m := range append(slices.Clone(models), choice) {
		var columns []string
		for _, c := range m.Columns {
			columns = append(columns, c.Field)
		}
		names := slices.Concat(columns, m.Filters, m.Search, []string{m.Label})
		for _, set := range slices.Concat(m.Fieldsets, m.AddFieldsets) {
			names = append(names, set.Fields...)
		}
		for _, name := range names {
			if m.field(name) == nil {
				t.Errorf("%s has no field %q", m.Name, name)
			}
		}
		for _, name := range []string{strings.TrimPrefix(m.Order, "-"), m.Hierarchy} {
			if name != "" && !slices.Contains(columns, name) {
				t.Errorf("%s has no column %q", m.Name, name)
			}
		}
	}
}

func TestAPasswordsHashIsDescribedAndNeverShown(t *testing.T) {
	for hash, want := range map[string]string{
		"argon2$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$a2V5": "algorithm: argon2, variety: argon2id, m=19456, t=2, p=1",
		"pbkdf2_sha256$1000$seasalt$RXo2lf7=":              "algorithm: pbkdf2_sha256, iterations: 1000",
		"scrypt$16384$seasalt$8$5$7JiyaTKoW2mC7JKAyXg==":   "algorithm: scrypt",
		"bcrypt$$2b$04$abcdefghijklmnopqrstuuNW1CqIFsJIl0": "algorithm: bcrypt",
		"bcrypt_sha256$$2b$04$abcdefghijklmnopqrstuuzBIzQ": "algorithm: bcrypt_sha256",
		"!abc":        "No password set.",
		"":            "No password set.",
		"open$sesame": "Invalid password format or unknown hashing algorithm.",
		"a$b$c$d":     "Invalid password format or unknown hashing algorithm.",
	} {
		if got := hashParameters(hash); got != want {
			t.Errorf("%s: %s", hash, got)
		}
	}
}

func TestIdentifiersAreQuoted(t *testing.T) {
	if got, want := ident(`a"; DROP`), (pgx.Identifier{`a"; DROP`}).Sanitize(); got != want || got != `"a""; DROP"` {
		t.Errorf("got %s", got)
	}
}
