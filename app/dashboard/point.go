package dashboard

import (
	"math"
	"strconv"
	"time"
)

// point is one line of figures for the charts, in this order. What is not known is NaN, and null in JSON.
type point [figures]float64

const (
	figTime     = iota // seconds since 1970, by this process's clock
	figUsed            // slots, as are the next four
	figUsable          // what an ordinary role can get
	figBudget          // what the deployment may need at most
	figWarn            // from here on, a warning
	figCritical        // above it, critical
	figLeases          // out, of this process
	figWaiting         // for one
	figNew             // sessions a second on the server
	figConnects        // attempts a second of this process
	figSize            // how many leases there may be; NaN: no bound
	figP50             // percentiles of the waits for a lease of late, in milliseconds; NaN: none ended
	figP95
	figP99
	figLongest
	figures
	figDrawn = figP50 // those before it are in the charts, the others in the tables under them alone
)

func newPoint(at time.Time) (p point) {
	for i := range p {
		p[i] = math.NaN()
	}
	p[figTime] = float64(at.UnixMilli()) / 1000
	return p
}

// appendJSON appends the figures of the charts as an array.
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

// columns are the points as JSON, figure by figure, as charts take them.
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
	rowSpan  = 15                   // how many points a row of the table under a chart is about: half a minute at the default interval
	rowsKept = pointsKept / rowSpan // of such a table
)

// inSpan is how many points the newest span has, of so many that were ever made. Spans begin with every rowSpan-th
// point, and not with the oldest kept, so that a new point changes the newest row alone.
func inSpan(made int64) int { return int((made-1)%rowSpan) + 1 }

// thinned is the table under a chart: of each span the time of its last point and the most of each figure, the newest
// first.
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
		if p[i] > most { // not so for NaN
			most = p[i]
		}
	}
	if math.IsInf(most, -1) {
		return "–"
	}
	return string(appendFigure(nil, i, most))
}
