package admin

import (
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Kind is the type of a field: how it is parsed, stored and displayed. It is also the name of the input in the template.
type Kind string

// The kinds. The last four are only shown.
const (
	Text         Kind = "text"         // a line of at most Max characters: string
	Integer      Kind = "integer"      // from 0 to Max: int64
	Boolean      Kind = "boolean"      // a checkbox: bool
	DateTime     Kind = "datetime"     // in UTC, to the second: time.Time
	Many         Kind = "many"         // rows of another table, see Pairs: their ids
	NewPassword  Kind = "newpassword"  // typed twice, and never displayed again: string
	PasswordHash Kind = "passwordhash" // its parameters, never the hash
	Reference    Kind = "reference"    // a row of another table, see Target
	Choice       Kind = "choice"       // one of a few numbers, see Names
	Log          Kind = "log"          // a change message of the history
)

const required = "This field is required."

// posted returns the values of the field's inputs in a form, unparsed. The names of the inputs are Django's.
func (f *Field) posted(form url.Values, name string) []string {
	switch f.Kind {
	case DateTime:
		return []string{form.Get(name + "_0"), form.Get(name + "_1")}
	case NewPassword:
		return []string{form.Get("password1"), form.Get("password2")}
	case Many:
		return slices.Clone(form[name])
	}
	return []string{form.Get(name)}
}

// raw returns the values of the field's inputs for a text.
func (f *Field) raw(text string) []string {
	switch f.Kind {
	case DateTime:
		date, clock, _ := strings.Cut(text, " ")
		return []string{date, clock}
	case Many:
		return strings.Fields(text)
	}
	return []string{text}
}

// parse converts the values of the inputs to the field's value, or returns the problem.
func (f *Field) parse(raw []string) (value any, problem string) {
	switch f.Kind {
	case Text:
		return f.parseText(raw[0])
	case Integer:
		return f.parseInteger(strings.TrimSpace(raw[0]))
	case Boolean:
		return !slices.Contains([]string{"", "false", "False", "0"}, raw[0]), ""
	case DateTime:
		return parseDateTime(strings.TrimSpace(raw[0]), strings.TrimSpace(raw[1]))
	case Many:
		return parseIDs(raw)
	case NewPassword:
		return raw[0], passwordProblem(raw[0], raw[1])
	}
	return nil, "This can't be edited."
}

func (f *Field) parseText(s string) (value any, problem string) {
	s = strings.TrimSpace(s)
	if f.Normal != nil {
		s = f.Normal(s)
	}
	switch n := utf8.RuneCountInString(s); {
	case strings.ContainsRune(s, 0):
		problem = "Null characters are not allowed."
	case !utf8.ValidString(s):
		problem = "This is no valid text (UTF-8)."
	case int64(n) > f.Max:
		problem = fmt.Sprintf("Ensure this value has at most %d characters (it has %d).", f.Max, n)
	case s != "" && f.Check != nil:
		problem = f.Check(s)
	}
	return s, problem
}

// maxInt4 is the largest value of PostgreSQL's integer.
const maxInt4 = math.MaxInt32

func (f *Field) parseInteger(s string) (value any, problem string) {
	n, err := strconv.ParseInt(s, 10, 64)
	switch {
	case s == "":
		return nil, ""
	case err != nil:
		return nil, "Enter a whole number."
	case n < 0:
		return nil, "Ensure this value is greater than or equal to 0."
	case n > f.Max:
		return nil, fmt.Sprintf("Ensure this value is less than or equal to %d.", f.Max)
	}
	return n, ""
}

var (
	dateForms = []string{"2006-1-2", "1/2/2006", "1/2/06", "2 January 2006", "January 2, 2006", "2 Jan 2006", "Jan 2, 2006"}
	timeForms = []string{"15:04:05", "15:04", "15:04:05.999999"}
)

const (
	dateForm   = "2006-01-02"
	momentForm = dateForm + " 15:04:05"
)

func parseDateTime(date, clock string) (value any, problem string) {
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

func parseIDs(raw []string) (value any, problem string) {
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

// passwordProblem returns the problem of a password that was typed twice, or "".
func passwordProblem(one, two string) string {
	switch {
	case one == "" || two == "":
		return "Enter the same password twice."
	case one != two:
		return "The two password fields didn’t match."
	}
	return ""
}

var toOneLine = strings.NewReplacer("\r\n", " ", "\n", " ", "\r", " ")

// text returns a value in one line: a browser drops line breaks from a text input, which must not count as an edit.
// Two values with the same text are equal.
func (f *Field) text(value any) string {
	if t, ok := value.(time.Time); ok {
		return t.UTC().Format(momentForm)
	}
	s, _ := value.(string)
	switch f.Kind {
	case Text:
		return strings.TrimSpace(toOneLine.Replace(s))
	case Boolean:
		return strconv.FormatBool(value == true)
	case Many:
		return strings.Trim(fmt.Sprint(idsOf(value)), "[]")
	case NewPassword:
		return ""
	case PasswordHash:
		return hashParameters(s)
	case Log:
		return readable(s)
	case Choice:
		if n, _ := value.(int64); n >= 0 && n < int64(len(f.Names)) && f.Names[n] != "" {
			return f.Names[n]
		}
	}
	if value == nil {
		return ""
	}
	return fmt.Sprint(value)
}

// hashParameters describes a hash in one of the encodings that a login accepts.
func hashParameters(hash string) string {
	parts := strings.Split(hash, "$")
	switch algorithm := parts[0]; {
	case hash == "" || hash[0] == '!':
		return "No password set."
	case algorithm == "argon2" && len(parts) == 6:
		return fmt.Sprintf("algorithm: argon2, variety: %s, %s", parts[1], strings.ReplaceAll(parts[3], ",", ", "))
	case strings.HasPrefix(algorithm, "pbkdf2_") && len(parts) == 4:
		return fmt.Sprintf("algorithm: %s, iterations: %s", algorithm, parts[1])
	case slices.Contains([]string{"scrypt", "bcrypt", "bcrypt_sha256"}, algorithm):
		return "algorithm: " + algorithm
	}
	return "Invalid password format or unknown hashing algorithm."
}

// idsOf returns the value of a Many, from the database or a form: ids, sorted.
func idsOf(value any) []int64 {
	ids, ok := value.([]int64)
	if ok {
		return ids
	}
	list, _ := value.([]any)
	for _, v := range list {
		id, _ := v.(int64)
		ids = append(ids, id)
	}
	return sortedIDs(ids)
}

func sortedIDs(ids []int64) []int64 {
	slices.Sort(ids)
	return slices.Compact(ids)
}
