package admin

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	pageSize   = 100
	showAllMax = 200
	maxPage    = 100_000
	maxWords   = 10
	maxSearch  = 200
)

// lookups is what the address of a changelist asks for. Whatever can't be understood is left out with a note, so
// that a mangled link still shows a list.
type lookups struct {
	model  *Model
	params url.Values // those that were understood, as they were
	notes  []string
	search string
	order  []int // columns from 1, negative for the last first
	page   int
	all    bool
	where  where // search, filters and hierarchy
	level  level // of the date hierarchy
}

// level is how far the date hierarchy is opened: a year, a month of it, a day of that; 0 where it is not.
type level struct{ year, month, day int }

// parseLookups reads the query of an address. now is what "Today" is measured by.
func parseLookups(m *Model, query url.Values, now time.Time) *lookups {
	l := &lookups{model: m, params: url.Values{}, page: 1}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		value := query.Get(name)
		if value == "" || name == "_changelist_filters" {
			continue
		}
		if l.take(name, value) {
			l.params.Set(name, value)
			continue
		}
		l.leaveOut(name, value)
	}
	l.takeHierarchy()
	l.notes = l.notes[:min(len(l.notes), 5)]
	return l
}

// leaveOut notes that a parameter is none of this list's. Without a value it never was.
func (l *lookups) leaveOut(name, value string) {
	if value == "" {
		return
	}
	l.params.Del(name)
	l.notes = append(l.notes, fmt.Sprintf("“%s=%s” was left out: this list does not understand it.",
		printable(name), printable(value)))
}

// printable is what a stranger typed, short and fit for a page.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == utf8.RuneError {
			return '?'
		}
		return r
	}, s)
	if r := []rune(s); len(r) > 40 {
		return string(r[:40]) + "…"
	}
	return s
}

// take understands one parameter, or returns false.
func (l *lookups) take(name, value string) bool {
	switch name {
	case "q":
		return l.takeSearch(value)
	case "o":
		return l.takeOrder(value)
	case "p":
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 || n > maxPage {
			return false
		}
		l.page = n
		return true
	case "all":
		l.all = true
		return true
	}
	field, lookup, ok := strings.Cut(name, "__")
	if !ok {
		return false
	}
	if field == l.model.Hierarchy && l.takeLevel(lookup, value) {
		return true
	}
	if !slices.Contains(l.model.Filters, field) {
		return false
	}
	return l.takeFilter(l.model.field(field), lookup, value)
}

func (l *lookups) takeSearch(text string) bool {
	if len(l.model.Search) == 0 || len(text) > maxSearch || !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		return false
	}
	words := searchWords(text)
	if len(words) > maxWords {
		return false
	}
	l.search = text
	for _, word := range words {
		pattern := l.where.param("%" + likeEscaper.Replace(word) + "%")
		var columns []string
		for _, column := range l.model.Search {
			columns = append(columns, fmt.Sprintf("t.%s ILIKE %s::text", ident(column), pattern))
		}
		l.where.and("(" + strings.Join(columns, " OR ") + ")")
	}
	return true
}

var likeEscaper = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

// searchWords splits at spaces, but keeps what stands in double quotes together.
func searchWords(text string) []string {
	var words []string
	for i, part := range strings.Split(text, `"`) {
		if i%2 == 1 && part != "" {
			words = append(words, part)
			continue
		}
		words = append(words, strings.Fields(part)...)
	}
	return words
}

// takeOrder understands "2.-1": by the second column, then by the first, the last first.
func (l *lookups) takeOrder(text string) bool {
	var order []int
	for part := range strings.SplitSeq(text, ".") {
		n, err := strconv.Atoi(part)
		columns := len(l.model.Columns)
		if err != nil || n == 0 || n < -columns || n > columns || len(order) == columns { // abs of the least int is negative
			return false
		}
		order = append(order, n)
	}
	l.order = order
	return true
}

func abs(n int) int { return max(n, -n) }

func (l *lookups) takeLevel(lookup, value string) bool {
	bounds := map[string]struct {
		into *int
		max  int
	}{"year": {&l.level.year, 9999}, "month": {&l.level.month, 12}, "day": {&l.level.day, 31}}
	b, known := bounds[lookup]
	n, err := strconv.Atoi(value)
	if !known || err != nil || n < 1 || n > b.max {
		return false
	}
	*b.into = n
	return true
}

// takeHierarchy turns the level into a range, which an index can answer. A month without its year, or a day that
// its month does not have, is left out.
func (l *lookups) takeHierarchy() {
	if l.level == (level{}) {
		return
	}
	from, to := l.level.span()
	if v := l.level; v.year == 0 || (v.month == 0 && v.day > 0) || (v.day > 0 && from.Day() != v.day) {
		for _, part := range []string{"year", "month", "day"} {
			l.leaveOut(l.model.Hierarchy+"__"+part, l.params.Get(l.model.Hierarchy+"__"+part))
		}
		l.level = level{}
		return
	}
	l.between(l.model.Hierarchy, from, to)
}

func (v level) span() (from, to time.Time) {
	from = time.Date(v.year, time.Month(max(v.month, 1)), max(v.day, 1), 0, 0, 0, 0, time.UTC)
	switch {
	case v.day > 0:
		return from, from.AddDate(0, 0, 1)
	case v.month > 0:
		return from, from.AddDate(0, 1, 0)
	}
	return from, from.AddDate(1, 0, 0)
}

func (l *lookups) between(column string, from, to time.Time) {
	l.where.and(fmt.Sprintf("t.%s >= %s::timestamptz", ident(column), l.where.param(from)))
	l.where.and(fmt.Sprintf("t.%s < %s::timestamptz", ident(column), l.where.param(to)))
}

// takeFilter understands one condition on a field that may be filtered by.
func (l *lookups) takeFilter(f *Field, lookup, value string) bool {
	switch k := f.Kind.(type) {
	case DateTime:
		return l.takeMoment(f, lookup, value)
	case Boolean:
		if lookup != "exact" || (value != "0" && value != "1") {
			return false
		}
		l.where.and(fmt.Sprintf("t.%s = %s::boolean", ident(f.Name), l.where.param(value == "1")))
		return true
	case Choice:
		n, err := strconv.ParseInt(value, 10, 16)
		if lookup != "exact" || err != nil {
			return false
		}
		l.where.and(fmt.Sprintf("t.%s = %s::bigint", ident(f.Name), l.where.param(n)))
		return true
	case Reference, *Many:
		id, err := strconv.ParseInt(value, 10, 64)
		if lookup != "id__exact" || err != nil {
			return false
		}
		if many, ok := k.(*Many); ok {
			l.where.and(fmt.Sprintf("EXISTS (SELECT FROM %s p WHERE p.%s = t.id AND p.%s = %s::bigint)",
				ident(many.Table), ident(many.Own), ident(many.Other), l.where.param(id)))
			return true
		}
		l.where.and(fmt.Sprintf("t.%s = %s::bigint", ident(f.Name), l.where.param(id)))
		return true
	}
	return false
}

// momentForms are those of our own links, of Django's, and ISO 8601.
var momentForms = []string{
	dateForm, "2006-01-02 15:04:05-07:00", "2006-01-02 15:04:05Z07:00", momentForm, time.RFC3339,
}

func (l *lookups) takeMoment(f *Field, lookup, value string) bool {
	sign, ok := map[string]string{"gte": ">=", "lt": "<"}[lookup]
	t, valid := parseTime(value, momentForms)
	if !ok || !valid || t.Year() < 1 {
		return false
	}
	l.where.and(fmt.Sprintf("t.%s %s %s::timestamptz", ident(f.Name), sign, l.where.param(t)))
	return true
}

// orderBy is the list's order. The id makes it total, in the direction of what stands before it, so that the index
// on both serves.
func (l *lookups) orderBy() string {
	var terms []string
	direction := "DESC"
	add := func(column string, descending bool) {
		direction = "ASC"
		if descending {
			direction = "DESC"
		}
		terms = append(terms, fmt.Sprintf("%s %s", l.model.field(column).expression(), direction))
	}
	for _, n := range l.order {
		add(l.model.Columns[abs(n)-1].Field, n < 0)
	}
	if len(l.order) == 0 {
		for _, o := range l.model.Order {
			add(strings.TrimPrefix(o, "-"), strings.HasPrefix(o, "-"))
		}
	}
	return " ORDER BY " + strings.Join(append(terms, "t.id "+direction), ", ")
}

// with is the query of a link: this list's, but for some parameters. An empty value drops one; the page goes
// unless it is named.
func (l *lookups) with(changes ...string) string {
	q := url.Values{}
	for k, v := range l.params {
		q[k] = v
	}
	q.Del("p")
	for i := 0; i < len(changes); i += 2 {
		q.Set(changes[i], changes[i+1])
		if changes[i+1] == "" {
			q.Del(changes[i])
		}
	}
	return "?" + q.Encode()
}

// preserved is what links to forms carry, so that a save comes back to this list: "?_changelist_filters=…" or "".
func (l *lookups) preserved() string {
	if len(l.params) == 0 {
		return ""
	}
	return "?" + url.Values{"_changelist_filters": {l.params.Encode()}}.Encode()
}
