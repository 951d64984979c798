package web

import (
	"bytes"
	"reflect"
	"sync/atomic"

	"github.com/labstack/echo/v4"
)

// Memo caches a page that many request and few change. It is rendered again only if its data differ from the last time:
// comparing is ten times faster than executing the template. The caller supplies current data for each request, so the
// page is never stale. A page above 64 KiB is not kept.
type Memo struct {
	pages *Templates
	page  string
	last  atomic.Pointer[rendered]
}

const mostMemo = 64 << 10

type rendered struct {
	view view
	html []byte
}

// same reports whether both views are equal. Comparable data cost a tenth of others.
func (v view) same(other view) bool {
	if v.Links != other.Links || v.Header != other.Header {
		return false
	}
	if t := reflect.TypeOf(v.Page); t == reflect.TypeOf(other.Page) && t != nil && t.Comparable() {
		return v.Page == other.Page
	}
	return reflect.DeepEqual(v.Page, other.Page)
}

// Memo returns an empty cache for the page.
func (t *Templates) Memo(page string) *Memo { return &Memo{pages: t, page: page} }

// Render is Templates.Render. It keeps data, which must not be changed afterwards.
func (m *Memo) Render(c echo.Context, status int, data any) error {
	return m.RenderWith(c, status, data, "", "")
}

// RenderWith is Render with the first mark in the page replaced by text, which must not need escaping.
func (m *Memo) RenderWith(c echo.Context, status int, data any, mark, text string) error {
	html, err := m.html(c, data)
	if err != nil {
		return err
	}
	if mark != "" {
		html = bytes.Replace(html, []byte(mark), []byte(text), 1)
	}
	return write(c, status, html)
}

func (m *Memo) html(c echo.Context, data any) ([]byte, error) {
	v := newView(c, data)
	last := m.last.Load()
	if last == nil || !last.view.same(v) {
		var buf bytes.Buffer
		if err := m.pages.execute(&buf, m.page, v); err != nil {
			return nil, err
		}
		last = &rendered{v, buf.Bytes()}
		if buf.Len() <= mostMemo {
			m.last.Store(last)
		}
	}
	return last.html, nil
}
