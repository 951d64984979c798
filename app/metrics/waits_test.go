package metrics

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"ddtb/db"
	"ddtb/db/dbtest"
)

// waitsOf are waits of that long.
func waitsOf(all ...time.Duration) Waits {
	var w waits
	for _, d := range all {
		w.add(d)
	}
	return w.now()
}

func TestBoundsGrowByASixthAtMostAndIncludeTheExportedOnes(t *testing.T) {
	for i, bound := range bounds[1:] {
		if before := bounds[i]; bound <= before || 6*bound > 7*before {
			t.Errorf("%v after %v", bound, before)
		}
	}
	if first, last := bounds[0], bounds[len(bounds)-1]; first != 100*time.Microsecond || last != 1000*time.Second {
		t.Errorf("from %v to %v", first, last)
	}
	for _, told := range exportedBounds {
		if !slices.Contains(bounds[:], told) {
			t.Errorf("%v is no bound", told)
		}
	}
}

func TestAPercentileIsTheBoundThatSoManyWaitsStayedWithin(t *testing.T) {
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(i+1)*time.Millisecond)
	}
	for _, c := range []struct {
		waits         Waits
		p50, p95, p99 time.Duration
	}{
		{waits: waitsOf()},
		{waitsOf(0), 100 * time.Microsecond, 100 * time.Microsecond, 100 * time.Microsecond},
		{waitsOf(time.Second), time.Second, time.Second, time.Second}, // on the bound
		{waitsOf(time.Second + 1), 1100 * time.Millisecond, 1100 * time.Millisecond, 1100 * time.Millisecond},
		{waitsOf(time.Millisecond, time.Second), time.Millisecond, time.Second, time.Second},
		{waitsOf(hundred...), 50 * time.Millisecond, 100 * time.Millisecond, 100 * time.Millisecond},
		{waitsOf(append(hundred[:98], time.Minute, time.Hour)...), 50 * time.Millisecond, 100 * time.Millisecond, time.Minute},
		{waitsOf(time.Hour), 1000 * time.Second, 1000 * time.Second, 1000 * time.Second},
	} {
		if p50, p95, p99 := c.waits.AtMost(50), c.waits.AtMost(95), c.waits.AtMost(99); p50 != c.p50 || p95 != c.p95 || p99 != c.p99 {
			t.Errorf("of %d: %v %v %v, want %v %v %v", c.waits.Count(), p50, p95, p99, c.p50, c.p95, c.p99)
		}
	}
}

func TestWaitsSinceAMomentLeaveOutThoseBefore(t *testing.T) {
	var w waits
	w.add(time.Second)
	before := w.now()
	w.add(time.Millisecond)
	if since := w.now().Since(before); since.Count() != 1 || since.AtMost(99) != time.Millisecond {
		t.Errorf("%d, at most %v", since.Count(), since.AtMost(99))
	}
}

func TestWaitsOfRealAcquiresAreCountedByTheStrategyThatWasAsked(t *testing.T) {
	cfg := dbtest.Config(t)
	cfg.Strategy, cfg.Pool.MinSize, cfg.Pool.MaxSize, cfg.Pool.Timeout = db.Pool, 0, 1, 300*time.Millisecond
	a := New("test").Acquires()
	d, err := db.OpenWith(cfg, db.Options{OnAcquire: a.Ended})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close(context.WithoutCancel(t.Context())) }()
	held, err := d.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	before := a.Waits(db.Pool)
	for range 3 {
		if _, err := d.Acquire(t.Context()); !errors.As(err, new(*db.ConnError)) {
			t.Fatal(err)
		}
	}
	since := a.Waits(db.Pool).Since(before)
	if since.Count() != 3 || since.AtMost(1) <= cfg.Pool.Timeout { // never sooner than the timeout, so above that bound
		t.Errorf("%d waits, the shortest at most %v", since.Count(), since.AtMost(1))
	}
	held.Release()
	cfg.Strategy = db.PerRequest
	if err := d.Switch(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Fatal(err)
	}
	if pool, perRequest := a.Waits(db.Pool), a.Waits(db.PerRequest); pool.Count() != 4 || perRequest.Count() != 1 {
		t.Errorf("%d waits for the pool, %d per request", pool.Count(), perRequest.Count())
	}
}

func TestTheExportedBoundsStayTheSame(t *testing.T) {
	m := New("test")
	for _, d := range []time.Duration{0, 100 * time.Microsecond, 20 * time.Millisecond, 10001 * time.Millisecond, time.Minute} {
		m.acquires.took.with("pool").add(d)
	}
	var want []string
	for le, n := range map[string]int{
		"0.0001": 2, "0.001": 2, "0.005": 2, "0.025": 3, "0.1": 3, "0.25": 3, "0.5": 3, "1": 3, "2.5": 3, "5": 3, "10": 3, "30": 4, "+Inf": 5,
	} {
		want = append(want, fmt.Sprintf(`ddtb_acquire_seconds_bucket{strategy="pool",le=%q} %d`, le, n))
	}
	mustHave(t, scrape(t, m), append(want, `ddtb_acquire_seconds_sum{strategy="pool"} 70.0211`,
		`ddtb_acquire_seconds_count{strategy="pool"} 5`, `ddtb_acquire_seconds_count{strategy="per-request"} 0`)...)
}

func BenchmarkWait(b *testing.B) {
	w := newWaitsVec("waits", "").with("pool")
	for b.Loop() {
		w.add(3 * time.Millisecond)
	}
}
