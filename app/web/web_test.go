package web_test

import (
	"html/template"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/PuerkitoBio/goquery"
	"github.com/labstack/echo/v4"

	"ddtb/app/fault"
	"ddtb/app/web"
)

func pages(files map[string]string) fstest.MapFS {
	m := fstest.MapFS{}
	for name, text := range files {
		m[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return m
}

func page(text string) fstest.MapFS {
	return pages(map[string]string{"templates/page.html": `{{define "title"}}A title{{end}}{{define "main"}}` + text + `{{end}}`})
}

// context is a request to path with its recorder.
func context(t *testing.T, path string) (echo.Context, *httptest.ResponseRecorder) {
	t.Helper()
	rec := httptest.NewRecorder()
	return echo.New().NewContext(httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil), rec), rec
}

func document(t *testing.T, rec *httptest.ResponseRecorder) *goquery.Document {
	t.Helper()
	doc, err := goquery.NewDocumentFromReader(rec.Body)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestAPageIsSentWithItsLength(t *testing.T) {
	set := web.MustTemplates(page(`<p>{{.}}</p>`), nil)
	e := echo.New()
	e.Any("/:times", func(c echo.Context) error {
		times, _ := strconv.Atoi(c.Param("times"))
		return set.Render(c, http.StatusOK, "page.html", strings.Repeat("long ", times))
	})
	s := httptest.NewServer(e)
	defer s.Close()
	for _, times := range []string{"1", "200", "300", "2000"} {
		t.Run(times, func(t *testing.T) {
			whole := ask(t, http.MethodGet, s.URL+"/"+times)
			if head := ask(t, http.MethodHead, s.URL+"/"+times); whole < 1 || head != whole {
				t.Errorf("Content-Length %d, and for HEAD %d", whole, head)
			}
		})
	}
}

// ask returns the length that the response announces; -1: none.
func ask(t *testing.T, method, url string) int64 {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept-Encoding", "identity")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.ContentLength
}

func TestRenderPutsThePageIntoTheLayout(t *testing.T) {
	c, rec := context(t, "/polls/7/")
	site := web.Site{Name: "A site", Nav: []web.Link{{Path: "/", Text: "Start"}, {Path: "/polls/", Text: "Polls"}, {Path: "/admin/", Text: "Admin"}}}
	set := web.MustTemplates(page(`<h1>{{.}}</h1>`), nil)
	site.On(c.Echo())
	if err := set.Render(c, http.StatusTeapot, "page.html", `<script>alert(1)</script>`); err != nil {
		t.Fatal(err)
	}
	if rec.Code != http.StatusTeapot || rec.Header().Get("Content-Type") != "text/html; charset=UTF-8" {
		t.Errorf("got %d, %s", rec.Code, rec.Header().Get("Content-Type"))
	}
	doc := document(t, rec)
	for selector, want := range map[string]string{
		"title":                          "A title",
		"main h1":                        `<script>alert(1)</script>`,
		"header .brand":                  "A site",
		`nav a[aria-current="true"]`:     "Polls",
		`nav a[href="/admin/"]`:          "Admin",
		`a.skip[href="#main"]`:           "Skip to the content",
		`main[id="main"][tabindex="-1"]`: `<script>alert(1)</script>`,
	} {
		if got := strings.TrimSpace(doc.Find(selector).Text()); got != want {
			t.Errorf("%s: got %q, want %q", selector, got, want)
		}
	}
}

func TestAnErrorWhileRenderingLeavesTheResponseUntouched(t *testing.T) {
	set := web.MustTemplates(page(`begun {{.Missing}}`), nil)
	for name, data := range map[string]any{"page.html": struct{}{}, "other.html": nil} {
		c, rec := context(t, "/")
		if err := set.Render(c, http.StatusOK, name, data); err == nil {
			t.Errorf("%s: no error", name)
		}
		if c.Response().Committed || rec.Body.Len() > 0 || len(rec.Header()) > 0 {
			t.Errorf("%s: the response has %v %q", name, rec.Header(), rec.Body)
		}
	}
}

func TestTemplatesThatCanNotWorkPanicAtTheStart(t *testing.T) {
	for why, files := range map[string]map[string]string{
		"does not parse":   {"templates/a.html": `{{define "title"}}`},
		"no title":         {"templates/a.html": `{{define "main"}}{{end}}`},
		"no main":          {"templates/a.html": `{{define "title"}}{{end}}`},
		"can't be escaped": {"templates/a.html": `{{define "title"}}{{end}}{{define "main"}}<a href={{if .}}"{{end}}>{{end}}`},
	} {
		t.Run(why, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			web.MustTemplates(pages(files), nil)
		})
	}
}

func TestPagesShareFilesWithAnUnderscoreAndFillTheOptionalBlocks(t *testing.T) {
	set := web.MustTemplates(pages(map[string]string{
		"templates/_shared.html": `{{define "item"}}<li>{{up .}}</li>{{end}}{{define "nav"}}<b class="end">me</b>{{end}}`,
		"templates/one.html": `{{define "title"}}One{{end}}{{define "main"}}<ul>{{range .}}{{template "item" .}}{{end}}</ul>{{end}}
			{{define "head"}}<meta name="robots" content="none">{{end}}{{define "width"}}wide{{end}}`,
		"templates/two.html": `{{define "title"}}Two{{end}}{{define "main"}}{{end}}{{define "nav"}}<b class="end">you</b>{{end}}`,
	}), template.FuncMap{"up": strings.ToUpper})
	render := func(name string) *goquery.Document {
		c, rec := context(t, "/")
		if err := set.Render(c, http.StatusOK, name, []string{"a", "b"}); err != nil {
			t.Fatal(err)
		}
		return document(t, rec)
	}
	one, two := render("one.html"), render("two.html")
	if got := one.Find("body.wide main li").Text(); got != "AB" {
		t.Errorf("shared item: %q", got)
	}
	if one.Find(`head meta[name="robots"]`).Length() != 1 || two.Find(`head meta[name="robots"]`).Length() != 0 {
		t.Error("the block head is not the page's own")
	}
	if one.Find("header b").Text() != "me" || two.Find("header b").Text() != "you" {
		t.Error("the block nav is not shared, or not replaced")
	}
}

func TestIDTakesTheIdsOfRowsAndNothingElse(t *testing.T) {
	for text, want := range map[string]int64{
		"1": 1, "007": 7, "9223372036854775807": 9223372036854775807,
		"0": 0, "-1": 0, "+1": 0, "": 0, "x": 0, "1x": 0, " 1": 0, "1.0": 0, "0x1": 0, "1_000": 0, "٣": 0,
		"9223372036854775808": 0, "12345678901234567890": 0,
	} {
		c, _ := context(t, "/")
		c.SetParamNames("id")
		c.SetParamValues(text)
		got, err := web.ID(c, "id")
		if got != want || (err == nil) != (want > 0) || (err != nil && fault.KindOf(err) != fault.NotFound) {
			t.Errorf("%q: got %d, %v", text, got, err)
		}
	}
}

func TestOnlyWhoAsksForJSONGetsJSON(t *testing.T) {
	for accept, want := range map[string]bool{
		"":                            false,
		"*/*":                         false,
		"text/html, */*;q=0.8":        false,
		"application/json":            true,
		"Application/JSON; q=0.9":     true,
		"application/problem+json":    true,
		"text/html, application/json": false,
		"text/html;q=0.5, application/json;q=0.9":  true,
		"application/json;q=0":                     false,
		"application/json;q=0.4, text/html;q=0.5":  false,
		"application/json;q=nonsense":              true,
		",;,=;q=,application/json;charset=utf-8;q": true,
	} {
		c, _ := context(t, "/")
		c.Request().Header.Set("Accept", accept)
		if got := web.WantsJSON(c); got != want {
			t.Errorf("%q: got %v", accept, got)
		}
	}
}

func TestAMemoExecutesAgainOnlyWhenWhatItShowsDiffers(t *testing.T) {
	executions := 0
	set := web.MustTemplates(page(`{{count}}{{range .}}<li>{{.}}</li>{{end}}`), template.FuncMap{
		"count": func() string { executions++; return "" },
	})
	memo := set.Memo("page.html")
	site := web.Site{Name: "A site", Nav: []web.Link{{Path: "/a/", Text: "A"}}}
	with, without := site.On, func(*echo.Echo) {}
	tooLong := strings.Repeat("x", 70_000) // the page is not kept, and the one before is
	executions = 0                         // MustTemplates tries each page
	for i, step := range []struct {
		path string
		on   func(*echo.Echo)
		data []string
		want int
	}{
		{"/a/", with, []string{"x"}, 1},
		{"/a/", with, []string{"x"}, 1},
		{"/a/b/", with, []string{"x"}, 1},
		{"/a/", with, []string{"y"}, 2},
		{"/a/", with, []string{"y", "x"}, 3},
		{"/a/", with, nil, 4},
		{"/b/", with, nil, 5},
		{"/b/", without, nil, 6},
		{"/a/", with, []string{"x"}, 7},
		{"/a/", with, []string{tooLong}, 8},
		{"/a/", with, []string{tooLong}, 9},
		{"/a/", with, []string{"x"}, 9},
	} {
		c, rec := context(t, step.path)
		step.on(c.Echo())
		if err := memo.Render(c, http.StatusOK, step.data); err != nil {
			t.Fatal(err)
		}
		fresh, full := context(t, step.path)
		step.on(fresh.Echo())
		err := set.Render(fresh, http.StatusOK, "page.html", step.data)
		if executions--; err != nil || rec.Body.String() != full.Body.String() || executions != step.want {
			t.Errorf("step %d: %d executions, want %d; %v; got\n%s\nwant\n%s", i, executions, step.want, err, rec.Body, full.Body)
		}
		if rec.Header().Get("Content-Length") != full.Header().Get("Content-Length") {
			t.Errorf("step %d: Content-Length %s", i, rec.Header().Get("Content-Length"))
		}
	}
}
