package metrics

import (
	"log/slog"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go" // the type of what is gathered
)

// Handler answers scrapes, and logs metrics that can't be gathered. A client that disconnects is no error.
func (m *Metrics) Handler(log *slog.Logger) echo.HandlerFunc {
	gather := prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		families, err := m.registry.Gather()
		if err != nil {
			log.Error("some metrics can't be gathered", "error", err)
		}
		return families, err
	})
	return echo.WrapHandler(promhttp.HandlerFor(gather, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
}
