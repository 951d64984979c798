package admin

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

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
	parts = []string{"year", "month", "day", "hour", "minute", "second", "week", "quarter"}
)

// takeFilter parses a lookup on a field of the model, "pub_date__gte". It reports whether it is valid.
func (l *lookups) takeFilter(name, value string) bool {
	path := strings.Split(name, "__")
	f := l.model.field(path[0])
	switch {
	case path[0] == "id" || path[0] == "pk":
		f = &Field{Name: "id", Kind: Integer{}}
	case f == nil:
		f = l.model.field(path[0] + "_id")
	}
	if f == nil {
		return false
	}
	switch f.Kind.(type) {
	case Reference, *Many:
		if len(path) > 1 && (path[1] == "id" || path[1] == "pk") {
			path = path[1:]
		}
	}
	switch len(path) {
	case 1:
		return l.addLookup(f, "exact", value)
	case 2:
		return l.addLookup(f, path[1], value)
	}
	return false
}

// addLookup adds the condition of one lookup.
func (l *lookups) addLookup(f *Field, lookup, value string) bool {
	operand, convert := operandOf(f.Kind)
	if convert == nil {
		return false
	}
	column := "t." + ident(f.Name)
	many, isMany := f.Kind.(*Many)
	if isMany {
		column = "p." + ident(many.Other)
	}
	negated := false
	condition, ok := "", false
	if lookup == "isnull" {
		isNull := !slices.Contains([]string{"", "0", "false"}, strings.ToLower(value))
		negated, ok = isMany && isNull, true
		if condition = column + " IS NOT NULL"; isNull && !isMany {
			condition = column + " IS NULL"
		}
	} else {
		condition, ok = l.compare(f.Kind, column, operand, lookup, value, convert)
	}
	if !ok {
		return false
	}
	if isMany {
		condition = fmt.Sprintf("EXISTS (SELECT FROM %s p WHERE p.%s = t.id AND %s)", ident(many.Table), ident(many.Own), condition)
	}
	if negated {
		condition = "NOT " + condition
	}
	l.where.and(condition)
	return true
}

// compare returns the condition that compares a column with a value from an address.
func (l *lookups) compare(
	kind Kind, column, operand, lookup, value string, convert func(string) (any, bool),
) (condition string, ok bool) {
	_, isText := kind.(Text)
	if p, is := patterns[lookup]; is && isText {
		text, ok := textOperand(value)
		if !ok {
			return "", false
		}
		pattern := l.where.param(p.before + likeEscaper.Replace(text.(string)) + p.after)
		return fmt.Sprintf("%s %s %s::text", column, p.operator, pattern), true
	}
	if _, is := kind.(DateTime); is && (lookup == "date" || slices.Contains(parts, lookup)) {
		return l.comparePart(column, lookup, value)
	}
	items := []string{value}
	if lookup == "in" || lookup == "range" {
		items = strings.Split(value, ",")
	}
	var places []string
	for _, item := range items {
		v, ok := convert(item)
		if !ok || len(items) > pageSize {
			return "", false
		}
		places = append(places, l.where.param(v)+"::"+operand)
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
func (l *lookups) comparePart(column, part, value string) (condition string, ok bool) {
	if part == "date" {
		t, ok := parseTime(value, []string{dateForm})
		return fmt.Sprintf("(%s AT TIME ZONE 'UTC')::date = %s::date", column, l.where.param(t)), ok && t.Year() > 0
	}
	n, ok := numberOperand(value)
	return fmt.Sprintf("extract(%s FROM %s AT TIME ZONE 'UTC') = %s::bigint", part, column, l.where.param(n)), ok
}

// operandOf returns the SQL type for comparing a kind, and the conversion from text; nil for kinds that can't be
// queried, such as a password's hash.
func operandOf(kind Kind) (operand string, convert func(string) (any, bool)) {
	switch kind.(type) {
	case Text, Log:
		return "text", textOperand
	case Integer, Choice, Reference, *Many:
		return "bigint", numberOperand
	case Boolean:
		return "boolean", booleanOperand
	case DateTime:
		return "timestamptz", timeOperand
	}
	return "", nil
}

func textOperand(s string) (any, bool) { return s, utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

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
