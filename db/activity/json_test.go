package activity

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// What programs read must not change under them: a name may be added here, and none may go.
func TestTheFieldsInJSONAreStable(t *testing.T) {
	now := of(many(2, in(Idle, time.Second)))
	for _, c := range []struct {
		value any
		keys  string
	}{
		{Summarise(now), "application at by_application by_client by_database by_state connects_ever database door limits longest_query " +
			"oldest_idle_in_transaction oldest_transaction other_backends prepared_transactions replication replication_slots role server sessions slots unseen waiting_on_locks"},
		{now.Server, "address authentication_timeout_seconds read_only reserved_connections standby started superuser superuser_reserved_connections " +
			"synchronous_standby_names tcp_keepalives_idle_seconds version version_num"},
		{now.Role, "name pg_read_all_stats pg_signal_backend pg_use_reserved_connections superuser"},
		{now.Slots, "free max_connections reserved usable used utilisation_percent"},
		{now.Sessions[0], "address age_seconds application database kind may_end pid query started state state_seconds user"},
		{Group{Name: "a", User: "b", Address: "c"}, "active address idle idle_in_transaction name oldest_seconds sessions user waiting_for_lock"},
		{Assess(now, nil, defaults()), "findings level processes slots unseen"},
		{Finding{PIDs: []int32{1}}, "code do level pids what"},
		{Diagnosis{}, "also culprit health holds lab maybe_exhausted_pools scenario steps to_tell"},
		{Holding{}, "application began longest_seconds moved pids reason sessions"},
		{Budget{}, "auto auto_budget beside extras fits fits_pool limited_by max_connections max_connections_needed needed pool replicas services strategy usable"},
		{Closing{}, "dry_run listeners sessions slots_after slots_before superusers unseen"},
		{SampleOf(now, nil, defaults()), "active at idle idle_in_transaction level new_per_second slots unseen waiting_for_lock"},
		{NoAccess(errors.New("full"), nil, ""), "doors means message"},
		{Pool{}, "client_active client_waiting database max_wait_seconds mode server_active server_idle server_used user"},
	} {
		text, err := json.Marshal(c.value)
		must(t, err)
		var fields map[string]any
		must(t, json.Unmarshal(text, &fields))
		var keys []string
		for k := range fields {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		if got := strings.Join(keys, " "); got != c.keys {
			t.Errorf("%T\n got %s\nwant %s", c.value, got, c.keys)
		}
	}
}

func TestASnapshotSurvivesItsTripThroughJSON(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		exec(t, s.session(t, app, "wall", "shop/pool"), "BEGIN")
		before := snapshot(t, s.observer(t, app))
		text, err := json.Marshal(before)
		must(t, err)
		var after Snapshot
		must(t, json.Unmarshal(text, &after))
		for i, x := range after.Sessions {
			want := before.Sessions[i]
			if !x.Started.Equal(want.Started) { // the signal goes by it, to the microsecond
				t.Errorf("%v became %v", want.Started, x.Started)
			}
			if x.InState.Duration().Round(time.Millisecond) != want.InState.Duration().Round(time.Millisecond) {
				t.Errorf("%v became %v", want.InState, x.InState)
			}
		}
		if after.Slots != before.Slots || !reflect.DeepEqual(after.Role, before.Role) || after.Database != before.Database {
			t.Errorf("%+v became %+v", before, after)
		}
	})
}
