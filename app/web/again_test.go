package web_test

import (
	"bytes"
	gocontext "context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/PuerkitoBio/goquery"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/labstack/echo/v4"

	"ddtb/app/fault"
	"ddtb/app/web"
	"ddtb/db"
)

const formType = "application/x-www-form-urlencoded"

// failing is a server whose pages read so much of the body and then fail with err.
type failing struct {
	url  string
	read int64
	err  error
}

func newFailing(t *testing.T) *failing {
	t.Helper()
	f := &failing{err: &db.ConnError{Cause: db.PoolTimeout, Size: 1}}
	e := echo.New()
	e.HTTPErrorHandler = web.HandleErrors(slog.New(slog.DiscardHandler), nil)
	e.Use(web.NewGuard("").Middleware, web.KeepForms)
	e.Any("/*", func(c echo.Context) error {
		if _, err := io.CopyN(io.Discard, c.Request().Body, f.read); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		return f.err
	})
	srv := httptest.NewServer(e)
	t.Cleanup(srv.Close)
	f.url = srv.URL
	return f
}

func (f *failing) send(t *testing.T, method, target, contentType, accept, body string) (int, *goquery.Document) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, f.url+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Accept", accept)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	doc, err := goquery.NewDocumentFromReader(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, doc
}

// post is a form that fails, and the form in its page.
func (f *failing) post(t *testing.T, target, contentType, body string) (int, *goquery.Document) {
	t.Helper()
	return f.send(t, http.MethodPost, target, contentType, "text/html", body)
}

// hidden is the form as a browser would send it.
func hidden(doc *goquery.Document) string {
	var pairs []string
	for _, input := range doc.Find(`main form input[type="hidden"]`).EachIter() {
		pairs = append(pairs, url.QueryEscape(input.AttrOr("name", ""))+"="+url.QueryEscape(input.AttrOr("value", "")))
	}
	return strings.Join(pairs, "&")
}

func TestA503OffersTheFormAgainWithEveryFieldInItsOrder(t *testing.T) {
	f := newFailing(t)
	for _, body := range []string{
		"choice=1&token=0123456789abcdef0123456789abcdef",
		"b=2&a=1&b=1&b=2&a=",
		"text=%22%3E%3Cscript%3Ealert%281%29%3C%2Fscript%3E&%22+onfocus%3D%22alert%281%29=%27+autofocus+x%3D%27",
		"text=" + url.QueryEscape("<!-- &lt;b&gt; &amp; {{.}} é \u202e\n two  blanks \t"),
		"action=javascript:x&method=get",
	} {
		for _, read := range []int64{0, 5, 1 << 20} { // the handler failed before, while, or after it read the form
			f.read = read
			status, doc := f.post(t, "/polls/1/vote/?a=1&b=%22%3E", formType+"; charset=UTF-8", body)
			form := doc.Find("main form")
			if status != http.StatusServiceUnavailable || form.Length() != 1 || form.AttrOr("method", "") != "post" ||
				form.AttrOr("action", "") != "/polls/1/vote/?a=1&b=%22%3E" {
				html, _ := form.Html()
				t.Errorf("%d: %s", status, html)
			}
			if got, want := hidden(doc), strings.ReplaceAll(body, "javascript:x", "javascript%3Ax"); got != want {
				t.Errorf("after %d bytes: %s, want %s", read, got, want)
			}
			if doc.Find("script, [onfocus], [autofocus]").Length() != 0 || strings.TrimSpace(form.Find("button").Text()) != "Send it again" {
				html, _ := doc.Html()
				t.Errorf("what was typed became markup: %s", html)
			}
		}
	}
}

func TestADeadlineAndAFullDiskOfferTheFormAgain(t *testing.T) {
	for _, err := range []error{fmt.Errorf("x: %w", gocontext.DeadlineExceeded), &pgconn.PgError{Code: "53100"}} {
		f := newFailing(t)
		f.err = err
		if status, doc := f.post(t, "/polls/1/vote/", formType, "choice=1"); status != http.StatusServiceUnavailable || hidden(doc) != "choice=1" {
			t.Errorf("%v: %d, %s", err, status, hidden(doc))
		}
	}
}

func TestA503NeverHasASecretOfTheFormAndLinksItsPage(t *testing.T) {
	f := newFailing(t)
	for _, name := range []string{
		"password", "password1", "password2", "passwd", "secret", "old_password", "new_password1", "new_password2", "Password", "%70assword",
	} {
		_, doc := f.post(t, "/admin/login/?next=/admin/", formType, "username=ada&bad=%00&"+name+"=hunter2")
		html, _ := doc.Html()
		if strings.Contains(html, "hunter2") || doc.Find("main form").Length() != 0 || !strings.Contains(html, "a password") ||
			doc.Find("main a").First().AttrOr("href", "") != "/admin/login/?next=/admin/" {
			t.Errorf("%s: %s", name, html)
		}
	}
}

func TestA503OffersNoFormThatWouldComeOutAsAnother(t *testing.T) {
	f := newFailing(t)
	const multipart = "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x--\r\n"
	for name, form := range map[string][2]string{
		"no UTF-8":        {formType, "a=%ff"},
		"NUL":             {formType, "a=%00"},
		"broken percents": {formType, "a=1&b=%zz"},
		"no name":         {formType, "a=1&=2"},
		"too many fields": {formType, strings.Repeat("a&", 2001)},
		"multipart":       {"multipart/form-data; boundary=x", multipart},
	} {
		_, doc := f.post(t, "/x", form[0], form[1])
		if doc.Find("main form").Length() != 0 || !strings.Contains(doc.Find("main").Text(), "as it was") {
			t.Errorf("%s: %s", name, doc.Find("main").Text())
		}
	}
}

func TestNothingButAFormThatFailedWith503IsOfferedAgain(t *testing.T) {
	f := newFailing(t)
	f.read = 1 << 30
	unavailable := f.err
	for name, request := range map[string]struct {
		method, contentType, accept string
		err                         error
	}{
		"a bug":         {http.MethodPost, formType, "text/html", errors.New("x")},
		"a refusal":     {http.MethodPost, formType, "text/html", fault.New(fault.Forbidden, "No.")},
		"JSON sent":     {http.MethodPost, "application/json", "text/html", unavailable},
		"JSON asked":    {http.MethodPost, formType, "application/json", unavailable},
		"PUT":           {http.MethodPut, formType, "text/html", unavailable},
		"GET":           {http.MethodGet, formType, "text/html", unavailable},
		"no type":       {http.MethodPost, "", "text/html", unavailable},
		"a broken type": {http.MethodPost, ";;", "text/html", unavailable},
	} {
		f.err = request.err
		if _, doc := f.send(t, request.method, "/x", request.contentType, request.accept, "kept=word"); strings.Contains(doc.Text(), "kept") ||
			doc.Find("form").Length() != 0 {
			t.Errorf("%s: %s", name, doc.Text())
		}
	}
}

func TestA503SendsAFormNowhereButHere(t *testing.T) {
	f := newFailing(t)
	for target, want := range map[string]string{
		"//other.example/x":  "/other.example/x",
		"///other.example/":  "/other.example/",
		"/\\other.example":   "/%5Cother.example",
		"/javascript:x":      "/javascript:x",
		"/?next=//o.example": "/?next=//o.example",
	} {
		if _, doc := f.post(t, target, formType, "a=1"); doc.Find("main form").AttrOr("action", "") != want {
			t.Errorf("%s: %q", target, doc.Find("main form").AttrOr("action", ""))
		}
	}
}

func TestAFormIsKeptUpToTheLimitOfTheBody(t *testing.T) {
	f := newFailing(t)
	for size, want := range map[int]int{1_000_000: http.StatusServiceUnavailable, 1_000_001: http.StatusRequestEntityTooLarge} {
		value := strings.Repeat("x", size-len("a="))
		status, doc := f.post(t, "/x", formType, "a="+value)
		if status != want || (doc.Find("main input").AttrOr("value", "") == value) != (want == http.StatusServiceUnavailable) {
			t.Errorf("%d bytes: %d", size, status)
		}
	}
	for _, read := range []int64{0, 1 << 30} { // of no length known in advance: found out after the failure, or by the handler
		f.read = read
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.url, io.MultiReader(strings.NewReader("a="), strings.NewReader(strings.Repeat("x", 1<<20))))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", formType)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || bytes.Contains(text, []byte("xxxx")) || len(text) > 10<<10 {
			t.Errorf("%d read: %d, %d bytes, %v", read, resp.StatusCode, len(text), err)
		}
	}
}

func TestAHandlerReadsAKeptFormAsAnyOther(t *testing.T) {
	e := echo.New()
	e.Use(web.KeepForms)
	e.POST("/", func(c echo.Context) error {
		return c.String(http.StatusOK, fmt.Sprint(c.FormValue("a"), c.Request().PostForm["b"]))
	})
	for range 2 {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader("a=1&b=2&b=3"))
		req.Header.Set("Content-Type", formType)
		rec := httptest.NewRecorder()
		e.ServeHTTP(rec, req)
		if rec.Body.String() != "1[2 3]" {
			t.Errorf("got %s", rec.Body)
		}
	}
}

func TestAChangeThatMayHaveBeenMadeIsToBeChecked(t *testing.T) {
	f := newFailing(t)
	f.err = &db.ConnError{Cause: db.ServerUnavailable, Sent: true}
	const check = "check that before you send it again"
	if _, doc := f.send(t, http.MethodPost, "/", formType, "text/html", "a=b"); !strings.Contains(doc.Text(), check) {
		t.Errorf("a change: %s", doc.Text())
	}
	if _, doc := f.send(t, http.MethodGet, "/", "", "text/html", ""); strings.Contains(doc.Text(), check) {
		t.Errorf("a page: %s", doc.Text())
	}
	f.err = &db.ConnError{Cause: db.ServerUnavailable}
	if _, doc := f.send(t, http.MethodPost, "/", formType, "text/html", "a=b"); strings.Contains(doc.Text(), check) {
		t.Errorf("a change that did not begin: %s", doc.Text())
	}
}
