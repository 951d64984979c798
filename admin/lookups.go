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

	"ddtb/app/web"
)

// The address of a changelist is parsed here: search, order, page, date hierarchy, and Django's lookups.

const (
	pageSize   = 100
	showAllMax = 200
	maxPage    = 100_000
	maxWords   = 10
	maxSearch  = 200
)

// notUnderstood is the parameter with which Django redirects after an invalid address.
const notUnderstood = "e"

// ignored are Django's parameters that don't affect which rows are listed.
var ignored = []string{"_changelist_filters", "_popup", "_to_field", "ot", notUnderstood}

// parseChangelist parses the query of an address, and reports whether all of it is valid. As in Django, the caller must
// not show or delete rows by an invalid query: it would match more than was requested.
func parseChangelist(m *Model, query url.Values, now time.Time) (l *changelist, ok bool) {
	l = &changelist{Model: m, now: now, params: url.Values{}, order: m.order(), page: 1}
	if !l.parseDate(query) {
		return nil, false
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		value := query.Get(name)
		if slices.Contains(ignored, name) || (name == "q" && value == "") {
			continue
		}
		if !l.parseParam(name, value) {
			return nil, false
		}
		l.params.Set(name, value)
	}
	return l, true
}

// order returns the model's own order, as parseOrder parses it.
func (m *Model) order() []int {
	column, descending := strings.CutPrefix(m.Order, "-")
	n := 1 + slices.IndexFunc(m.Columns, func(c Column) bool { return c.Field == column })
	if descending {
		n = -n
	}
	return []int{n}
}

// parseParam parses one parameter, and reports whether it is valid.
func (l *changelist) parseParam(name, value string) bool {
	switch name {
	case "q":
		return l.parseSearch(value)
	case "o":
		return l.parseOrder(value)
	case "p":
		n, err := strconv.Atoi(value)
		l.page = n
		return err == nil && n >= 1 && n <= maxPage
	case "all":
		l.all = true
		return true
	}
	if l.depth > 0 && slices.Contains(l.Model.dateParams(), name) {
		return true // parseDate has parsed it
	}
	return l.parseLookup(name, value)
}

func (l *changelist) parseSearch(text string) bool {
	words := searchWords(text)
	if len(l.Model.Search) == 0 || utf8.RuneCountInString(text) > maxSearch || !web.IsText(text) || len(words) > maxWords {
		return false
	}
	l.Search = text
	for _, word := range words {
		pattern := l.where.param("%" + likeEscaper.Replace(word) + "%")
		var columns []string
		for _, column := range l.Model.Search {
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

// parseOrder parses "2.-1": by the second column, then by the first in descending order.
func (l *changelist) parseOrder(text string) bool {
	l.order = nil
	for part := range strings.SplitSeq(text, ".") {
		n, err := strconv.Atoi(part)
		columns := len(l.Model.Columns)
		if err != nil || n == 0 || n < -columns || n > columns || len(l.order) == columns {
			return false
		}
		l.order = append(l.order, n)
	}
	return true
}

func abs(n int) int { return max(n, -n) }

// orderBy returns the list's order. The id makes it total, in the direction of the preceding column, so that an index
// on both can be used.
func (l *changelist) orderBy() string {
	var terms []string
	direction := ""
	for _, n := range l.order {
		if direction = " ASC"; n < 0 {
			direction = " DESC"
		}
		terms = append(terms, l.Model.field(l.Model.Columns[abs(n)-1].Field).expression()+direction)
	}
	return " ORDER BY " + strings.Join(append(terms, "t.id"+direction), ", ")
}

// The lookups of Django's query sets that an address may use. Others, such as regular expressions and lookups across
// relations, are invalid.
var (
	comparisons = map[string]string{"exact": "=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
	patterns    = map[string]struct{ operator, before, after string }{
		"contains":    {"LIKE", "%", "%"},
		"startswith":  {"LIKE", "", "%"},
		"endswith":    {"LIKE", "%", ""},
		"iexact":      {"ILIKE", "", ""},
		"icontains":   {"ILIKE", "%", "%"},
		"istartswith": {"ILIKE", "", "%"},
		"iendswith":   {"ILIKE", "%", ""},
	}
	timeParts = []string{"year", "month", "day", "hour", "minute", "second", "week", "quarter"}
)

// parseLookup parses a lookup on a field of the model, such as "pub_date__gte", and adds its condition. It reports
// whether it is valid.
func (l *changelist) parseLookup(name, value string) bool {
	path := strings.Split(name, "__")
	f := l.Model.lookupField(path[0])
	if f == nil {
		return false
	}
	lookup := path[1:]
	if (f.Kind == Reference || f.Kind == Many) && len(lookup) > 0 && (lookup[0] == "id" || lookup[0] == "pk") {
		lookup = lookup[1:]
	}
	switch len(lookup) {
	case 0:
		return l.addLookup(f, "exact", value)
	case 1:
		return l.addLookup(f, lookup[0], value)
	}
	return false
}

// lookupField returns the field that a lookup names, or nil: "id", "pk", a field, or a reference without its "_id".
func (m *Model) lookupField(name string) *Field {
	if name == "id" || name == "pk" {
		return &Field{Name: "id", Kind: Integer}
	}
	if f := m.field(name); f != nil {
		return f
	}
	return m.field(name + "_id")
}

// addLookup adds the condition of one lookup. On a relation it is about the ids of the related rows.
func (l *changelist) addLookup(f *Field, lookup, value string) bool {
	if f.Kind != Many {
		condition, ok := l.compare(f.Kind, "t."+ident(f.Name), lookup, value)
		l.where.and(condition)
		return ok
	}
	exists := "EXISTS"
	if lookup == "isnull" && isNull(value) { // null means: there is no related row
		exists, value = "NOT EXISTS", "0"
	}
	condition, ok := l.compare(f.Kind, "p."+ident(f.Pairs.Other), lookup, value)
	l.where.and(fmt.Sprintf("%s (SELECT FROM %s p WHERE p.%s = t.id AND %s)", exists, ident(f.Pairs.Table), ident(f.Pairs.Own), condition))
	return ok
}

// isNull reports whether the value of the lookup isnull means yes.
func isNull(value string) bool {
	return !slices.Contains([]string{"", "0", "false"}, strings.ToLower(value))
}

// compare returns the condition that compares a column with a value from an address.
func (l *changelist) compare(kind Kind, column, lookup, value string) (condition string, ok bool) {
	operand, ok := operands[kind]
	pattern, isPattern := patterns[lookup]
	switch {
	case !ok:
		return "", false
	case lookup == "isnull" && isNull(value):
		return column + " IS NULL", true
	case lookup == "isnull":
		return column + " IS NOT NULL", true
	case operand.sqlType == "text" && isPattern:
		place := l.where.param(pattern.before + likeEscaper.Replace(value) + pattern.after)
		return fmt.Sprintf("%s %s %s::text", column, pattern.operator, place), web.IsText(value)
	case kind == DateTime && (lookup == "date" || slices.Contains(timeParts, lookup)):
		return l.comparePart(column, lookup, value)
	}
	values := []string{value}
	if lookup == "in" || lookup == "range" {
		values = strings.Split(value, ",")
	}
	var places []string
	for _, text := range values {
		v, ok := operand.convert(text)
		if !ok || len(values) > pageSize {
			return "", false
		}
		places = append(places, l.where.param(v)+"::"+operand.sqlType)
	}
	switch {
	case lookup == "in":
		return column + " IN (" + strings.Join(places, ", ") + ")", true
	case lookup == "range" && len(places) == 2:
		return column + " BETWEEN " + places[0] + " AND " + places[1], true
	case comparisons[lookup] != "":
		return column + " " + comparisons[lookup] + " " + places[0], true
	}
	return "", false
}

// comparePart compares a part of a time, such as the date or the year, in UTC.
func (l *changelist) comparePart(column, part, value string) (condition string, ok bool) {
	if part == "date" {
		t, ok := parseTime(value, []string{dateForm})
		return fmt.Sprintf("(%s AT TIME ZONE 'UTC')::date = %s::date", column, l.where.param(t)), ok && t.Year() > 0
	}
	n, ok := numberOperand(value)
	return fmt.Sprintf("floor(extract(%s FROM %s AT TIME ZONE 'UTC')) = %s::bigint", part, column, l.where.param(n)), ok
}

// operands has the SQL type for comparing a kind, and the conversion from text. Other kinds can't be queried, such as a
// password's hash.
var operands = map[Kind]struct {
	sqlType string
	convert func(string) (any, bool)
}{
	Text:      {"text", textOperand},
	Log:       {"text", textOperand},
	Integer:   {"bigint", numberOperand},
	Choice:    {"bigint", numberOperand},
	Reference: {"bigint", numberOperand},
	Many:      {"bigint", numberOperand},
	Boolean:   {"boolean", booleanOperand},
	DateTime:  {"timestamptz", timeOperand},
}

func textOperand(s string) (any, bool) { return s, web.IsText(s) }

func numberOperand(s string) (any, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

func booleanOperand(s string) (any, bool) {
	yes := slices.Contains([]string{"1", "t", "True"}, s)
	return yes, yes || slices.Contains([]string{"0", "f", "False"}, s)
}

// operandForms are the time formats of our own links, of Django's, and ISO 8601.
var operandForms = []string{
	dateForm, "2006-01-02 15:04:05-07:00", "2006-01-02 15:04:05Z07:00", momentForm, time.RFC3339,
}

func timeOperand(s string) (any, bool) {
	t, ok := parseTime(s, operandForms)
	return t, ok && t.Year() > 0
}
