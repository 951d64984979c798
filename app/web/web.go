// Package web is the one place where a page or an error becomes a response: templates, layout, static files.
// It must not know what a poll is, who is signed in, or where connections come from.
package web

import (
	"html/template"
	"io/fs"

	"github.com/labstack/echo/v4"
)

// Templates is a set of pages that share the layout.
type Templates struct{}

// MustTemplates parses every *.html file of fsys as a page. A page defines the blocks "title" and "main", and
// may define "head" and "nav"; a file whose name begins with "_" is shared by all pages of the set.
// It panics on a template that does not parse: they are embedded, so that is a bug.
func MustTemplates(fsys fs.FS, funcs template.FuncMap) *Templates { panic("skeleton") }

// Render executes the page into a buffer, then writes it whole with its length: an error leaves the response
// untouched.
func (t *Templates) Render(c echo.Context, status int, page string, data any) error { panic("skeleton") }

// WantsJSON tells whether the client asked for JSON rather than a page.
func WantsJSON(c echo.Context) bool { panic("skeleton") }
