package app_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"ddtb/db/dbtest"
)

func TestTheStartPageDoesNotNeedTheMonitoringConnection(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	dbtest.Eventually(t, "the server was polled", func() bool { return strings.Contains(s.get("/").body, `"max_connections": 1`) })
	err := s.Server().Read(t.Context(), func(*pgx.Conn) error {
		if a := s.get("/"); a.StatusCode != http.StatusOK || strings.Contains(a.body, `"error"`) {
			t.Errorf("while it is in use: %s\n%s", a.Status, a.body)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
