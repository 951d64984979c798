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

	"github.com/labstack/echo/v4"

	"ddtb/app/fault"
)

// MaxBody is the most that the body of a request may have, in bytes.
const MaxBody = 1_000_000

// Guard is what every request passes before its handler: it refuses a form that another site sent in a visitor's name,
// bounds the body, and tells a body that the client broke off from a fault of ours.
type Guard struct {
	origins *http.CrossOriginProtection
	hosts   []string
}

// NewGuard trusts forms from the origin of baseURL too, if any, and the hosts for OwnHost: a proxy may have replaced the
// Host by which the client came.
func NewGuard(baseURL string, hosts ...string) *Guard {
	g := &Guard{origins: http.NewCrossOriginProtection()}
	for _, h := range hosts {
		g.hosts = append(g.hosts, hostName(h))
	}
	if u, err := url.Parse(baseURL); err == nil && u.Host != "" {
		_ = g.origins.AddTrustedOrigin(originOf(u)) // the configuration refuses an address that is none
		g.hosts = append(g.hosts, hostName(u.Host))
	}
	return g
}

// originOf is the origin as browsers write it.
func originOf(u *url.URL) string {
	scheme, host := strings.ToLower(u.Scheme), strings.ToLower(u.Host)
	if port := u.Port(); scheme == "http" && port == "80" || scheme == "https" && port == "443" {
		host = strings.TrimSuffix(host, ":"+port)
	}
	return scheme + "://" + host
}

// Check guards one request.
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

// Middleware is Check for every request.
func (g *Guard) Middleware(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if err := g.Check(c); err != nil {
			return err
		}
		return next(c)
	}
}

// clientBody is a body whose failures are the client's: it broke off, came too slowly, or was no body at all.
type clientBody struct{ io.ReadCloser }

// Read is part of io.Reader.
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

// OwnHost refuses a request whose Host is a name that nobody gave to this server. Such a name may lead here by DNS
// alone: the page of another site then passes for one of ours (DNS rebinding). Addresses and loopback names are ours.
func (g *Guard) OwnHost(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		host := hostName(c.Request().Host)
		if g.ownHost(host) {
			return next(c)
		}
		err := fmt.Errorf("the Host %q is not in server.allowed_hosts, nor that of server.base_url", Cut(host))
		return fault.Wrap(fault.Forbidden, err,
			"This server does not go by the name in the address, so it does not start a test. Use its IP address, "+
				"or add the name to allowed_hosts under [server] in the configuration file.")
	}
}

func (g *Guard) ownHost(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || slices.Contains(g.hosts, host)
}

// hostName is the host without its port, in one spelling.
func hostName(hostPort string) string {
	host := hostPort
	if h, _, err := net.SplitHostPort(hostPort); err == nil {
		host = h
	}
	return strings.TrimSuffix(strings.ToLower(strings.Trim(host, "[]")), ".")
}

// maxCut is how much of a text that a client made up is logged.
const maxCut = 200

// Cut shortens what a client made up, for the log.
func Cut(text string) string {
	if len(text) <= maxCut {
		return text
	}
	return text[:maxCut] + "…"
}
