package report

import (
	"encoding/base64"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode"
	"unicode/utf8"

	"ddtb/config"
)

const redacted = "[redacted]"

// secretField is the only list of names whose values are secrets: long words anywhere in a name, short ones as separate
// words.
const secretField = `(?:[\w-]*(?:passw|passc|passphrase|pwd|secret|token|csrf|credential|cookie|session|authoriz|api[_-]?key)[\w-]*` +
	`|(?:\w+[_-])?(?:pass|pin|otp|code|key|sess|sid|auth|card)(?:[_-]\w+)?)`

var secretName = regexp.MustCompile(`(?i)^` + secretField + `$`)

// secretTexts match likely secrets in a text from outside. They prefer to remove too much.
var secretTexts = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`://[^\s"'@]*:[^\s"'@]*…`), "://" + redacted + "…"}, // a URL that was cut in its password
	{regexp.MustCompile(`://[^\s"']*@`), "://" + redacted + "@"},            // user and password of a URL; Sentry's key
	{regexp.MustCompile(`(?i)\b((?:proxy-)?authorization|(?:set-)?cookie)(["']?\s*[:=]\s*)[^\n]+`), "$1$2" + redacted},
	{regexp.MustCompile(`(?i)\b(bearer|basic|auth (?:plain|login)|xoauth2)\s+[\w.~+/=-]{8,}`), "$1 " + redacted},
	{regexp.MustCompile(`(?i)\b(` + secretField + `["']?\s*[:=]\s*)("[^"\n]*"|'[^'\n]*'|[^\s&;,]+)`), "${1}" + redacted},
}

// scrubber removes known and likely secrets from texts. It is safe for concurrent use.
type scrubber struct {
	mu       sync.Mutex
	secrets  []config.Secret
	replacer atomic.Pointer[strings.Replacer]
}

func newScrubber(secrets []config.Secret) *scrubber {
	s := &scrubber{}
	s.hide(secrets...)
	return s
}

// hide adds secrets, in their plain form, URL-encoded, and as SMTP sends them. A secret of fewer than four bytes can't
// be distinguished from other text.
func (s *scrubber) hide(secrets ...config.Secret) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, secret := range secrets {
		if len(secret.Reveal()) >= 4 && !slices.Contains(s.secrets, secret) {
			s.secrets = append(s.secrets, secret)
		}
	}
	// The replacer uses the first match, so a longer secret must come before its prefix.
	slices.SortFunc(s.secrets, func(a, b config.Secret) int { return len(b.Reveal()) - len(a.Reveal()) })
	var pairs []string
	for _, secret := range s.secrets {
		plain := secret.Reveal()
		for _, form := range []string{plain, url.QueryEscape(plain), url.PathEscape(plain), base64.StdEncoding.EncodeToString([]byte(plain))} {
			pairs = append(pairs, form, redacted)
		}
	}
	s.replacer.Store(strings.NewReplacer(pairs...))
}

// clean returns text without secrets and control characters.
func (s *scrubber) clean(text string) string {
	text = s.replacer.Load().Replace(strings.Map(inLines, text))
	for _, p := range secretTexts {
		text = p.pattern.ReplaceAllString(text, p.with)
	}
	return text
}

// Bounds on what is kept of a failure.
const (
	maxLine = 300  // bytes of anything on one line
	maxText = 2000 // bytes of an error
)

// line returns s for one line of a log, a subject or a header: shortened, and without control characters.
func line(s string) string {
	return strings.Map(func(r rune) rune {
		if r = inLines(r); r == '\n' || r == '\t' {
			return ' '
		}
		return r
	}, cut(s, maxLine))
}

func inLines(r rune) rune {
	if r != '\n' && r != '\t' && (r == utf8.RuneError || !unicode.IsPrint(r)) {
		return ' '
	}
	return r
}

// cut shortens s to at most n bytes and appends "…". It removes the last word as well: the first half of a secret would
// not be detected.
func cut(s string, n int) string {
	if len(s) <= n {
		return strings.Clone(s)
	}
	s = s[:n-len("…")]
	tail := max(0, len(s)-200)
	if i := strings.LastIndexAny(s[tail:], " \t\n"); i >= 0 {
		s = s[:tail+i+1]
	}
	return strings.TrimRightFunc(s, func(r rune) bool { return r == utf8.RuneError }) + "…" // a letter that was cut in two
}
