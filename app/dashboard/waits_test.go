package dashboard

import (
	"strings"
	"testing"
	"time"

	"ddtb/app/metrics"
	"ddtb/config"
	"ddtb/db"
)

func TestWaitsAreThoseOfTheLastMinuteUnderTheSettingsInForce(t *testing.T) {
	asked := metrics.New("test").Acquires()
	end := func(n int, strategy string) {
		for range n {
			asked.Ended(strategy, 0, nil)
		}
	}
	pool := config.Database{Strategy: db.Pool}
	larger := pool
	larger.Pool.MaxSize = 9
	perRequest := config.Database{Strategy: db.PerRequest}
	w := waits{of: asked.Waits}
	end(7, db.Pool) // before the first viewer
	start := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	for _, step := range []struct {
		second int
		ended  int
		cfg    config.Database
		count  uint64
		within time.Duration
	}{
		{0, 0, pool, 0, 0},
		{2, 1, pool, 1, 2 * time.Second},
		{5, 2, pool, 3, 5 * time.Second},
		{59, 4, pool, 7, 59 * time.Second},
		{64, 8, pool, 15, 64 * time.Second}, // the next mark is less than a minute old
		{65, 0, pool, 12, time.Minute},
		{300, 1, pool, 1, 236 * time.Second}, // a long time without a viewer
		{301, 1, larger, 0, 0},
		{303, 1, larger, 1, 2 * time.Second},
		{304, 5, perRequest, 0, 0},
		{305, 2, perRequest, 2, time.Second},
		{306, 0, pool, 0, 0}, // what it had before is long ago
	} {
		end(step.ended, step.cfg.Strategy)
		got := w.recent(start.Add(time.Duration(step.second)*time.Second), step.cfg)
		if got.Count() != step.count || got.within != step.within {
			t.Errorf("at %d s: %d within %v, want %d within %v", step.second, got.Count(), got.within, step.count, step.within)
		}
	}
}

func TestLookingAtWaitsOftenKeepsFewMarks(t *testing.T) {
	w := waits{of: metrics.New("test").Acquires().Waits}
	for i := range 10_000 {
		w.recent(time.Unix(0, 0).Add(time.Duration(i)*100*time.Millisecond), config.Database{})
	}
	if len(w.marks) > 14 || cap(w.marks) > 64 {
		t.Errorf("%d marks, room for %d", len(w.marks), cap(w.marks))
	}
}

func TestAWaitIsShownAsItsUpperBound(t *testing.T) {
	for d, want := range map[time.Duration]string{
		100 * time.Microsecond: "0.1 ms", 1400 * time.Microsecond: "1.4 ms", 25 * time.Millisecond: "25 ms", 900 * time.Millisecond: "900 ms",
		time.Second: "1 s", 11 * time.Second: "11 s", 1100 * time.Millisecond: "1.1 s", 1000 * time.Second: "1000 s",
	} {
		if got := within(d); got != "≤\u00a0"+strings.Replace(want, " ", "\u00a0", 1) {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}
