package auth

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"ddtb/db"
)

// cookieName is our own, so that a Django on the same host keeps its sessionid. Under TLS its prefix makes browsers
// refuse it from other hosts of the domain and from plain HTTP, which could sign a visitor in as somebody else.
func cookieName(r *http.Request) string {
	if OverTLS(r) {
		return "__Host-ddtb_session"
	}
	return "ddtb_session"
}

// OverTLS reports whether the client came by TLS, for cookies: here, or to the first of the proxies before this server.
// Whoever sends the header is believed: a client that claims so falsely harms itself alone.
func OverTLS(r *http.Request) bool {
	first, _, _ := strings.Cut(r.Header.Get(echo.HeaderXForwardedProto), ",")
	return r.TLS != nil || strings.EqualFold(strings.TrimSpace(first), "https") ||
		strings.EqualFold(r.Header.Get(echo.HeaderXForwardedSsl), "on")
}

// visit is one request's knowledge of who makes it: looked up when first asked for.
type visit struct {
	service *Service
	secret  string
	key     secretHash
	valid   bool // the cookie can be a secret

	mu     sync.Mutex
	user   *User
	looked bool
	ended  string // whose session it was, where their password hash has changed
}

type visitKey struct{}

// Middleware lets what is below it ask who makes the request. By itself it asks the database nothing.
func (s *Service) Middleware(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		v := &visit{service: s}
		r := c.Request()
		if cookie, err := r.Cookie(cookieName(r)); err == nil {
			v.secret = cookie.Value
			v.key, v.valid = hashSecret(cookie.Value)
		}
		c.SetRequest(r.WithContext(context.WithValue(r.Context(), visitKey{}, v)))
		return next(c)
	}
}

// UserFrom is who makes the request, or nil for nobody; for pages that only read: it may be up to 30 seconds old.
// The error is the database's.
func UserFrom(ctx context.Context) (*User, error) {
	v, ok := ctx.Value(visitKey{}).(*visit)
	if !ok || !v.valid {
		return nil, nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.looked {
		return v.user, nil
	}
	return v.found(v.service.user(ctx, v.key))
}

// found notes the answer to whose session it is.
func (v *visit) found(u *User, err error) (*User, error) {
	if ended, ok := errors.AsType[*endedError](err); ok {
		v.ended, err = ended.username, nil
	}
	if err != nil {
		return nil, err
	}
	v.user, v.looked = u, true
	return u, nil
}

// Ended returns whose session the request's is that ended because their password hash changed: by a new password, or by
// another application that encoded the same one anew, as Django does at a login. It is "" for any other request, and
// before UserFrom or Recheck was asked.
func Ended(ctx context.Context) (username string) {
	v, ok := ctx.Value(visitKey{}).(*visit)
	if !ok {
		return ""
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.ended
}

// Recheck is who makes the request, asked of the database now: for everything that changes something.
func Recheck(ctx context.Context) (*User, error) {
	v, ok := ctx.Value(visitKey{}).(*visit)
	if !ok {
		return nil, nil
	}
	return RecheckThrough(ctx, v.service.db)
}

// RecheckThrough is Recheck, asked through q: for what must be possible while no connection can be had.
func RecheckThrough(ctx context.Context, q db.Querier) (*User, error) {
	v, ok := ctx.Value(visitKey{}).(*visit)
	if !ok || !v.valid {
		return nil, nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	_, epoch := v.service.seen.at(v.key, v.service.now())
	return v.found(v.service.ask(ctx, q, v.key, epoch))
}

// Secret is the secret of the request's session, or "". It is the key under which what is only this visitor's
// may be signed.
func Secret(ctx context.Context) string {
	if v, ok := ctx.Value(visitKey{}).(*visit); ok && v.valid {
		return v.secret
	}
	return ""
}

// SignIn is Login with the request's address and cookie: it sets the new cookie, and replaces the old session.
func (s *Service) SignIn(c echo.Context, username, password string) error {
	ctx := c.Request().Context()
	session, err := s.Login(ctx, username, password, c.RealIP(), Secret(ctx))
	if err != nil {
		return err
	}
	setCookie(c, session)
	return nil
}

// SignOut ends the request's session, and takes its cookie back.
func (s *Service) SignOut(c echo.Context) error {
	ctx := c.Request().Context()
	if err := s.Logout(ctx, Secret(ctx)); err != nil {
		return err
	}
	setCookie(c, Session{Expires: time.Unix(1, 0)})
	return nil
}

// ChangeOwnPassword is ChangePassword for who makes the request, who stays signed in with a new cookie.
func (s *Service) ChangeOwnPassword(c echo.Context, u *User, old, password string) error {
	session, err := s.ChangePassword(c.Request().Context(), u, old, password, c.RealIP())
	if err != nil {
		return err
	}
	setCookie(c, session)
	return nil
}

// setCookie: SameSite Lax, since with Strict a link in a mail would arrive signed out. Secure wherever TLS is.
func setCookie(c echo.Context, session Session) {
	c.SetCookie(&http.Cookie{
		Name: cookieName(c.Request()), Value: session.Secret, Path: "/", Expires: session.Expires,
		HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: OverTLS(c.Request()),
	})
}
