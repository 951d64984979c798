package dashboard

import (
	"math"
	"strconv"
	"time"
)

// history is the figures of the last points, by the name of their line; nil where a figure is not known. All columns
// have the same length.
type history map[string][]*float64

// with returns the history and one more point. Of the oldest points it keeps at most pointsKept. h does not change, but
// only one history may follow it.
func (h history) with(s *readings) history {
	next := history{}
	for _, l := range lines {
		c := h[l.Name]
		next[l.Name] = append(c[max(0, len(c)-pointsKept+1):], rounded(l.of(s)))
	}
	return next
}

// rounded returns a figure with two decimals at most; nil if it is not known.
func rounded(x float64) *float64 {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return nil
	}
	x = math.Round(100*x) / 100
	return &x
}

// newest returns the history of the newest point alone.
func (h history) newest() history {
	last := history{}
	for name, c := range h {
		last[name] = c[len(c)-1:]
	}
	return last
}

const (
	rowSpan  = 15                   // points per row of the tables: half a minute at the default interval
	rowsKept = pointsKept / rowSpan // rows per table
)

// rows returns the table under a chart. A row has the time of the last point of its span, and the maximum of each
// figure; the newest is first. Spans begin at every rowSpan-th point of all that were ever made, not at the oldest kept,
// so that a new point changes only the newest row.
func (h history) rows(listed []line, made int64) [][]string {
	rows := [][]string{}
	size := int((made-1)%rowSpan) + 1
	for end := len(h[timeLine.Name]); end > 0 && len(rows) < rowsKept; end, size = end-size, rowSpan {
		row := []string{clock(time.UnixMilli(int64(1000 * *h[timeLine.Name][end-1])))}
		for _, l := range listed {
			row = append(row, most(h[l.Name][max(0, end-size):end]))
		}
		rows = append(rows, row)
	}
	return rows
}

// most formats the greatest of the known figures.
func most(column []*float64) string {
	text, most := "–", math.Inf(-1)
	for _, x := range column {
		if x != nil && *x > most {
			text, most = strconv.FormatFloat(*x, 'f', -1, 64), *x
		}
	}
	return text
}
