package site

import (
	"cmp"
	_ "embed" // the drawings
	"fmt"
	"html/template"
	"slices"
	"strings"
	"time"

	"ddtb/app/lab/scene"
)

//go:embed chart.html
var chartHTML string

var drawings = template.Must(template.New("").Parse(chartHTML))

// chart is a chart in SVG units; it scales to the available width.
type chart struct {
	Title                      string
	Width, Height, Left, Right int // Right leaves room for the names in the largest font
	Last                       time.Duration
	Panels                     []*panel
}

// panel is a part of a chart: its edges, the figure at its upper edge, and its lines.
type panel struct {
	Label             string
	Top, Bottom, Most int
	Lines             []line
}

// line is a figure over time, with its name at its end, so that the chart can be read without distinguishing colours.
type line struct {
	Class, Name, Points string
	End                 float64 // the height of the name
}

// svg draws the backends against the slots, and below them the served and refused requests.
func svg(samples []scene.Sample, slots int, title string) template.HTML {
	above := &panel{Label: "backends", Top: 16, Bottom: 98, Most: slots}
	below := &panel{Label: "requests", Top: 126, Bottom: 196, Most: 1}
	c := chart{Title: title, Width: 400, Height: 220, Left: 40, Right: 316, Last: time.Second, Panels: []*panel{above, below}}
	for _, s := range samples {
		c.Last, above.Most, below.Most = max(c.Last, s.At), max(above.Most, s.Backends), max(below.Most, s.Served, s.Refused)
	}
	always := []scene.Sample{{}, {At: c.Last}}
	c.draw(above, "slots", fmt.Sprintf("%d slots", slots), always, func(scene.Sample) int { return slots })
	c.draw(above, "backends", "backends", samples, func(s scene.Sample) int { return s.Backends })
	c.draw(below, "served", "served", samples, func(s scene.Sample) int { return s.Served })
	c.draw(below, "refused", "refused", samples, func(s scene.Sample) int { return s.Refused })
	above.separate()
	below.separate()
	return drawing("chart", c)
}

// draw adds a line to a panel of the chart.
func (c *chart) draw(p *panel, class, name string, samples []scene.Sample, of func(scene.Sample) int) {
	if len(samples) == 0 {
		return
	}
	l, points := line{Class: class, Name: name}, strings.Builder{}
	for _, s := range samples {
		x := float64(c.Left) + float64(s.At)/float64(c.Last)*float64(c.Right-c.Left)
		l.End = float64(p.Bottom) - float64(of(s))/float64(p.Most)*float64(p.Bottom-p.Top)
		fmt.Fprintf(&points, "%.1f,%.1f ", x, l.End)
	}
	l.Points = points.String()
	p.Lines = append(p.Lines, l)
}

// separate moves overlapping names apart.
func (p *panel) separate() {
	const between = 15
	slices.SortStableFunc(p.Lines, func(a, b line) int { return cmp.Compare(a.End, b.End) })
	for i := 1; i < len(p.Lines); i++ {
		p.Lines[i].End = max(p.Lines[i].End, p.Lines[i-1].End+between)
	}
}

func drawing(name string, data any) template.HTML {
	var b strings.Builder
	if err := drawings.ExecuteTemplate(&b, name, data); err != nil {
		panic(err) // the template is embedded, and its data are only texts and numbers
	}
	return template.HTML(b.String()) //nolint:gosec // escaped by the template that made it
}
