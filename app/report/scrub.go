package report

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"ddtb/config"
)

const redacted = "[redacted]"

// secretish finds what looks like a secret in a text that somebody else wrote. It rather takes too much.
var secretish = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`://[^\s"']*@`), "://" + redacted + "@"}, // user and password of a URL; Sentry's key
	{regexp.MustCompile(`(?i)\b((?:proxy-)?authorization|(?:set-)?cookie)(["']?\s*[:=]\s*)[^\n]+`), "$1$2" + redacted},
	{regexp.MustCompile(`(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}`), "$1 " + redacted},
	{regexp.MustCompile(`(?i)([\w-]*(?:passw(?:or)?d|passphrase|pwd|secret|token|api[_-]?key|csrf|session[_-]?id)[\w-]*` +
		`["']?\s*[:=]\s*)("[^"\n]*"|'[^'\n]*'|[^\s&;,]+)`), "${1}" + redacted},
}

// halfURL finds a URL that was cut before the end of its password.
var halfURL = regexp.MustCompile(`://[^\s"'@]*:[^\s"'@]*…$`)

// scrubber takes secrets out of texts: those that it knows, and whatever looks like one. It is safe for concurrent use.
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

// hide has the scrubber know more secrets, as they are and as they look in a URL. One of under four letters can't be
// told from other text.
func (s *scrubber) hide(secrets ...config.Secret) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, secret := range secrets {
		if len(secret.Reveal()) >= 4 && !slices.Contains(s.secrets, secret) {
			s.secrets = append(s.secrets, secret)
		}
	}
	// The replacer takes the first that fits: the longer one, where one secret begins as another does.
	slices.SortFunc(s.secrets, func(a, b config.Secret) int { return len(b.Reveal()) - len(a.Reveal()) })
	var pairs []string
	for _, secret := range s.secrets {
		plain := secret.Reveal()
		for _, form := range []string{plain, url.QueryEscape(plain), url.PathEscape(plain)} {
			pairs = append(pairs, form, redacted)
		}
	}
	s.replacer.Store(strings.NewReplacer(pairs...))
}

// clean is text without secrets and control characters.
func (s *scrubber) clean(text string) string {
	text = halfURL.ReplaceAllString(s.replacer.Load().Replace(strings.Map(inLines, text)), "://"+redacted+"…")
	for _, p := range secretish {
		text = p.pattern.ReplaceAllString(text, p.with)
	}
	return text
}
