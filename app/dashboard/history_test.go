package dashboard

import (
	"encoding/json"
	"math"
	"slices"
	"testing"
	"time"

	"ddtb/db"
)

// at is a snapshot of that second, with as many leases. The server is not seen.
func at(second int) *snapshot {
	return &snapshot{at: time.Date(2026, 1, 1, 12, 0, second, 0, time.UTC), stat: db.Stat{Leases: second}}
}

var leasesAndUsed = []line{{Name: "leases"}, {Name: "used"}}

func TestATableUnderAChartShowsTheMostOfEachSpanTheNewestFirst(t *testing.T) {
	h := newHistory()
	for i := range 60 {
		h = h.with(at(i))
	}
	h["leases"][58] = 99
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
		rows := first.rowsOf(leasesAndUsed, int64(c.n))
		if len(rows) != c.rows || c.rows > 0 && (!slices.Equal(rows[0], c.first) || !slices.Equal(rows[c.rows-1], c.last)) {
			t.Errorf("of %d: %q", c.n, rows)
		}
	}
}

func TestANewPointChangesOnlyTheNewestRowOfATable(t *testing.T) {
	h := newHistory()
	var before [][]string
	for made := range int64(2 * pointsKept) {
		h = h.with(at(int(made)))
		now := h.rowsOf(leasesAndUsed, made+1)
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
	h := newHistory()
	for i := range pointsKept {
		h = h.with(at(i))
	}
	before, oldest := h, h["leases"][0]
	for i := range 3 * pointsKept {
		h = h.with(at(1000 + i))
	}
	if before.points() != pointsKept || before["leases"][0] != oldest || before["leases"][pointsKept-1] != pointsKept-1 {
		t.Errorf("it has %v now", before["leases"])
	}
}

func TestWhatIsNotKnownIsNullForAChart(t *testing.T) {
	for want, c := range map[string]column{
		"[]": {}, "[1767268801,null,0.33]": {1767268801.001, math.NaN(), 1.0 / 3}, "[null]": {math.Inf(1)},
	} {
		if got, err := json.Marshal(c); err != nil || string(got) != want {
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

func TestRatesBeginAnewWithAnotherStrategy(t *testing.T) {
	s := snapshot{passed: 2 * time.Second}
	for _, c := range []struct {
		now, before int64
		want        float64
	}{{10, 4, 3}, {4, 4, 0}, {2, 100, 1}} {
		if got := s.perSecond(c.now, c.before); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("from %d to %d in 2 s: %v, want %v", c.before, c.now, got, c.want)
		}
	}
}
