package admin

import (
	"context"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"ddtb/db"
)

// Kind is the type of a field: how it is parsed and displayed.
type Kind interface {
	// take returns the values of the field's inputs in a form, unparsed.
	take(form url.Values, name string) []string
	// parse converts them to a value, or returns the problem.
	parse(raw []string) (value any, problem string)
	// text returns the value in one line. Two values with the same text are equal.
	text(value any) string
	// raw returns the values of the field's inputs for a text.
	raw(text string) []string
	// widget returns the name of the inputs' template.
	widget() string
}

const required = "This field is required."

// single implements take and raw for kinds with one input.
type single struct{}

func (single) take(form url.Values, name string) []string { return []string{form.Get(name)} }
func (single) raw(text string) []string                   { return []string{text} }

// Text is a line of at most Max characters.
type Text struct {
	single
	Max    int
	Type   string              // of the input: "email"; "" is "text"
	Normal func(string) string // the form in which it is stored; nil: as typed
}

func (k Text) parse(raw []string) (any, string) {
	s := strings.TrimSpace(raw[0])
	if k.Normal != nil {
		s = k.Normal(s)
	}
	switch n := utf8.RuneCountInString(s); {
	case strings.ContainsRune(s, 0):
		return s, "Null characters are not allowed."
	case !utf8.ValidString(s):
		return s, "This is no valid text (UTF-8)."
	case n > k.Max:
		return s, fmt.Sprintf("Ensure this value has at most %d characters (it has %d).", k.Max, n)
	}
	return s, ""
}

var toOneLine = strings.NewReplacer("\r\n", " ", "\n", " ", "\r", " ")

// text has no line breaks: a browser drops them from a text input, which must not look like an edit.
func (Text) text(value any) string {
	s, _ := value.(string)
	return strings.TrimSpace(toOneLine.Replace(s))
}

func (Text) widget() string { return "text" }

// Integer is a whole number within its bounds.
type Integer struct {
	single
	Min, Max int64
}

func (k Integer) parse(raw []string) (any, string) {
	s := strings.TrimSpace(raw[0])
	n, err := strconv.ParseInt(s, 10, 64)
	switch {
	case s == "":
		return nil, ""
	case err != nil:
		return nil, "Enter a whole number."
	case n < k.Min:
		return nil, fmt.Sprintf("Ensure this value is greater than or equal to %d.", k.Min)
	case n > k.Max:
		return nil, fmt.Sprintf("Ensure this value is less than or equal to %d.", k.Max)
	}
	return n, ""
}

func (Integer) text(value any) string {
	if value == nil {
		return ""
	}
	return fmt.Sprint(value)
}

func (Integer) widget() string { return "integer" }

// Boolean is a checkbox.
type Boolean struct{ single }

func (Boolean) parse(raw []string) (any, string) {
	return !slices.Contains([]string{"", "false", "False", "0"}, raw[0]), ""
}

func (Boolean) text(value any) string { return strconv.FormatBool(value == true) }

func (Boolean) widget() string { return "boolean" }

// DateTime is a time in UTC, to the second. Its inputs are name_0 and name_1, as in Django.
type DateTime struct{}

func (DateTime) take(form url.Values, name string) []string {
	return []string{form.Get(name + "_0"), form.Get(name + "_1")}
}

var (
	dateForms = []string{"2006-1-2", "1/2/2006", "1/2/06", "2 January 2006", "January 2, 2006", "2 Jan 2006", "Jan 2, 2006"}
	timeForms = []string{"15:04:05", "15:04", "15:04:05.999999"}
)

const (
	dateForm   = "2006-01-02"
	timeForm   = "15:04:05"
	momentForm = dateForm + " " + timeForm
)

func (DateTime) parse(raw []string) (any, string) {
	date, clock := strings.TrimSpace(raw[0]), strings.TrimSpace(raw[1])
	if date == "" && clock == "" {
		return nil, ""
	}
	var problems []string
	d, ok := parseTime(date, dateForms)
	switch {
	case date == "":
		problems = append(problems, "Enter a date.")
	case !ok || d.Year() < 1: // PostgreSQL has no year 0
		problems = append(problems, "Enter a valid date, as 2026-11-21.")
	}
	t, ok := parseTime(clock, timeForms)
	switch {
	case clock == "":
		problems = append(problems, "Enter a time.")
	case !ok:
		problems = append(problems, "Enter a valid time, as 18:30 or 18:30:00.")
	}
	if len(problems) > 0 {
		return nil, strings.Join(problems, " ")
	}
	return time.Date(d.Year(), d.Month(), d.Day(), t.Hour(), t.Minute(), t.Second(), 0, time.UTC), ""
}

func parseTime(s string, forms []string) (time.Time, bool) {
	for _, form := range forms {
		if t, err := time.Parse(form, s); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

func (DateTime) raw(text string) []string {
	date, clock, _ := strings.Cut(text, " ")
	return []string{date, clock}
}

func (DateTime) text(value any) string {
	t, ok := value.(time.Time)
	if !ok {
		return ""
	}
	return t.UTC().Format(momentForm)
}

func (DateTime) widget() string { return "datetime" }

// Many is a set of rows of another table, stored in a table of pairs.
type Many struct {
	Table, Own, Other string // the pairs
	query             func(context.Context, db.Querier) ([]option, error)
}

func (k *Many) options(ctx context.Context, q db.Querier) ([]option, error) { return k.query(ctx, q) }

func (*Many) take(form url.Values, name string) []string { return slices.Clone(form[name]) }

func (*Many) parse(raw []string) (any, string) {
	ids := []int64{}
	for _, r := range raw {
		id, err := strconv.ParseInt(r, 10, 32)
		if err != nil {
			return ids, fmt.Sprintf("“%.20s” is not a valid value.", strings.ToValidUTF8(r, "?"))
		}
		ids = append(ids, id)
	}
	return sortedIDs(ids), ""
}

func sortedIDs(ids []int64) []int64 {
	slices.Sort(ids)
	return slices.Compact(ids)
}

func (*Many) raw(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' })
}

func (*Many) text(value any) string {
	var ids []string
	for _, id := range idsOf(value) {
		ids = append(ids, strconv.FormatInt(id, 10))
	}
	return strings.Join(ids, ",")
}

func (*Many) widget() string { return "many" }

// idsOf returns a set of ids from the database or a form, sorted.
func idsOf(value any) []int64 {
	ids, ok := value.([]int64)
	if ok {
		return ids
	}
	list, _ := value.([]any)
	for _, v := range list {
		ids = append(ids, toInt(v))
	}
	return sortedIDs(ids)
}

func toInt(v any) int64 {
	switch n := v.(type) {
	case int16:
		return int64(n)
	case int32:
		return int64(n)
	case int64:
		return n
	}
	return 0
}

// shown implements the methods of kinds that are never edited.
type shown struct{ single }

func (shown) parse([]string) (any, string) { return nil, "This can't be edited." }
func (shown) widget() string               { return "shown" }

// Reference is a row of another table, shown by its label.
type Reference struct {
	shown
	Table, Label string
}

func (Reference) text(value any) string {
	if value == nil {
		return "-"
	}
	return fmt.Sprint(value)
}

// Choice is one of a few numbers, each with a name.
type Choice struct {
	shown
	Names []string // by number
}

func (k Choice) text(value any) string {
	if n := toInt(value); n >= 0 && n < int64(len(k.Names)) && k.Names[n] != "" {
		return k.Names[n]
	}
	return fmt.Sprint(value)
}

// Log is the change message of the history.
type Log struct{ shown }

func (Log) text(value any) string {
	s, _ := value.(string)
	return readable(s)
}

// PasswordHash displays the parameters of the hash, never the hash.
type PasswordHash struct{ shown }

func (PasswordHash) text(value any) string {
	s, _ := value.(string)
	parts := strings.Split(s, "$")
	switch {
	case parts[0] == "argon2" && len(parts) == 6:
		return fmt.Sprintf("algorithm: argon2, variety: %s, %s", parts[1], strings.ReplaceAll(parts[3], ",", ", "))
	case len(parts) == 4:
		return fmt.Sprintf("algorithm: %s, iterations: %s", parts[0], parts[1])
	}
	return "No password set."
}

func (PasswordHash) widget() string { return "passwordhash" }

// NewPassword is a password typed twice. A form never displays it again.
type NewPassword struct{ single }

func (NewPassword) take(form url.Values, _ string) []string {
	return []string{form.Get("password1"), form.Get("password2")}
}

func (NewPassword) parse(raw []string) (any, string) {
	switch {
	case raw[0] == "" || raw[1] == "":
		return nil, "Enter the same password twice."
	case raw[0] != raw[1]:
		return nil, "The two password fields didn’t match."
	}
	return raw[0], ""
}

func (NewPassword) text(any) string { return "" }
func (NewPassword) widget() string  { return "newpassword" }

// maxInt4 is the largest value of PostgreSQL's integer.
const maxInt4 = math.MaxInt32
