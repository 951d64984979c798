package activity

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"ddtb/db/localpg"
)

func TestAMeasurementReportsWhatWorkLeavesOpen(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		o := s.observer(t, app)
		ctx := WithObserver(t.Context(), o)
		exec(t, s.session(t, app, "wall", "shop/pool"), "SELECT 1")
		exec(t, s.session(t, other, "wall", "theirs"), "SELECT 1")
		m := Monitor(ctx, "bulk_operation")
		s.session(t, app, "wall", "shop/pool")
		exec(t, s.session(t, app, "wall", "shop/jobs"), "BEGIN")
		s.session(t, other, "wall", "theirs")
		u := m.End()
		if u.Err != nil || u.OwnBefore != 1 || u.OwnAfter != 3 || u.OwnPeak != 3 || u.Opened != 2 || u.InTxAfter != 1 ||
			u.Before.Used != 3 || u.After.Used != 6 || u.Peak != 6 || u.Polls < 2 || u.Took <= 0 {
			t.Errorf("%+v", u)
		}
		if again := m.End(); again != u {
			t.Errorf("the second End says %+v", again)
		}
		if !strings.HasPrefix(u.String(), "bulk_operation took ") {
			t.Error(u)
		}
	})
}

func TestAMeasurementSeesAPeakThatIsOverWhenItEnds(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		o := s.observer(t, app)
		m := Monitor(WithObserver(t.Context(), o), "burst")
		conn, err := s.connect(t.Context(), app, "wall", "shop/pool")
		must(t, err)
		control := s.session(t, localpg.Superuser, "postgres", "control")
		seen := map[time.Time]bool{} // the starts of the monitor's queries; a poll has at most six
		eventually(t, "it has looked meanwhile", func() bool {
			var started time.Time
			must(t, control.QueryRow(t.Context(),
				"SELECT query_start FROM pg_stat_activity WHERE application_name = 'shop/monitor'").Scan(&started))
			seen[started] = true
			return len(seen) > 12
		})
		must(t, conn.Close(t.Context()))
		pollUntil(t, o, "it is gone", func(now Snapshot) bool { return now.Slots.Used == 2 })
		if u := m.End(); u.OwnPeak != 1 || u.OwnAfter != 0 || u.Opened != 1 {
			t.Errorf("%+v", u)
		}
	})
}

func TestAMeasurementEndsWithItsContextToo(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		ctx, cancel := context.WithCancel(WithObserver(t.Context(), s.observer(t, app)))
		m := Monitor(ctx, "cut short")
		cancel()
		<-m.done
		if u := m.End(); u.Err != nil || u.Polls < 1 {
			t.Errorf("%+v", u)
		}
	})
}

func TestAMeasurementNeverStopsTheWork(t *testing.T) {
	cfg := servers[0].config(app, "wall")
	cfg.Port = 1
	o, err := NewObserver(cfg)
	must(t, err)
	u := Monitor(WithObserver(t.Context(), o), "in the dark").End()
	if u.Err == nil || u.Polls != 0 || !strings.Contains(u.String(), "could not be counted") {
		t.Errorf("%+v: %s", u, u)
	}
	if h := CheckHealth(WithObserver(t.Context(), o)); h.Level != Unknown || len(h.Findings) != 1 {
		t.Errorf("%+v", h)
	}
}

func TestAContextWithoutAnObserverIsSaidSo(t *testing.T) {
	if h := CheckHealth(t.Context()); h.Level != Unknown || !strings.Contains(h.Findings[0].What, "WithObserver") {
		t.Errorf("%+v", h)
	}
	if u := Monitor(t.Context(), "work").End(); !errors.Is(u.Err, errNoObserver) {
		t.Errorf("%+v", u)
	}
}
