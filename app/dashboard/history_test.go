package dashboard

import (
	"encoding/json"
	"math"
	"slices"
	"testing"
	"time"

	"ddtb/db"
)

// at returns the readings of that second, with as many leases. The server is not seen.
func at(second int) *readings {
	return &readings{at: time.Date(2026, 1, 1, 12, 0, second, 0, time.UTC), stat: db.Stat{Leases: second}}
}

var leasesAndUsed = []line{{Name: "leases"}, {Name: "used"}}

func TestATableUnderAChartShowsTheMostOfEachSpanTheNewestFirst(t *testing.T) {
	h := history{}
	for i := range 60 {
		h = h.with(at(i))
	}
	h["leases"][58] = rounded(99)
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
		first := history{}
		for name, column := range h {
			first[name] = column[:c.n]
		}
		rows := first.rows(leasesAndUsed, int64(c.n))
		if len(rows) != c.rows || c.rows > 0 && (!slices.Equal(rows[0], c.first) || !slices.Equal(rows[c.rows-1], c.last)) {
			t.Errorf("of %d: %q", c.n, rows)
		}
	}
}

func TestANewPointChangesOnlyTheNewestRowOfATable(t *testing.T) {
	h := history{}
	var before [][]string
	for made := range int64(2 * pointsKept) {
		h = h.with(at(int(made)))
		now := h.rows(leasesAndUsed, made+1)
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

func TestAnOlderHistoryStaysWhenPointsAreAdded(t *testing.T) {
	h := history{}
	for i := range pointsKept {
		h = h.with(at(i))
	}
	before, oldest := h, *h["leases"][0]
	for i := range 3 * pointsKept {
		h = h.with(at(1000 + i))
	}
	if c := before["leases"]; len(c) != pointsKept || *c[0] != oldest || *c[pointsKept-1] != pointsKept-1 {
		t.Errorf("it begins with %v now, and ends with %v", *c[0], *c[len(c)-1])
	}
}

func TestWhatIsNotKnownIsNullForAChart(t *testing.T) {
	for want, x := range map[string]float64{"1767268801": 1767268801.001, "null": math.NaN(), "0.33": 1.0 / 3} {
		if got, err := json.Marshal(rounded(x)); err != nil || string(got) != want {
			t.Errorf("%s (%v), want %s", got, err, want)
		}
	}
}

func TestEachLineOfTheChartsHasItsOwnName(t *testing.T) {
	seen := map[string]bool{}
	for _, l := range lines {
		if l.Name == "" || seen[l.Name] {
			t.Errorf("two lines are named %q", l.Name)
		}
		seen[l.Name] = true
	}
}

func TestARateIsMeasuredOverASecondAtLeastAndBeginsAnewWithAnotherStrategy(t *testing.T) {
	start := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	m := meter{at: start}
	for _, c := range []struct {
		after time.Duration
		count int64
		want  float64
	}{
		{500 * time.Millisecond, 3, 0},
		{2 * time.Second, 6, 3},
		{2900 * time.Millisecond, 60, 3},
		{4 * time.Second, 6, 0},
		{6 * time.Second, 2, 1}, // of another strategy
	} {
		if m = m.next(start.Add(c.after), c.count); math.Abs(m.perSecond-c.want) > 1e-9 {
			t.Errorf("after %v and %d: %v, want %v", c.after, c.count, m.perSecond, c.want)
		}
	}
}
