package auth

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"ddtb/db"
)

// cookieName is not Django's, so that a Django on the same host keeps its sessionid. Under TLS its prefix makes
// browsers reject the cookie from other hosts of the domain and from plain HTTP, which could sign a visitor in as
// another user.
func cookieName(r *http.Request) string {
	if OverTLS(r) {
		return "__Host-ddtb_session"
	}
	return "ddtb_session"
}

// OverTLS reports whether the client connected by TLS, to this server or to the first proxy, for cookies. The header is
// trusted from any client: a false claim harms only that client.
func OverTLS(r *http.Request) bool {
	first, _, _ := strings.Cut(r.Header.Get(echo.HeaderXForwardedProto), ",")
	return r.TLS != nil || strings.EqualFold(strings.TrimSpace(first), "https") ||
		strings.EqualFold(r.Header.Get(echo.HeaderXForwardedSsl), "on")
}

// visit is the session of one request.
type visit struct {
	service *Service
	secret  string // "": none, or malformed
	key     secretHash
}

type visitKey struct{}

// visitOf returns an empty visit outside of Middleware.
func visitOf(ctx context.Context) *visit {
	if v, ok := ctx.Value(visitKey{}).(*visit); ok {
		return v
	}
	return &visit{}
}

// Middleware makes the request's user available below it. It makes no query by itself.
func (s *Service) Middleware(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		c.SetRequest(r.WithContext(s.With(r.Context(), r)))
		return next(c)
	}
}

// With returns ctx with the user of r, for UserFrom and the like.
func (s *Service) With(ctx context.Context, r *http.Request) context.Context {
	secret := ""
	if cookie, err := r.Cookie(cookieName(r)); err == nil {
		secret = cookie.Value
	}
	return s.withSecret(ctx, secret)
}

func (s *Service) withSecret(ctx context.Context, secret string) context.Context {
	v := &visit{service: s}
	if key, ok := hashSecret(secret); ok {
		v.secret, v.key = secret, key
	}
	return context.WithValue(ctx, visitKey{}, v)
}

// UserFrom returns the request's user, or nil if not signed in. It is for pages that only read: the result may be up to
// 30 seconds old. The error is the database's.
func UserFrom(ctx context.Context) (*User, error) { return userFrom(ctx, false) }

// UserOnce is UserFrom for callers that can do without the answer: it does not retry its query during an outage.
func UserOnce(ctx context.Context) (*User, error) { return userFrom(ctx, true) }

func userFrom(ctx context.Context, once bool) (*User, error) {
	v := visitOf(ctx)
	if v.secret == "" {
		return nil, nil
	}
	return v.service.user(ctx, v.key, once)
}

// Ended queries the username of the request's session if it ended because the password hash changed: by a new password,
// or by another application that encoded the same password again, as Django does at a login. It is "" for any other
// request, and if the database can't be asked.
func Ended(ctx context.Context) (username string) {
	v := visitOf(ctx)
	if v.secret == "" {
		return ""
	}
	_, _, username, _ = load(ctx, v.service.db, v.key)
	return username
}

// Recheck returns the request's user from the database: for every change.
func Recheck(ctx context.Context) (*User, error) {
	v := visitOf(ctx)
	if v.secret == "" {
		return nil, nil
	}
	return RecheckThrough(ctx, v.service.db)
}

// RecheckThrough is Recheck with q: for actions that must be possible while no connection is available.
func RecheckThrough(ctx context.Context, q db.Querier) (*User, error) {
	v := visitOf(ctx)
	if v.secret == "" {
		return nil, nil
	}
	_, epoch := v.service.seen.at(v.key, v.service.now())
	return v.service.ask(ctx, q, v.key, epoch)
}

// Secret returns the secret of the request's session, or "". It is the key for signing this visitor's data.
func Secret(ctx context.Context) string { return visitOf(ctx).secret }

// SignIn is Login with the request's address and cookie: it sets the new cookie, and replaces the old session.
func (s *Service) SignIn(c echo.Context, username, password string) error {
	ctx := c.Request().Context()
	session, err := s.Login(ctx, username, password, c.RealIP(), Secret(ctx))
	return setCookie(c, session, err)
}

// SignOut ends the request's session, and removes its cookie.
func (s *Service) SignOut(c echo.Context) error {
	ctx := c.Request().Context()
	return setCookie(c, Session{Expires: time.Unix(1, 0)}, s.Logout(ctx, Secret(ctx)))
}

// ChangeOwnPassword is ChangePassword for the request's user, who stays signed in with a new cookie.
func (s *Service) ChangeOwnPassword(c echo.Context, u *User, old, password string) error {
	session, err := s.ChangePassword(c.Request().Context(), u, old, password, c.RealIP())
	return setCookie(c, session, err)
}

// setCookie sets the session's cookie, unless there is an error, which it returns. The cookie uses SameSite Lax: with Strict,
// a link in a mail would open signed out. It is Secure if the client uses TLS.
func setCookie(c echo.Context, session Session, err error) error {
	if err != nil {
		return err
	}
	c.SetCookie(&http.Cookie{
		Name: cookieName(c.Request()), Value: session.Secret, Path: "/", Expires: session.Expires,
		MaxAge:   int(time.Until(session.Expires).Seconds()), // for a browser whose clock is wrong
		HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: OverTLS(c.Request()),
	})
	return nil
}
