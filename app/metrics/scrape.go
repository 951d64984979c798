package metrics

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/common/expfmt" // the text format alone: promhttp logs a client that disconnects as an error
)

// renderEvery is the minimum interval between two renderings. It limits the work for any number of scrapers.
const renderEvery = 50 * time.Millisecond

// Handler answers scrapes, and logs metrics that can't be gathered. The figures are no older than the request.
// Concurrent waiting scrapes share one rendering. The page is not compressed. A client that disconnects is no error.
func (m *Metrics) Handler(log *slog.Logger) echo.HandlerFunc {
	var (
		turn  sync.Mutex // held while figures are rendered: the wait for it is short, since that needs no network
		began time.Time  // of the last rendering
		page  []byte
	)
	since := func(asked time.Time) []byte {
		turn.Lock()
		defer turn.Unlock()
		if !began.After(asked) {
			<-time.After(time.Until(began.Add(renderEvery)))
			began = time.Now()
			page = m.text(log)
		}
		return page
	}
	return func(c echo.Context) error {
		page := since(time.Now())
		if len(page) == 0 {
			return errors.New("no metric could be gathered")
		}
		return c.Blob(http.StatusOK, string(expfmt.NewFormat(expfmt.TypeTextPlain)), page)
	}
}

// text renders the metrics. It leaves out what can't be gathered.
func (m *Metrics) text(log *slog.Logger) []byte {
	families, err := m.registry.Gather()
	if err != nil {
		log.ErrorContext(context.Background(), "metrics can't be gathered", "error", err)
	}
	var b bytes.Buffer // a write to it can't fail
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			log.ErrorContext(context.Background(), "a metric can't be written", "name", f.GetName(), "error", err)
		}
	}
	return b.Bytes()
}
