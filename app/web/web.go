// Package web turns pages and errors into responses: templates, layout, static files. It does not depend on polls,
// users, or the source of connections.
//
// A package with pages embeds its templates and static files, and loads both at start:
//
//	var files = web.MustFiles("polls", staticFS)                                   // /static/polls/…
//	var pages = web.MustTemplates(templateFS, template.FuncMap{"static": files.URL})
//
//	return pages.Render(c, http.StatusOK, "detail.html", data)
package web

import (
	"bytes"
	_ "embed" // the layout
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/labstack/echo/v4"

	"ddtb/app/fault"
)

// Route is one address that a package serves, for the application's table.
type Route struct {
	Method, Path string
	Handler      echo.HandlerFunc
}

// Get returns the route of a GET.
func Get(path string, h echo.HandlerFunc) Route { return Route{http.MethodGet, path, h} }

// Post returns the route of a POST.
func Post(path string, h echo.HandlerFunc) Route { return Route{http.MethodPost, path, h} }

//go:embed templates/layout.html
var layout string

// Templates is a set of pages that share the layout.
type Templates struct {
	pages map[string]*template.Template // by the base name of the file
}

// MustTemplates parses templates/*.html of fsys, each file as a page. A page defines the blocks "title" and "main", which
// get the data passed to Render. It may define "head" (links and scripts), "nav" (more at the end of the header) and
// "width" ("wide" for tables). A file whose name begins with "_" is shared by all pages of the set. Embed such files with a
// pattern, templates/*.html: embedding a directory omits them.
//
// A staff page uses the template "userbar" in its "nav". Given a user with a ShortName, it greets the user, and links
// to the password form and the logout; given nil, it is empty.
//
// Pages have the function static "web/…". A package with its own static files passes the URL method of its Files under
// the same name.
//
// MustTemplates panics if a template does not parse, lacks a block, or can't be escaped: templates are embedded, so
// that is a bug.
func MustTemplates(fsys fs.FS, funcs template.FuncMap) *Templates {
	shared, _ := fs.Glob(fsys, "templates/_*.html")
	pages, _ := fs.Glob(fsys, "templates/[^_]*.html")
	base := template.Must(template.New("layout").Funcs(template.FuncMap{"static": own.URL}).Funcs(funcs).Parse(layout))
	for _, file := range shared {
		template.Must(base.ParseFS(fsys, file))
	}
	t := &Templates{pages: make(map[string]*template.Template, len(pages))}
	for _, file := range pages {
		t.pages[path.Base(file)] = mustPage(base, fsys, file)
	}
	return t
}

func mustPage(base *template.Template, fsys fs.FS, file string) *template.Template {
	page := template.Must(template.Must(base.Clone()).ParseFS(fsys, file)).Lookup("layout")
	// html/template escapes at the first execution. Executing each page here detects escaping errors and missing blocks
	// at start. The absence of data does not matter.
	if e, ok := errors.AsType[*template.Error](page.Execute(io.Discard, view{})); ok {
		panic(fmt.Sprintf("web: %s: %v", file, e))
	}
	return page
}

// view is the data of the layout; the page's own blocks get Page.
type view struct {
	Links, Header template.HTML
	Page          any
}

// Render executes the page into a buffer, then writes it with its length, so that an error leaves the response
// untouched. page is the base name of its file.
func (t *Templates) Render(c echo.Context, status int, page string, data any) error {
	buf := buffers.Get().(*bytes.Buffer)
	defer giveBack(buf)
	if err := t.execute(buf, page, newView(c, data)); err != nil {
		return err
	}
	return write(c, status, buf.Bytes())
}

func newView(c echo.Context, data any) view {
	f := frameOf(c)
	return view{f.links, f.header(c.Request().URL.Path), data}
}

func (t *Templates) execute(buf *bytes.Buffer, page string, v view) error {
	tmpl, ok := t.pages[page]
	if !ok {
		return fmt.Errorf("no page %q", page)
	}
	if err := tmpl.Execute(buf, v); err != nil {
		return fmt.Errorf("render %s: %w", page, err)
	}
	return nil
}

// counted is the length up to which net/http adds the Content-Length itself.
const counted = 2 << 10

var htmlType = []string{echo.MIMETextHTMLCharsetUTF8}

// write leaves the length of a short page to net/http. A refusal would otherwise have a ninth header, for which the map of
// headers and net/http's copy of it have to grow: a few hundredths of the cost of a refusal.
func write(c echo.Context, status int, html []byte) error {
	r := c.Response()
	r.Header()[echo.HeaderContentType] = htmlType
	if len(html) > counted {
		r.Header().Set(echo.HeaderContentLength, strconv.Itoa(len(html)))
	}
	r.WriteHeader(status)
	_, err := r.Write(html)
	return err
}

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// maxKept limits a buffer in the pool, so that one huge page does not stay in memory forever.
const maxKept = 256 << 10

func giveBack(buf *bytes.Buffer) {
	if buf.Cap() <= maxKept {
		buf.Reset()
		buffers.Put(buf)
	}
}

// ID returns the path parameter as a row id. If ParseID rejects it, the error is a 404.
func ID(c echo.Context, param string) (int64, error) {
	id, ok := ParseID(c.Param(param))
	if !ok {
		return 0, fault.New(fault.NotFound, "There is no such page: its address has no valid number.")
	}
	return id, nil
}

// ParseID parses a row id from a client: decimal digits only, from 1 to the largest bigint.
func ParseID(text string) (id int64, ok bool) {
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil || id <= 0 || text[0] == '+' {
		return 0, false
	}
	return id, true
}

// IsText reports whether a page can show the text, and PostgreSQL can store it.
func IsText(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

// WantsJSON reports whether the client prefers JSON to a page: its Accept header names a JSON type, and no page type
// with a higher weight. "*/*" names neither, so the client gets the page.
func WantsJSON(c echo.Context) bool {
	json, html := wants(c)
	return json > html
}

// WantsHTML reports whether the client asked for a page, as browsers do and curl does not. It is the opposite default,
// for addresses intended for curl.
func WantsHTML(c echo.Context) bool {
	json, html := wants(c)
	return html > 0 && html >= json
}

const forCurlKey = "ddtb.for-curl"

// ForCurl answers the errors of h in JSON, unless the client asked for a page.
func ForCurl(h echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		c.Set(forCurlKey, true)
		return h(c)
	}
}

func forCurl(c echo.Context) bool { return c.Get(forCurlKey) != nil && !WantsHTML(c) }

// wants returns the weights of JSON and of a page in the Accept header.
func wants(c echo.Context) (json, html float64) {
	for item := range strings.SplitSeq(c.Request().Header.Get(echo.HeaderAccept), ",") {
		kind, params, _ := strings.Cut(item, ";")
		kind = strings.ToLower(strings.TrimSpace(kind))
		switch {
		case kind == "application/json" || strings.HasSuffix(kind, "+json"):
			json = max(json, weight(params))
		case kind == "text/html" || kind == "application/xhtml+xml":
			html = max(html, weight(params))
		}
	}
	return json, html
}

// weight returns the q parameter of a media range: 1 if it is absent or invalid.
func weight(params string) float64 {
	for p := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		if !strings.EqualFold(name, "q") {
			continue
		}
		if q, err := strconv.ParseFloat(value, 64); err == nil {
			return q
		}
	}
	return 1
}
