package activity

import (
	"fmt"
	"strings"
	"testing"

	"ddtb/db"
)

func TestAPoolThatFillsIsNoChurn(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		o := s.observer(t, reader)
		before := snapshot(t, o)
		(&stage{t, s}).each(10, app, "wall", "api", "SELECT 1")
		now := pollUntil(t, o, "the statistics have them", func(now Snapshot) bool {
			return now.EverConnects-before.EverConnects >= 10 || before.Server.VersionNum < 140000
		})
		if n := turnover(now, before); n >= defaults().Churn { // a session from before may be counted late
			t.Errorf("%v sessions a second began and ended", n)
		}
	})
}

// The sessions are like those of a process that was stopped.
func TestTicketsThatAStoppedProcessKeepsAreFoundAndFreed(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		st := &stage{t, s}
		_, err := builtOnce() // it may take longer than the request waits
		must(t, err)
		for n := range 3 {
			st.each(1, app, "wall", "jobs/pool", fmt.Sprintf("SELECT pg_advisory_lock_shared(%d, %d)", db.TicketClass, n+1))
		}
		d, m := s.sharing(t, "shop", 3)
		served := make(chan error, 1)
		go func() {
			lease, err := d.Acquire(t.Context())
			if err == nil {
				lease.Release()
			}
			served <- err
		}()
		got := budgetFinding(t, s.observer(t, app), m)
		if got.Culprit != "jobs/pool" || !strings.Contains(got.Steps[0].Command, "close-idle --older-than=2s --application=jobs/pool") {
			t.Fatalf("%+v\n%+v", got.Health.Findings, got.Steps)
		}
		st.follow(app, got.Steps)
		must(t, <-served)
	})
}
