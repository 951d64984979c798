package config

import (
	"fmt"
	"math"
	"reflect"
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

// numeric says how a value of one type becomes a number for the bounds, and how a message describes it. The number of a
// duration is in nanoseconds.
type numeric struct {
	toNumber    func(found any) (x float64, ok bool)
	description string
}

var numerics = map[reflect.Type]numeric{
	reflect.TypeFor[int](): {func(found any) (float64, bool) {
		n, is := found.(int64)
		return float64(n), is
	}, "a whole number "},
	reflect.TypeFor[float64]():       {number, "a number "},
	reflect.TypeFor[time.Duration](): {nanoseconds, `a duration as "10s", or a number of seconds, `},
	reflect.TypeFor[db.Bytes](): {func(found any) (float64, bool) {
		b, err := db.ParseBytes(fmt.Sprint(found))
		return float64(b), err == nil
	}, `a size as "4MiB", or a number of bytes, `},
}

func number(found any) (float64, bool) {
	if n, is := found.(int64); is {
		return float64(n), true
	}
	x, is := found.(float64)
	return x, is
}

// nanoseconds parses "10s", or a number of seconds.
func nanoseconds(found any) (float64, bool) {
	if text, is := found.(string); is {
		d, err := time.ParseDuration(text)
		return float64(d), err == nil
	}
	seconds, is := number(found)
	return math.Round(seconds * float64(time.Second)), is
}

// words are the values of numbers that have a word.
var words = map[string]float64{autoWord: db.Auto, "none": float64(db.Forever)}

// autoWord is db.Auto in a file.
const autoWord = "auto"

func (k *key) field() reflect.Value { return reflect.ValueOf(k.target).Elem() }

// set stores a value, from any source, in the type that TOML gives it. Or it returns the problem, and stores nothing.
func (k *key) set(found any) (problem string) {
	var value any
	valid := false
	switch text, isText := found.(string); k.target.(type) {
	case *bool:
		value, valid = found.(bool)
	case *string:
		value, valid = text, isText && k.fits(text)
	case *Secret:
		text = db.TrimLineBreak(text)
		value, valid = text, isText && k.fits(text)
	case *db.Hosts, *[]string:
		list, wrong := k.list(found)
		if wrong != nil {
			return k.refuse(wrong)
		}
		if value, valid = list, true; k.field().Kind() == reflect.String {
			value = strings.Join(list, ",")
		}
	default:
		value, valid = k.bounded(found)
	}
	if !valid {
		return k.refuse(found)
	}
	k.field().Set(reflect.ValueOf(value).Convert(k.field().Type()))
	return ""
}

// bounded converts a value within the bounds, or an allowed word, to a number.
func (k *key) bounded(found any) (x float64, valid bool) {
	if x, valid = numerics[k.field().Type()].toNumber(found); valid && k.within(x) {
		return x, true
	}
	word := strings.ToLower(fmt.Sprint(found)) // Python's None too
	x, valid = words[word]
	return x, valid && slices.Contains(strings.Split(k.allow, "|"), word)
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
	case *int, *float64, *time.Duration, *db.Bytes:
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

// within reports whether x is in a range of allow. NaN is in none.
func (k *key) within(x float64) bool {
	for alternative := range strings.SplitSeq(k.allow, "|") {
		low, high, is := strings.Cut(alternative, "..")
		if !is {
			high = low
		}
		toNumber := numerics[k.field().Type()].toNumber
		least, isLeast := toNumber(k.parse(low))
		most, isMost := toNumber(k.parse(high))
		if isLeast && isMost && least <= x && x <= most {
			return true
		}
	}
	return false
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
	return formats[k.allow].allows(s)
}

func (k *key) words() ([]string, bool) {
	return strings.Split(k.allow, "|"), strings.Contains(k.allow, "|")
}

// refuse describes the value found and the allowed ones. It never shows a secret.
func (k *key) refuse(found any) string {
	if text, is := found.(string); k.secret() || is && strings.ContainsAny(text, "@?") && !strings.HasPrefix(k.allow, "mail") {
		return k.unshown() // perhaps a URL with a password or a token
	}
	message := fmt.Sprintf("found %s; allowed is %s", describe(found), k.allowed())
	if text, is := found.(string); is {
		if words, is := k.words(); is {
			if word := Nearest(text, words); word != "" {
				message += fmt.Sprintf("; did you mean %q?", word)
			}
		}
	}
	return message
}

func (k *key) unshown() string {
	return "found a value that is not shown here; allowed is " + k.allowed()
}

func (k *key) allowed() string {
	if n, is := numerics[k.field().Type()]; is {
		if numbers, auto := strings.CutPrefix(k.allow, autoWord+"|"); auto {
			return strconv.Quote(autoWord) + ", or " + n.description + ranges(numbers)
		}
		return n.description + ranges(k.allow)
	}
	switch k.target.(type) {
	case *bool:
		return "true or false"
	case *Secret:
		if k.allow == "" {
			return "a string without NUL characters"
		}
	}
	if words, is := k.words(); is {
		return oneOf(words)
	}
	return formats[k.allow].description
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
	last := len(words) - 1
	return quoted(words[:last]) + " or " + strconv.Quote(words[last])
}

// quoted lists the items in quotes, separated by commas.
func quoted(items []string) string {
	all := make([]string, len(items))
	for i, s := range items {
		all[i] = strconv.Quote(s)
	}
	return strings.Join(all, ", ")
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
