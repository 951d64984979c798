package admin

import (
	"fmt"
	"maps"
	"net/url"
	"regexp"
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

// lookups is the parsed address of a changelist.
type lookups struct {
	model  *Model
	params url.Values // as received, without those of another page
	search string
	order  []int // columns from 1, negative for descending
	page   int
	all    bool
	where  where // search, filters and hierarchy
	level  level // of the date hierarchy
}

// level is how far the date hierarchy is opened: a year, a month, a day; 0 if it is not.
type level struct{ year, month, day int }

// notUnderstood is the parameter with which Django redirects after an invalid address.
const notUnderstood = "e"

// ignored are Django's parameters that don't affect which rows are listed.
var ignored = []string{"_changelist_filters", "_popup", "_to_field", "ot", notUnderstood}

// parseLookups parses the query of an address, and reports whether all of it is valid. As in Django, the caller must
// not show or delete rows by an invalid query: it would match more than was requested.
func parseLookups(m *Model, query url.Values) (l *lookups, understood bool) {
	nothing := &lookups{model: m, params: url.Values{}, page: 1}
	l = &lookups{model: m, params: url.Values{}, page: 1}
	if !l.takeHierarchy(query) {
		return nothing, false
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		value := query.Get(name)
		if slices.Contains(ignored, name) || (name == "q" && value == "") {
			continue
		}
		if !l.take(name, value) {
			return nothing, false
		}
		l.params.Set(name, value)
	}
	return l, true
}

// printable shortens text from a request and makes it printable.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == utf8.RuneError {
			return '?'
		}
		return r
	}, s)
	return cut(s, 41)
}

// take parses one parameter, and reports whether it is valid.
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
	if l.level.year > 0 && slices.Contains(l.model.hierarchyParams(), name) {
		return true // takeHierarchy has parsed it
	}
	return l.takeFilter(name, value)
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

// searchTerm is Django's: a word, or text in double or single quotes in which a backslash escapes a quote.
var searchTerm = regexp.MustCompile(`[^\s\pZ'"]*(?:(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')[^\s\pZ'"]*)+|[^\s\pZ]+`)

// searchWords splits a search as Django does: at spaces, but not inside quotes.
func searchWords(text string) []string {
	var words []string
	for _, word := range searchTerm.FindAllString(text, -1) {
		if quote := word[:1]; len(word) > 1 && (quote == `"` || quote == "'") && strings.HasSuffix(word, quote) {
			word = strings.ReplaceAll(strings.ReplaceAll(word[1:len(word)-1], `\`+quote, quote), `\\`, `\`)
		}
		if word != "" {
			words = append(words, word)
		}
	}
	return words
}

// takeOrder parses "2.-1": by the second column, then by the first in descending order.
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

// hierarchyParams are the parameters of the date hierarchy: year, month and day.
func (m *Model) hierarchyParams() []string {
	return []string{m.Hierarchy + "__year", m.Hierarchy + "__month", m.Hierarchy + "__day"}
}

// takeHierarchy converts a year, with an optional month and day, to a range that can use an index. Without a year,
// month and day are ordinary lookups. It reports whether the date exists.
func (l *lookups) takeHierarchy(query url.Values) bool {
	if l.model.Hierarchy == "" {
		return true
	}
	var v level
	for i, part := range []*int{&v.year, &v.month, &v.day} {
		text := query.Get(l.model.hierarchyParams()[i])
		if text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 9999 {
			return i > 0 && v.year == 0
		}
		*part = n
	}
	if v.year == 0 {
		return true
	}
	from, to := v.span()
	if (v.day > 0 && (v.month == 0 || from.Day() != v.day)) || v.month > 12 {
		return false
	}
	l.level = v
	l.where.and(fmt.Sprintf("t.%s >= %s::timestamptz", ident(l.model.Hierarchy), l.where.param(from)))
	l.where.and(fmt.Sprintf("t.%s < %s::timestamptz", ident(l.model.Hierarchy), l.where.param(to)))
	return true
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

// orderBy returns the list's order. The id makes it total, in the direction of the preceding column, so that an index
// on both can be used.
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

// with returns the query of a link: this list's with some parameters changed. An empty value drops a parameter. The
// page is dropped unless it is among the changes.
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

// preserved is the query for links to forms, so that a save returns to this list: "?_changelist_filters=…" or "".
func (l *lookups) preserved() string {
	if len(l.params) == 0 {
		return ""
	}
	return "?" + url.Values{"_changelist_filters": {l.params.Encode()}}.Encode()
}
