package activity

import (
	"strings"
	"testing"

	"ddtb/db"
	"ddtb/db/localpg"
)

// Before PostgreSQL 18, and for an ordinary role, pg_stat_activity does not show the logins.
func TestAFewLoginsThatHangCountAsSlots(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		for _, role := range []string{app, localpg.Superuser} {
			t.Run("seen by "+role, func(t *testing.T) {
				st := &stage{t, s}
				o := s.observer(t, role)
				pollUntil(t, o, "it is alone", func(now Snapshot) bool { return now.Slots.Used == 1 })
				st.hang(3)
				crowd := s.fill(t, other, "crowd")
				now, earlier, err := PollTwice(t.Context(), o)
				must(t, err)
				if now.Slots.Used != 3+crowd+1 || now.Slots.Free() != 0 {
					t.Errorf("%d of the crowd, and %+v", crowd, now.Slots)
				}
				if slots, err := o.Slots(t.Context()); err != nil || slots != now.Slots {
					t.Errorf("Slots counts %+v (%v), and the snapshot %+v", slots, err, now.Slots)
				}
				if n := len(now.logins(earlier)); n != 3 {
					t.Errorf("%d logins don't finish", n)
				}
				counted := 0
				control := st.control("postgres")
				must(t, control.QueryRow(t.Context(), "SELECT sum(count) FROM ("+whoHasSlots+") w").Scan(&counted))
				if counted != now.Slots.Used+1 {
					t.Errorf("the superuser's way in counts %d sessions and its own, and not %d", counted-1, now.Slots.Used)
				}
				refused := Process{Failure: &ConnectFailure{Cause: db.SlotsExhausted, Limit: db.ServerLimit}}
				if h := Assess(now, earlier, defaults()).With(refused); h.Level != Critical || strings.Contains(h.Findings[0].What, "that is over") {
					t.Errorf("%s: %+v", h.Level, h.Findings)
				}
			})
			s.mustBecomeEmpty(t)
		}
	})
}

// A role that may not see the kind of a session knows workers by the number of their process, from PostgreSQL 17 on.
func TestAWorkerOfAParallelQueryHasNoSlot(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		busy := s.session(t, other, "wall", "busy")
		exec(t, busy, "SELECT set_config(name, 'on', false) FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query')")
		runs(t, busy, "SELECT pg_sleep(60)")
		seen := pollUntil(t, s.observer(t, reader), "the worker runs", func(now Snapshot) bool {
			for _, x := range now.Sessions {
				if x.Kind == "parallel worker" {
					return true
				}
			}
			return false
		})
		plain := snapshot(t, s.observer(t, app))
		want := seen.Slots.Used + 1 // the observer of this role
		if seen.Server.VersionNum < 170000 {
			want++ // which a health check says
		}
		if plain.Slots.Used != want {
			t.Errorf("%d slots are used, not %d", plain.Slots.Used, want)
		}
	})
}
