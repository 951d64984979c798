package dashboard

import (
	"bytes"
	"math"
	"strconv"
	"time"
)

// column is a figure over time. An unknown figure is NaN, and null in JSON.
type column []float64

// MarshalJSON implements json.Marshaler.
func (c column) MarshalJSON() ([]byte, error) {
	texts := make([][]byte, len(c))
	for i, x := range c {
		texts[i] = appendFigure(nil, x, "null")
	}
	return append(append([]byte{'['}, bytes.Join(texts, []byte{','})...), ']'), nil
}

// appendFigure appends a figure with two decimals at most.
func appendFigure(b []byte, x float64, unknown string) []byte {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return append(b, unknown...)
	}
	return strconv.AppendFloat(b, math.Round(100*x)/100, 'f', -1, 64)
}

// history is the figures of the last points, by the name of their line. All columns have the same length.
type history map[string]column

func newHistory() history {
	h := history{}
	for _, l := range lines {
		h[l.Name] = column{}
	}
	return h
}

// with returns the history and one more point. Of the oldest points it keeps at most pointsKept. h does not change, but
// only one history may follow it.
func (h history) with(s *snapshot) history {
	next := history{}
	for _, l := range lines {
		c := h[l.Name]
		next[l.Name] = append(c[max(0, len(c)-pointsKept+1):], l.of(s))
	}
	return next
}

// from returns the history without the first n points.
func (h history) from(n int) history {
	rest := history{}
	for name, c := range h {
		rest[name] = c[n:]
	}
	return rest
}

func (h history) points() int { return len(h[timeLine.Name]) }

const (
	rowSpan  = 15                   // points per row of the tables: half a minute at the default interval
	rowsKept = pointsKept / rowSpan // rows per table
)

// inSpan returns the number of points in the newest span, given the number ever made. Spans begin at every rowSpan-th
// point, not at the oldest kept, so that a new point changes only the newest row.
func inSpan(made int64) int { return int((made-1)%rowSpan) + 1 }

// rows returns the tables under the charts, by the chart. A row has the time of the last point of its span, and the
// maximum of each figure; the newest is first. made is the number of points ever made.
func (h history) rows(made int64) map[string][][]string {
	all := map[string][][]string{}
	for _, c := range charts {
		all[c.Name] = h.rowsOf(c.Lines, made)
	}
	return all
}

func (h history) rowsOf(listed []line, made int64) [][]string {
	rows := [][]string{}
	size := inSpan(made)
	for end := h.points(); end > 0 && len(rows) < rowsKept; end, size = end-size, rowSpan {
		row := []string{clock(time.UnixMilli(int64(1000 * h[timeLine.Name][end-1])))}
		for _, l := range listed {
			row = append(row, most(h[l.Name][max(0, end-size):end]))
		}
		rows = append(rows, row)
	}
	return rows
}

func most(c column) string {
	most := math.Inf(-1)
	for _, x := range c {
		if x > most { // false for NaN
			most = x
		}
	}
	return string(appendFigure(nil, most, "–"))
}
