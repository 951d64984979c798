package dashboard

import (
	"math"
	"slices"
	"testing"
	"time"
)

func at(second int) point {
	p := newPoint(time.Date(2026, 1, 1, 12, 0, second, 0, time.UTC))
	p[figLeases] = float64(second)
	return p
}

func TestATableUnderAChartShowsTheMostOfEachSpanTheNewestFirst(t *testing.T) {
	var points []point
	for i := range 60 {
		points = append(points, at(i))
	}
	points[58][figLeases] = 99
	rows := thinned(points, figLeases, figUsed)
	if len(rows) != thinnedRows || !slices.Equal(rows[0], []string{"12:00:59", "99", "–"}) || !slices.Equal(rows[29], []string{"12:00:01", "1", "–"}) {
		t.Errorf("%d rows: %q … %q", len(rows), rows[0], rows[len(rows)-1])
	}
	if rows := thinned(points[:1], figLeases); len(rows) != 1 {
		t.Errorf("of one point: %q", rows)
	}
	if rows := thinned(nil, figLeases); rows != nil {
		t.Errorf("of none: %q", rows)
	}
}

func TestWhatIsNotKnownIsNullForAChart(t *testing.T) {
	p := at(1)
	p[figNew] = 1.0 / 3
	const want = "[1767268801.000,null,null,null,null,null,1,null,0.33,null,null]"
	if got := string(p.appendJSON(nil)); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	const wantColumns = "[[1767268801.000],[null],[null],[null],[null],[null],[1],[null],[0.33],[null],[null]]"
	if got := string(columns([]point{p})); got != wantColumns {
		t.Errorf("%s, want %s", got, wantColumns)
	}
}

func TestRatesBeginAnewWithAnotherStrategy(t *testing.T) {
	s := sight{passed: 2 * time.Second}
	for _, c := range []struct {
		now, before int64
		want        float64
	}{{10, 4, 3}, {4, 4, 0}, {2, 100, 1}} {
		if got := s.perSecond(c.now, c.before); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("from %d to %d in 2 s: %v, want %v", c.before, c.now, got, c.want)
		}
	}
	s.since.Waited, s.since.WaitTotal = 100, time.Hour
	s.stat.Waited, s.stat.WaitTotal = 2, 3*time.Second
	if got := s.waited(); got != 1500*time.Millisecond {
		t.Errorf("the mean wait is %v", got)
	}
}
