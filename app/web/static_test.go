package web_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"ddtb/app/fault"
	"ddtb/app/web"
)

// get asks the static handler, and turns its error into a status.
func get(t *testing.T, files *web.Files, method, target string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	e := echo.New()
	e.HTTPErrorHandler = func(err error, c echo.Context) {
		if fault.KindOf(err) == fault.NotFound {
			_ = c.NoContent(http.StatusNotFound)
		}
	}
	e.Match([]string{http.MethodGet, http.MethodHead}, "/static/*", web.Static(files))
	e.GET("/favicon.ico", web.Favicon)
	req := httptest.NewRequestWithContext(t.Context(), method, target, nil)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	rec := httptest.NewRecorder()
	e.ServeHTTP(rec, req)
	return rec
}

func someFiles() *web.Files {
	return web.MustFiles("some", pages(map[string]string{
		"static/style.css": "a{}", "static/js/x.js": "x()", "static/x.svg": "<svg/>", "templates/a.html": "secret",
	}))
}

func TestStaticFilesHaveTheirTypesAndNothingElseIsServed(t *testing.T) {
	for target, want := range map[string]string{
		"/static/some/style.css":             "text/css; charset=utf-8",
		"/static/some/js/x.js":               "text/javascript; charset=utf-8",
		"/static/some/x.svg":                 "image/svg+xml",
		"/static/web/ddtb.css":               "text/css; charset=utf-8",
		"/favicon.ico":                       "image/svg+xml",
		"/static/":                           "",
		"/static/some":                       "",
		"/static/some/":                      "",
		"/static/some/js/":                   "",
		"/static/some/js/../style.css":       "",
		"/static/some/%2e%2e/templates/a":    "",
		"/static/some/../templates/a.html":   "",
		"/static/templates/a.html":           "",
		"/static/some/style.css/":            "",
		"/static/some/style.css%00":          "",
		"/static/other/style.css":            "",
		"/static/some/style.css?v=elsewhere": "text/css; charset=utf-8",
	} {
		rec := get(t, someFiles(), http.MethodGet, target)
		status := http.StatusOK
		if want == "" {
			status = http.StatusNotFound
		}
		if rec.Code != status || rec.Header().Get("Content-Type") != want {
			t.Errorf("%s: got %d %s", target, rec.Code, rec.Header().Get("Content-Type"))
		}
	}
}

func TestAStaticFileIsKeptForEverUnderTheAddressOfItsContentAlone(t *testing.T) {
	files := someFiles()
	url, err := files.URL("some/style.css")
	if err != nil || !strings.HasPrefix(url, "/static/some/style.css?v=") {
		t.Fatalf("got %q, %v", url, err)
	}
	for target, want := range map[string]string{
		url:                            "public, max-age=31536000, immutable",
		"/static/some/style.css":       "no-cache",
		"/static/some/style.css?v=old": "no-cache",
	} {
		if got := get(t, files, http.MethodGet, target).Header().Get("Cache-Control"); got != want {
			t.Errorf("%s: got %q", target, got)
		}
	}
	changed := web.MustFiles("some", pages(map[string]string{"static/style.css": "b{}"}))
	if other, _ := changed.URL("some/style.css"); other == url {
		t.Error("the address is the same for other content")
	}
	if url, err := files.URL("some/none.css"); err == nil {
		t.Errorf("an address for a file that is not there: %s", url)
	}
}

func TestAStaticFileAnswersHEADConditionsAndRanges(t *testing.T) {
	full := get(t, someFiles(), http.MethodGet, "/static/some/style.css")
	etag := full.Header().Get("ETag")
	if full.Body.String() != "a{}" || etag == "" {
		t.Fatalf("got %q, ETag %q", full.Body, etag)
	}
	head := get(t, someFiles(), http.MethodHead, "/static/some/style.css")
	if head.Code != http.StatusOK || head.Body.Len() != 0 || head.Header().Get("Content-Length") != "3" {
		t.Errorf("HEAD: %d %q %v", head.Code, head.Body, head.Header())
	}
	if rec := get(t, someFiles(), http.MethodGet, "/static/some/style.css", "If-None-Match", etag); rec.Code != http.StatusNotModified {
		t.Errorf("If-None-Match: %d", rec.Code)
	}
	if rec := get(t, someFiles(), http.MethodGet, "/static/some/style.css", "Range", "bytes=1-1"); rec.Body.String() != "{" {
		t.Errorf("Range: %d %q", rec.Code, rec.Body)
	}
}

func TestAFileOfAnUnknownTypePanicsAtTheStart(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	web.MustFiles("some", pages(map[string]string{"static/x.exe": ""}))
}
