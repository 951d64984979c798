package config

import (
	"fmt"
	"math"
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// The tag "allow" bounds a value by its type:
//
//	number, duration   values and ranges, "0|1ms..24h"; "none" is Forever
//	string             the words that it may be, "pool|persistent"; without a "|", the name of a format
//	list of strings    the format of each
//
// set stores what was found in a file, or says what is wrong with it; nothing is stored then.
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
	case *string:
		if s, is := found.(string); is && k.fits(s) {
			*p = s
			return ""
		}
	case *Secret:
		if s, is := found.(string); is && k.fits(s) {
			*p = Secret(s)
			return ""
		}
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

// parse turns text, of a variable or a flag, into what a file would hold; text that can't be the key's type
// stays text, for set to refuse.
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
	case *[]string:
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

func number(found any) (float64, bool) {
	if n, is := found.(int64); is {
		return float64(n), true
	}
	x, is := found.(float64)
	return x, is
}

// duration reads "10s", or a number of seconds. It compares before it converts, so that nothing overflows.
func (k *key) duration(found any) (time.Duration, bool) {
	if text, is := found.(string); is {
		if strings.EqualFold(text, "none") && strings.HasPrefix(k.allow, "none") { // Python's None too
			return Forever, true
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

// within tells whether x, nanoseconds if it is a duration, is in one of the ranges of allow. NaN is in none.
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

// measure is a bound as a number. A tag that can't be read fails the test that goes through all keys.
func (k *key) measure(bound string) float64 {
	if _, is := k.target.(*time.Duration); is {
		d, err := time.ParseDuration(bound)
		if err != nil {
			return math.NaN()
		}
		return float64(d)
	}
	x, err := strconv.ParseFloat(bound, 64)
	if err != nil {
		return math.NaN()
	}
	return x
}

// list reads a list of strings; wrong is the list, or the item of it, that is none. The empty list is nil.
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

// fits tells whether s is one of the words of allow, or in its format.
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

// plain tells whether s is text without control characters: a line break in a header or in an identifier, and a
// NUL in anything that goes to PostgreSQL, do harm.
func plain(s string) bool { return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl) }

// A format is what a string must look like, and how to say so after "allowed is ".
type format struct {
	is   func(string) bool
	says string
}

var formats = map[string]format{
	"": {func(string) bool { return true }, "a string without control characters"},
	"identifier": {
		func(s string) bool { return len(s) <= 63 },
		"a string of at most 63 bytes, as PostgreSQL's names are, without control characters",
	},
	"application": {
		func(s string) bool {
			return len(s) <= 48 && !strings.ContainsFunc(s, func(r rune) bool { return r > '~' })
		},
		"at most 48 ASCII characters (PostgreSQL cuts the name, with the strategy in it, at 63)",
	},
	"host": {isHost, `the name or address of one host, or the folder of a Unix socket as "/var/run/postgresql"`},
	"path": {func(string) bool { return true }, "a path; a relative one begins at the configuration file's folder"},
	"addr": {isAddr, `HOST:PORT, as "127.0.0.1:8000", or ":8000" for every address of this machine`},
	"network": {
		isNetwork, `a list of addresses and ranges, as "10.0.0.1" and "10.0.0.0/8"`,
	},
	"url":  {isBaseURL, `"", or a URL as "https://polls.example.org", without query or fragment`},
	"mail": {isMail, `a mail address, as "ops@example.org" or "Ops <ops@example.org>"`},
	"dsn":  {isDSN, `"", or Sentry's DSN, as "https://KEY@HOST/PROJECT"`},
	"environment": {
		func(s string) bool { return len(s) <= 64 && !strings.ContainsAny(s, "/ ") && s != "None" },
		`a string of at most 64 characters without spaces and slashes, and not "None" (Sentry's rules)`,
	},
}

func isHost(s string) bool {
	if strings.HasPrefix(s, "/") || s == "" {
		return true
	}
	_, notAddress := netip.ParseAddr(s)
	return notAddress == nil || !strings.ContainsAny(s, "/:,@[] ")
}

func isAddr(s string) bool {
	host, port, err := net.SplitHostPort(s)
	_, notPort := strconv.ParseUint(port, 10, 16)
	return err == nil && notPort == nil && !strings.ContainsAny(host, "/ ")
}

func isNetwork(s string) bool {
	_, notAddr := netip.ParseAddr(s)
	_, notPrefix := netip.ParsePrefix(s)
	return notAddr == nil || notPrefix == nil
}

func isBaseURL(s string) bool {
	u, err := url.Parse(s)
	return s == "" || err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" &&
		u.User == nil && u.RawQuery == "" && u.Fragment == ""
}

func isMail(s string) bool {
	_, err := mail.ParseAddress(s)
	return err == nil
}

func isDSN(s string) bool {
	u, err := url.Parse(s)
	return s == "" || err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" &&
		u.User != nil && strings.Trim(u.Path, "/") != ""
}

// refuse says what was found and what is allowed. It never shows a secret.
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

// allowed says what the key may be.
func (k *key) allowed() string {
	switch k.target.(type) {
	case *bool:
		return "true or false"
	case *int:
		return "a whole number " + ranges(k.allow)
	case *float64:
		return "a number " + ranges(k.allow)
	case *time.Duration:
		return `a duration as "10s", or a number of seconds, ` + ranges(k.allow)
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

// ranges reads "0|1ms..24h" aloud: "0, or from 1ms to 24h".
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

// raw is a value that TOML can't read either, such as an integer of more than 64 bits.
type raw string

// describe shows what was found, briefly.
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
