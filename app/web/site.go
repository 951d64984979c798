package web

import (
	"strings"

	"github.com/labstack/echo/v4"
)

// Site is what the header of every page shows.
type Site struct {
	Name string
	Nav  []Link
}

// Link is a place in the header. It is marked as the current one on the pages below its Path.
type Link struct {
	Path, Text string
}

const siteKey = "ddtb/app/web.Site"

// Middleware gives the site to every page that is rendered below it, error pages too.
func (s *Site) Middleware() echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			c.Set(siteKey, s)
			return next(c)
		}
	}
}

var nameless = &Site{Name: "ddtb"}

func siteOf(c echo.Context) *Site {
	if s, ok := c.Get(siteKey).(*Site); ok {
		return s
	}
	return nameless
}

// Current tells whether the page shown is below the link.
func (v view) Current(l Link) bool { return strings.HasPrefix(v.Path, l.Path) }
