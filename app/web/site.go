package web

import (
	_ "embed" // the frame
	"errors"
	"html/template"
	"io"
	"strings"
	"sync/atomic"

	"github.com/labstack/echo/v4"
)

// Site is the contents of the header of every page.
type Site struct {
	Name string
	Nav  []Link
}

// Link is a link in the header. It is marked as current on the pages below its Path.
type Link struct {
	Path, Text string
}

// On uses the site for every page of e, including error pages. It may be called again while e serves requests.
func (s Site) On(e *echo.Echo) {
	if e.Renderer == nil {
		e.Renderer = &frameHolder{}
	}
	e.Renderer.(*frameHolder).Store(newFrame(s))
}

//go:embed templates/frame.html
var frameHTML string

var frames = template.Must(template.New("frame").Funcs(template.FuncMap{"static": own.URL}).Parse(frameHTML))

// frame is the part of a page that is the same for all requests, executed in advance: a third of the time of a small
// page.
type frame struct {
	nav     []Link
	headers []template.HTML // one for each current link, and a last one without
	links   template.HTML
}

var nameless = newFrame(Site{Name: "ddtb"})

func newFrame(s Site) *frame {
	f := &frame{nav: s.Nav, links: execute("links", nil)}
	for current := range len(s.Nav) + 1 {
		f.headers = append(f.headers, execute("header", struct {
			Site
			Current int
		}{s, current}))
	}
	return f
}

// execute panics on an error: the template is embedded, and its data are only texts.
func execute(name string, data any) template.HTML {
	var b strings.Builder
	if err := frames.ExecuteTemplate(&b, name, data); err != nil {
		panic(err)
	}
	return template.HTML(b.String()) //nolint:gosec // escaped by the template that made it
}

// frameHolder has the current frame. It is an echo.Renderer: finding it in Echo's Renderer costs a request nothing.
type frameHolder struct{ atomic.Pointer[frame] }

// Render implements echo.Renderer.
func (*frameHolder) Render(io.Writer, string, any, echo.Context) error {
	return errors.New("pages are rendered by Templates")
}

func frameOf(c echo.Context) *frame {
	if holder, ok := c.Echo().Renderer.(*frameHolder); ok {
		return holder.Load()
	}
	return nameless
}

// header returns the header whose current link is the nearest above path.
func (f *frame) header(path string) template.HTML {
	best, length := len(f.nav), 0
	for i, link := range f.nav {
		if len(link.Path) > length && strings.HasPrefix(path, link.Path) {
			best, length = i, len(link.Path)
		}
	}
	return f.headers[best]
}
