package config

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"ddtb/db"
)

// The syntax of the tag "allow", by the type of the value:
//
//	number, duration   values and ranges, "0|1ms..24h"; "none" is db.Forever, and "auto" is db.Auto
//	string             the allowed words, "pool|persistent"; without a "|", the name of a format
//	list of strings    the format of each item

// set stores a value from a file, or returns the problem and stores nothing.
func (k *key) set(found any) (problem string) {
	switch p := k.target.(type) {
	case *bool:
		if b, is := found.(bool); is {
			*p = b
			return ""
		}
	case *int:
		if n, is := found.(int64); is && k.within(float64(n)) {
			*p = int(n)
			return ""
		}
		if text, is := found.(string); is && text == autoWord && k.auto() {
			*p = db.Auto
			return ""
		}
	case *float64:
		if x, is := number(found); is && k.within(x) {
			*p = x
			return ""
		}
	case *time.Duration:
		if d, is := k.duration(found); is {
			*p = d
			return ""
		}
	case *db.Bytes:
		if b, err := db.ParseBytes(fmt.Sprint(found)); err == nil && k.within(float64(b)) {
			*p = b
			return ""
		}
	case *string:
		if s, is := found.(string); is && k.fits(s) {
			*p = s
			return ""
		}
	case *Secret:
		if s, is := found.(string); is && k.fits(db.TrimLineBreak(s)) {
			*p = Secret(db.TrimLineBreak(s))
			return ""
		}
	case *db.Hosts:
		list, wrong := k.list(found)
		if wrong == nil {
			*p = db.Hosts(strings.Join(list, ","))
			return ""
		}
		found = wrong
	case *[]string:
		list, wrong := k.list(found)
		if wrong == nil {
			*p = list
			return ""
		}
		found = wrong
	}
	return k.refuse(found)
}

// parse converts the text of a variable or a flag to the type that a file would have. Text that can't be converted
// stays text, which set rejects.
func (k *key) parse(text string) any {
	trimmed := strings.TrimSpace(text)
	switch k.target.(type) {
	case *bool:
		if b, err := strconv.ParseBool(strings.ToLower(trimmed)); err == nil {
			return b
		}
	case *int, *float64, *time.Duration:
		if n, err := strconv.ParseInt(trimmed, 10, 64); err == nil {
			return n
		}
		if x, err := strconv.ParseFloat(trimmed, 64); err == nil {
			return x
		}
		return trimmed
	case *[]string, *db.Hosts:
		list := []any{}
		for item := range strings.SplitSeq(text, ",") {
			if item = strings.TrimSpace(item); item != "" {
				list = append(list, item)
			}
		}
		return list
	}
	return text
}

// autoWord is db.Auto in a file.
const autoWord = "auto"

func (k *key) auto() bool { return strings.HasPrefix(k.allow, autoWord+"|") }

func number(found any) (float64, bool) {
	if n, is := found.(int64); is {
		return float64(n), true
	}
	x, is := found.(float64)
	return x, is
}

// duration parses "10s", or a number of seconds. It compares before it converts, to avoid an overflow.
func (k *key) duration(found any) (time.Duration, bool) {
	if text, is := found.(string); is {
		if strings.EqualFold(text, "none") && strings.HasPrefix(k.allow, "none") { // Python's None too
			return db.Forever, true
		}
		d, err := time.ParseDuration(text)
		return d, err == nil && k.within(float64(d))
	}
	seconds, is := number(found)
	ns := math.Round(seconds * float64(time.Second))
	if !is || !k.within(ns) {
		return 0, false
	}
	return time.Duration(ns), true
}

// within reports whether x, in nanoseconds for a duration, is in a range of allow. NaN is in none.
func (k *key) within(x float64) bool {
	for alternative := range strings.SplitSeq(k.allow, "|") {
		low, high, is := strings.Cut(alternative, "..")
		if !is {
			high = low
		}
		if alternative != "none" && k.measure(low) <= x && x <= k.measure(high) {
			return true
		}
	}
	return false
}

// measure returns a bound as a number. An invalid tag fails the test of all keys.
func (k *key) measure(bound string) float64 {
	if _, is := k.target.(*time.Duration); is {
		d, err := time.ParseDuration(bound)
		if err != nil {
			return math.NaN()
		}
		return float64(d)
	}
	if _, is := k.target.(*db.Bytes); is {
		b, err := db.ParseBytes(bound)
		if err != nil {
			return math.NaN()
		}
		return float64(b)
	}
	x, err := strconv.ParseFloat(bound, 64)
	if err != nil {
		return math.NaN()
	}
	return x
}

// list parses a list of strings; wrong is the list, or the item, with a wrong type. The empty list is nil.
func (k *key) list(found any) (list []string, wrong any) {
	items, is := found.([]any)
	if !is {
		return nil, found
	}
	for _, item := range items {
		s, is := item.(string)
		if !is || !k.fits(s) {
			return nil, item
		}
		list = append(list, s)
	}
	return list, nil
}

// fits reports whether s is one of the words of allow, or matches its format.
func (k *key) fits(s string) bool {
	if words, is := k.words(); is {
		return slices.Contains(words, s)
	}
	if k.secret() && strings.ContainsRune(s, 0) || !k.secret() && !plain(s) {
		return false
	}
	return formats[k.allow].is(s)
}

func (k *key) words() ([]string, bool) {
	return strings.Split(k.allow, "|"), strings.Contains(k.allow, "|")
}

// refuse describes the value found and the allowed ones. It never shows a secret.
func (k *key) refuse(found any) string {
	if k.secret() {
		return "found a value that is not shown here; allowed is " + k.allowed()
	}
	message := fmt.Sprintf("found %s; allowed is %s", describe(found), k.allowed())
	if text, is := found.(string); is {
		if words, is := k.words(); is {
			if word := nearest(text, words); word != "" {
				message += fmt.Sprintf("; did you mean %q?", word)
			}
		}
	}
	return message
}

// allowed describes the allowed values.
func (k *key) allowed() string {
	switch k.target.(type) {
	case *bool:
		return "true or false"
	case *int:
		numbers, auto := strings.CutPrefix(k.allow, autoWord+"|")
		if auto {
			return strconv.Quote(autoWord) + ", or a whole number " + ranges(numbers)
		}
		return "a whole number " + ranges(k.allow)
	case *float64:
		return "a number " + ranges(k.allow)
	case *time.Duration:
		return `a duration as "10s", or a number of seconds, ` + ranges(k.allow)
	case *db.Bytes:
		return `a size as "4MiB", or a number of bytes, ` + ranges(k.allow)
	case *Secret:
		if k.allow == "" {
			return "a string without NUL characters"
		}
	case *[]string:
		if k.allow == "mail" {
			return "a list of mail addresses, as [\"ops@example.org\"]"
		}
	}
	if words, is := k.words(); is {
		return oneOf(words)
	}
	return formats[k.allow].says
}

// ranges formats "0|1ms..24h" as "0, or from 1ms to 24h".
func ranges(allow string) string {
	var parts []string
	for alternative := range strings.SplitSeq(allow, "|") {
		low, high, is := strings.Cut(alternative, "..")
		switch {
		case is:
			alternative = "from " + low + " to " + high
		case alternative == "none":
			alternative = `"none"`
		}
		parts = append(parts, alternative)
	}
	return strings.Join(parts, ", or ")
}

func oneOf(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = strconv.Quote(w)
	}
	last := len(quoted) - 1
	return strings.Join(quoted[:last], ", ") + " or " + quoted[last]
}

// raw is a value that TOML can't represent, such as an integer of more than 64 bits.
type raw string

// describe formats a value found in a file, shortened.
func describe(found any) string {
	switch v := found.(type) {
	case string:
		return strconv.Quote(shorten(v))
	case raw:
		return shorten(strings.Join(strings.Fields(string(v)), " "))
	case float64:
		if s := fmt.Sprint(v); v != math.Trunc(v) || strings.ContainsAny(s, "eIN") {
			return s
		}
		return fmt.Sprintf("%.1f", v) // it is 5.0 that is no whole number
	case int64, bool:
		return fmt.Sprint(v)
	case []any:
		return "a list"
	case map[string]any:
		return "a table"
	}
	return "a date or a time"
}

func shorten(s string) string {
	if runes := []rune(s); len(runes) > 60 {
		return string(runes[:60]) + "…"
	}
	return s
}
