package web

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/labstack/echo/v4"

	"ddtb/app/fault"
)

// MaxBody is the maximum size of a request's body, in bytes.
const MaxBody = 1_000_000

// Guard checks every request before its handler. It refuses forms sent by another site (CSRF), limits the body, and
// distinguishes a body that the client aborted from a failure of ours.
//
// Forms are judged by Sec-Fetch-Site and Origin. One of them comes with every form that a browser since 2019 sends across
// sites. A Referer alone decides nothing, as in Django over plain HTTP: programs set it, privacy settings and proxies
// strip or rewrite it, and the older browsers that send nothing else know the session cookie's SameSite.
type Guard struct {
	origins *http.CrossOriginProtection
	hosts   []string
}

// NewGuard also trusts forms from the origin of baseURL, if any, because a proxy may have replaced the Host header.
// hosts are additional names for OwnHost.
func NewGuard(baseURL string, hosts ...string) *Guard {
	g := &Guard{origins: http.NewCrossOriginProtection()}
	for _, h := range hosts {
		g.hosts = append(g.hosts, hostName(h))
	}
	if u, err := url.Parse(baseURL); err == nil && u.Host != "" {
		_ = g.origins.AddTrustedOrigin(originOf(u)) // the configuration rejects an invalid address
		g.hosts = append(g.hosts, hostName(u.Host))
	}
	return g
}

// originOf returns the origin as browsers write it.
func originOf(u *url.URL) string {
	scheme, host := strings.ToLower(u.Scheme), strings.ToLower(u.Host)
	if port := u.Port(); scheme == "http" && port == "80" || scheme == "https" && port == "443" {
		host = strings.TrimSuffix(host, ":"+port)
	}
	return scheme + "://" + host
}

// Check checks one request.
func (g *Guard) Check(c echo.Context) error {
	r := c.Request()
	if err := g.origins.Check(r); err != nil {
		err = fmt.Errorf("%w: Origin %q, Sec-Fetch-Site %q, Host %q; if a proxy in front changes the Host, set server.base_url",
			err, Cut(r.Header.Get("Origin")), Cut(r.Header.Get("Sec-Fetch-Site")), Cut(r.Host))
		return fault.Wrap(fault.Forbidden, err, "This form came from another site. Open the page here and send it again.")
	}
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	if r.ContentLength > MaxBody {
		return fault.New(fault.TooLarge, "%s", httpSentence(http.StatusRequestEntityTooLarge))
	}
	r.Body = clientBody{http.MaxBytesReader(c.Response(), r.Body, MaxBody)}
	return nil
}

// Middleware runs Check for every request.
func (g *Guard) Middleware(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if err := g.Check(c); err != nil {
			return err
		}
		return next(c)
	}
}

// clientBody is a body whose errors are the client's: aborted, too slow, or malformed.
type clientBody struct{ io.ReadCloser }

// Read implements io.Reader.
func (b clientBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == nil || err == io.EOF {
		return n, err
	}
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return n, err
	}
	return n, fault.Wrap(fault.Invalid, err, "What you sent did not arrive whole. Send it again.")
}

// OwnHost refuses a request whose Host is not a name of this server. Another site can point such a name here by DNS, so
// that its page has our origin (DNS rebinding). Addresses and loopback names are accepted.
func (g *Guard) OwnHost(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		host := hostName(c.Request().Host)
		_, notAddress := netip.ParseAddr(host)
		if notAddress == nil || host == "localhost" || strings.HasSuffix(host, ".localhost") || slices.Contains(g.hosts, host) {
			return next(c)
		}
		err := fmt.Errorf("the Host %q is not in server.allowed_hosts, nor that of server.base_url", Cut(host))
		return fault.Wrap(fault.Forbidden, err,
			"This server does not go by the name in the address, so it does not start a test. Use its IP address, "+
				"or add the name to allowed_hosts under [server] in the configuration file.")
	}
}

// hostName returns the host without its port, normalized.
func hostName(hostPort string) string {
	host, _, err := net.SplitHostPort(hostPort)
	if err != nil {
		host = hostPort
	}
	return strings.TrimSuffix(strings.ToLower(strings.Trim(host, "[]")), ".")
}

// maxCut is the maximum length of a client's text in the log.
const maxCut = 200

// Cut shortens a client's text for the log.
func Cut(text string) string {
	if len(text) <= maxCut {
		return text
	}
	return strings.ToValidUTF8(text[:maxCut], "") + "…" // without half a letter
}

// Capitalized returns a sentence's or a label's text with a capital first letter.
func Capitalized(s string) string {
	first, size := utf8.DecodeRuneInString(s)
	if size == 0 {
		return s
	}
	return string(unicode.ToUpper(first)) + s[size:]
}
