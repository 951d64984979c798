package metrics

import (
	"bytes"
	"compress/gzip"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/singleflight"
)

// renderEvery is the minimum interval between two renderings. It limits the work for any number of scrapers.
const renderEvery = 50 * time.Millisecond

// Handler answers scrapes, and logs metrics that can't be gathered. The figures are no older than the request.
// Concurrent waiting scrapes share one rendering. A client that disconnects is no error.
func (m *Metrics) Handler(log *slog.Logger) echo.HandlerFunc {
	s := &scrapes{render: promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorLog:           slog.NewLogLogger(log.Handler(), slog.LevelError),
		ErrorHandling:      promhttp.ContinueOnError,
		DisableCompression: true,
	})}
	return func(c echo.Context) error {
		page := s.next()
		h := c.Response().Header()
		h.Set(echo.HeaderVary, echo.HeaderAcceptEncoding)
		body := page.body.Bytes()
		if page.status == http.StatusOK && strings.Contains(c.Request().Header.Get(echo.HeaderAcceptEncoding), "gzip") {
			h.Set(echo.HeaderContentEncoding, "gzip")
			body = page.gzipped()
		}
		return c.Blob(page.status, page.header.Get(echo.HeaderContentType), body)
	}
}

// scrapes renders the metrics once for all waiting scrapes.
type scrapes struct {
	render http.Handler
	shared singleflight.Group

	turn  sync.Mutex // held while figures are rendered
	began time.Time  // of the last rendering; protected by turn
}

// next returns a rendering that begins after the call. The wait for it is short: a rendering needs no network.
func (s *scrapes) next() *rendering {
	page, _, _ := s.shared.Do("", func() (any, error) {
		page := &rendering{status: http.StatusOK, header: http.Header{}}
		page.gzipped = sync.OnceValue(page.compress)
		s.turn.Lock()
		defer s.turn.Unlock()
		<-time.After(time.Until(s.began.Add(renderEvery)))
		s.shared.Forget("") // later scrapes need later figures
		s.began = time.Now()
		s.render.ServeHTTP(page, &http.Request{Method: http.MethodGet, Header: http.Header{}})
		return page, nil
	})
	return page.(*rendering)
}

// rendering is a response to a scrape, in memory. It is an http.ResponseWriter.
type rendering struct {
	status  int
	header  http.Header
	body    bytes.Buffer
	gzipped func() []byte
}

// Header implements http.ResponseWriter.
func (r *rendering) Header() http.Header { return r.header }

// WriteHeader implements http.ResponseWriter.
func (r *rendering) WriteHeader(status int) { r.status = status }

// Write implements http.ResponseWriter.
func (r *rendering) Write(p []byte) (int, error) { return r.body.Write(p) }

func (r *rendering) compress() []byte {
	var b bytes.Buffer
	w, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed) // a valid level
	_, _ = w.Write(r.body.Bytes())                  // in memory
	_ = w.Close()
	return b.Bytes()
}
