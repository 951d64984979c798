package app_test

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// families finds the names and the kinds of the metrics, without those of the Go runtime.
var families = regexp.MustCompile(`(?m)^# TYPE ((?:ddtb|pgxpool|http)_\w+ \w+)$`)

// The names on which Grafana's dashboards, alerts and scripts rely.
const fixedNames = `
ddtb_acquire_failures_total counter
ddtb_acquire_seconds histogram
ddtb_application_sessions gauge
ddtb_budget gauge
ddtb_budget_tickets_free gauge
ddtb_budget_tickets_others gauge
ddtb_budget_tickets_own gauge
ddtb_build_info gauge
ddtb_connects_total counter
ddtb_failures_total counter
ddtb_finding_level gauge
ddtb_joined_reads_total counter
ddtb_leaked_leases_total counter
ddtb_mails_total counter
ddtb_monitor_age_seconds gauge
ddtb_monitor_up gauge
ddtb_nested_leases_total counter
ddtb_oldest_idle_in_transaction_seconds gauge
ddtb_oldest_wait_seconds gauge
ddtb_pool_stalled_seconds gauge
ddtb_reads_in_flight gauge
ddtb_reclaimed_leases_total counter
ddtb_refused_requests_total counter
ddtb_sentry_events_total counter
ddtb_sessions gauge
ddtb_sessions_waiting_for_lock gauge
ddtb_shared_conns gauge
ddtb_shared_reads_total counter
ddtb_slots_max gauge
ddtb_slots_reserved gauge
ddtb_slots_usable gauge
ddtb_slots_used gauge
ddtb_suppressed_notices_total counter
ddtb_waiting_requests gauge
http_request_duration_seconds histogram
http_requests_total counter
pgxpool_acquire_count counter
pgxpool_acquire_duration_ns counter
pgxpool_acquired_conns gauge
pgxpool_canceled_acquire_count counter
pgxpool_constructing_conns gauge
pgxpool_empty_acquire counter
pgxpool_empty_acquire_wait_time_ns counter
pgxpool_idle_conns gauge
pgxpool_max_conns gauge
pgxpool_max_idle_destroy_count counter
pgxpool_max_lifetime_destroy_count counter
pgxpool_new_conns_count counter
pgxpool_total_conns gauge
`

func TestTheNamesOfFiguresStay(t *testing.T) {
	t.Parallel()
	s := newBoard(t, nil)
	s.eventually("ddtb_monitor_up", is(1))
	s.get("/polls/")
	s.eventually("ddtb_monitor_up", is(1))
	same := func(t *testing.T, got []string, want string) {
		t.Helper()
		got = slices.DeleteFunc(got, func(name string) bool { return strings.Contains(name, "mine") }) // of another test
		slices.Sort(got)
		if text := strings.Join(got, "\n"); text != strings.TrimSpace(want) {
			t.Errorf("got\n%s\nwant\n%s", text, want)
		}
	}
	t.Run("in /metrics", func(t *testing.T) {
		var names []string
		for _, found := range families.FindAllStringSubmatch(s.get("/metrics").body, -1) {
			names = append(names, found[1])
		}
		same(t, names, fixedNames)
	})
	t.Run("in the JSON of the start page", func(t *testing.T) {
		var home struct {
			Info map[string]any `json:"connection_info"`
		}
		if err := json.Unmarshal([]byte(s.get("/").body), &home); err != nil {
			t.Fatal(err)
		}
		same(t, slices.Collect(maps.Keys(home.Info)), strings.ReplaceAll(
			"database free idle leases max_connections reserved settings strategy usable used utilisation_percent waiting", " ", "\n"))
	})
}
