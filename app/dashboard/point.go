package dashboard

import (
	"math"
	"strconv"
	"time"
)

// point is the figures for the charts at one time, in this order. An unknown figure is NaN, and null in JSON.
type point [figures]float64

const (
	figTime     = iota // Unix seconds, by this process's clock
	figUsed            // in slots, as the next four
	figUsable          // slots for ordinary roles
	figBudget          // the maximum that the deployment may need
	figWarn            // the warning threshold
	figCritical        // the critical threshold
	figLeases          // held by this process
	figWaiting         // requests waiting for a lease
	figNew             // new sessions per second on the server
	figConnects        // connection attempts per second by this process
	figSize            // the maximum number of leases; NaN: no limit
	figP50             // percentiles of recent waits for a lease, in milliseconds; NaN: none ended
	figP95
	figP99
	figLongest
	figures
	figDrawn = figP50 // figures before it are in the charts, the others only in the tables
)

func newPoint(at time.Time) (p point) {
	for i := range p {
		p[i] = math.NaN()
	}
	p[figTime] = float64(at.UnixMilli()) / 1000
	return p
}

// appendJSON appends the figures of the charts as a JSON array.
func (p point) appendJSON(b []byte) []byte {
	b = append(b, '[')
	for i, x := range p[:figDrawn] {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendFigure(b, i, x)
	}
	return append(b, ']')
}

func appendFigure(b []byte, i int, x float64) []byte {
	switch {
	case math.IsNaN(x):
		return append(b, "null"...)
	case i == figTime:
		return strconv.AppendFloat(b, x, 'f', 3, 64)
	}
	return strconv.AppendFloat(b, math.Round(100*x)/100, 'f', -1, 64)
}

// columns encodes the points as JSON, one array per figure, as the charts expect.
func columns(points []point) []byte {
	b := []byte{'['}
	for i := range figDrawn {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '[')
		for j, p := range points {
			if j > 0 {
				b = append(b, ',')
			}
			b = appendFigure(b, i, p[i])
		}
		b = append(b, ']')
	}
	return append(b, ']')
}

const (
	rowSpan  = 15                   // points per row of the tables: half a minute at the default interval
	rowsKept = pointsKept / rowSpan // rows per table
)

// inSpan returns the number of points in the newest span, given the number ever made. Spans begin at every rowSpan-th
// point, not at the oldest kept, so that a new point changes only the newest row.
func inSpan(made int64) int { return int((made-1)%rowSpan) + 1 }

// thinned returns the table under a chart: for each span the time of its last point and the maximum of each figure,
// newest first.
func thinned(points []point, made int64, figs []int) [][]string {
	rows := [][]string{}
	size := inSpan(made)
	for end := len(points); end > 0 && len(rows) < rowsKept; end, size = end-size, rowSpan {
		part := points[max(0, end-size):end]
		last := part[len(part)-1]
		row := []string{time.UnixMilli(int64(last[figTime] * 1000)).UTC().Format(time.TimeOnly)}
		for _, i := range figs {
			row = append(row, most(part, i))
		}
		rows = append(rows, row)
	}
	return rows
}

func most(points []point, i int) string {
	most := math.Inf(-1)
	for _, p := range points {
		if p[i] > most { // false for NaN
			most = p[i]
		}
	}
	if math.IsInf(most, -1) {
		return "–"
	}
	return string(appendFigure(nil, i, most))
}
