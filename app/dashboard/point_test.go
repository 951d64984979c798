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
	figs := []int{figLeases, figUsed}
	for _, c := range []struct {
		n           int
		first, last []string
		rows        int
	}{
		{n: 0},
		{1, []string{"12:00:00", "0", "–"}, []string{"12:00:00", "0", "–"}, 1},
		{15, []string{"12:00:14", "14", "–"}, []string{"12:00:14", "14", "–"}, 1},
		{16, []string{"12:00:15", "15", "–"}, []string{"12:00:14", "14", "–"}, 2},
		{60, []string{"12:00:59", "99", "–"}, []string{"12:00:14", "14", "–"}, 4},
	} {
		rows := thinned(points[:c.n], int64(c.n), figs)
		if len(rows) != c.rows || c.rows > 0 && (!slices.Equal(rows[0], c.first) || !slices.Equal(rows[c.rows-1], c.last)) {
			t.Errorf("of %d: %q", c.n, rows)
		}
	}
}

func TestANewPointChangesOnlyTheNewestRowOfATable(t *testing.T) {
	var points []point
	var before [][]string
	for made := range int64(2 * pointsKept) {
		points = append(points[max(0, len(points)-pointsKept+1):], at(int(made)))
		now := thinned(points, made+1, []int{figLeases})
		older := before
		if made%rowSpan > 0 {
			older = before[1:]
		}
		if older = older[:min(len(older), rowsKept-1)]; len(now) > rowsKept || !slices.EqualFunc(now[1:], older, slices.Equal) {
			t.Fatalf("after %d:\n%q, and before\n%q", made+1, now, before)
		}
		before = now
	}
	if len(before) != rowsKept {
		t.Errorf("in the end %d rows", len(before))
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
}
