package config

import (
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"ddtb/db"
)

// plain reports whether s is valid text without control characters. A line break in a header or an identifier is
// harmful, as is a NUL in text for PostgreSQL.
func plain(s string) bool { return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl) }

// A format is a rule for a string, and its description after "allowed is ".
type format struct {
	allows      func(string) bool
	description string
}

var formats = map[string]format{
	"": {anyText, "a string without control characters"},
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
	"host":  {isHost, `the name or address of one host, or the directory of a Unix socket as "/var/run/postgresql"`},
	"hosts": {isHosts, `a list of hosts, as ["h1:5432", "h2:5432"]`},
	"path":  {anyText, "a path; a relative one begins at the configuration file's directory"},
	"addr":  {isAddr, `HOST:PORT, as "127.0.0.1:8000", or ":8000" for every address of this machine`},
	"agent": {
		func(s string) bool { return s == "" || isAddr(s) },
		`"", or HOST:PORT; ":8081" is on this machine alone, "0.0.0.0:8081" on every address of it`,
	},
	"network": {isNetwork, `a list of addresses and ranges, as "10.0.0.1" and "10.0.0.0/8"`},
	"url":     {isBaseURL, `"", or a URL as "https://polls.example.org", without query or fragment`},
	"mail":    {isMail, `a mail address, as "ops@example.org" or "Ops <ops@example.org>"`},
	"mails":   {isMail, `a list of mail addresses, as ["ops@example.org"]`},
	"dsn":     {isDSN, `"", or Sentry's DSN, as "https://KEY@HOST/PROJECT"`},
	"headers": {
		func(s string) bool { _, ok := parseHeaders(s); return ok },
		`"", or headers as "NAME=VALUE,NAME=VALUE", in whose values %, comma and spaces are percent-encoded`,
	},
	"environment": {
		func(s string) bool { return len(s) <= 64 && !strings.ContainsAny(s, "/ ") && s != "None" },
		`a string of at most 64 characters without spaces and slashes, and not "None" (Sentry's rules)`,
	},
}

func anyText(string) bool { return true }

func isHost(s string) bool {
	if strings.HasPrefix(s, "/") || s == "" {
		return true
	}
	_, notAddress := netip.ParseAddr(s)
	return notAddress == nil || !strings.ContainsAny(s, "/:,@[] ")
}

// isHosts reports whether s is one item of a list of hosts: HOST or HOST:PORT.
func isHosts(s string) bool {
	host, port := db.SplitHost(s)
	n, err := strconv.ParseUint(port, 10, 16)
	return isHost(host) && !strings.ContainsAny(host, ",") && (port == "" || err == nil && n > 0)
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

// headerName matches a valid name of an HTTP header.
var headerName = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")

// parseHeaders parses the format of OTEL_EXPORTER_OTLP_HEADERS.
func parseHeaders(s string) (headers map[string]string, ok bool) {
	headers = map[string]string{}
	for item := range strings.SplitSeq(s, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		name, encoded, found := strings.Cut(item, "=")
		value, err := url.PathUnescape(strings.TrimSpace(encoded))
		name = strings.TrimSpace(name)
		if !found || err != nil || !headerName.MatchString(name) || !plain(value) {
			return nil, false
		}
		headers[name] = value
	}
	return headers, true
}

func isDSN(s string) bool {
	u, err := url.Parse(s)
	return s == "" || err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" &&
		u.User != nil && strings.Trim(u.Path, "/") != ""
}
