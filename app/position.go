package app

import (
	"context"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"ddtb/app/auth"
	"ddtb/config"
	"ddtb/db"
)

// positionCookie holds the WAL position up to which the visitor has seen the database, in PostgreSQL's notation. It is
// neither secret nor signed: a forged one only sends its own visitor's reads to the primary, after a wait of a few
// milliseconds.
const positionCookie = "ddtb_position"

// replica returns the settings of the replicas, or nil.
func replica(cfg *config.Config) *db.Settings {
	if s, ok := cfg.Databases["replica"]; ok {
		return &s
	}
	return nil
}

// followWrites makes the request's reads include the visitor's previous writes. A request that writes gets a new
// position before its response. A GET does not write.
func (a *App) followWrites(ctx context.Context, c echo.Context) {
	if cookie, err := c.Request().Cookie(positionCookie); err == nil {
		if p, ok := db.ParsePosition(cookie.Value); ok {
			a.db.Follow(ctx, p)
		}
	}
	if m := c.Request().Method; m == http.MethodGet || m == http.MethodHead {
		return
	}
	c.Response().Before(func() {
		p, wrote := a.db.Written(ctx)
		if !wrote {
			return
		}
		age := max(time.Minute, 2*a.db.MaxLag()) // after it every replica in service has replayed the position
		c.SetCookie(&http.Cookie{
			Name: positionCookie, Value: p.String(), Path: "/", MaxAge: int(age.Seconds()),
			HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: auth.OverTLS(c.Request()),
		})
	})
}
