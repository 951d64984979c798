package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"ddtb/app/fault"
)

//go:embed static
var staticFS embed.FS

// own contains the files of the layout: the stylesheet and the icon.
var own = MustFiles("web", staticFS)

// Files are the static files of one package, served below /static/PACKAGE/.
type Files struct {
	byPath map[string]file // by the path after /static/
}

type file struct {
	body        []byte
	hash        string
	contentType string
}

// contentTypes replaces package mime, whose answers depend on the machine.
var contentTypes = map[string]string{
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".json": "application/json",
	".png":  "image/png",
	".svg":  "image/svg+xml",
	".txt":  "text/plain; charset=utf-8",
}

// MustFiles reads the files below the directory "static" of fsys. It panics if a file can't be read or has an unknown
// type: the files are embedded, so that is a bug.
func MustFiles(pkg string, fsys fs.FS) *Files {
	f := &Files{map[string]file{}}
	err := fs.WalkDir(fsys, "static", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		contentType, ok := contentTypes[path.Ext(name)]
		if !ok {
			return fmt.Errorf("%s: no content type for %q", name, path.Ext(name))
		}
		body, err := fs.ReadFile(fsys, name)
		sum := sha256.Sum256(body)
		f.byPath[pkg+strings.TrimPrefix(name, "static")] = file{body, hex.EncodeToString(sum[:8]), contentType}
		return err
	})
	if err != nil {
		panic(fmt.Sprintf("web: static files of %s: %v", pkg, err))
	}
	return f
}

// URL returns the address of a file of this package ("polls/style.css") or of the layout ("web/ddtb.css"). It changes
// with the content, so that clients may cache the file forever.
func (f *Files) URL(name string) (string, error) {
	for _, files := range []*Files{f, own} {
		if file, ok := files.byPath[name]; ok {
			return "/static/" + name + "?v=" + file.hash, nil
		}
	}
	return "", fmt.Errorf("no static file %q", name)
}

// Static answers GET and HEAD of /static/* with the files of these packages and of the layout. Directories are not
// listed: they are 404.
func Static(packages ...*Files) echo.HandlerFunc {
	packages = append(packages, own)
	return func(c echo.Context) error {
		for _, files := range packages {
			if file, ok := files.byPath[c.Param("*")]; ok {
				return file.serve(c)
			}
		}
		return fault.New(fault.NotFound, "There is no such file.")
	}
}

// Stylesheet returns the layout's stylesheet, for a self-contained document.
func Stylesheet() string { return string(own.byPath["web/ddtb.css"].body) }

// Favicon answers /favicon.ico for clients that ignore the link in the page.
func Favicon(c echo.Context) error { return own.byPath["web/favicon.svg"].serve(c) }

func (f file) serve(c echo.Context) error {
	h := c.Response().Header()
	h.Set(echo.HeaderContentType, f.contentType)
	h.Set("ETag", `"`+f.hash+`"`)
	h.Set(echo.HeaderCacheControl, "no-cache") // cache it, but revalidate
	if c.QueryParam("v") == f.hash {
		h.Set(echo.HeaderCacheControl, "public, max-age=31536000, immutable")
	}
	http.ServeContent(c.Response(), c.Request(), "", time.Time{}, bytes.NewReader(f.body))
	return nil
}
