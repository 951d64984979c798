package site

import (
	"cmp"
	"fmt"
	"html/template"
	"slices"
	"strings"
	"time"

	"ddtb/app/lab/scene"
)

// The size of a chart, in SVG units; it scales to the available width.
const (
	width, height     = 400, 220
	left, right       = 40, 84     // room for the names in the largest font
	upper, gap, lower = 16, 28, 70 // the upper panel ends where the gap begins; the lower one has this height
)

const panel = height - upper - gap - lower - 24 // the panel of the backends

// svg draws the backends against the slots, and below them the served and refused requests.
func svg(samples []scene.Sample, slots int, title string) template.HTML {
	var b strings.Builder
	last := time.Second
	most, requests := slots, 1
	for _, s := range samples {
		last = max(last, s.At)
		most = max(most, s.Backends)
		requests = max(requests, s.Served, s.Refused)
	}
	x := func(s scene.Sample) float64 { return left + float64(s.At)/float64(last)*(width-left-right) }
	top := scale{upper, panel, most}
	bottom := scale{upper + panel + gap, lower, requests}
	fmt.Fprintf(&b, `<svg class="run" viewBox="0 0 %d %d" role="img" aria-label="%s">`, width, height, template.HTMLEscapeString(title))
	top.axis(&b, "backends")
	bottom.axis(&b, "requests")
	line(&b, "slots", []float64{left, width - right}, []float64{top.y(slots), top.y(slots)})
	above := []end{{"slots", fmt.Sprintf("%d slots", slots), top.y(slots)}}
	above = append(above, top.draw(&b, "backends", samples, x, func(s scene.Sample) int { return s.Backends })...)
	names(&b, above)
	below := bottom.draw(&b, "served", samples, x, func(s scene.Sample) int { return s.Served })
	below = append(below, bottom.draw(&b, "refused", samples, x, func(s scene.Sample) int { return s.Refused })...)
	names(&b, below)
	fmt.Fprintf(&b, `<text class="axis end" x="%d" y="%d">%.1f s</text></svg>`, width-right, height-6, last.Seconds())
	return template.HTML(b.String()) //nolint:gosec // numbers and escaped texts
}

// scale is a panel: its position, its height, and the figure at its upper edge.
type scale struct{ at, high, most int }

func (s scale) y(v int) float64 {
	return float64(s.at) + float64(s.high)*(1-float64(v)/float64(s.most))
}

func (s scale) axis(b *strings.Builder, label string) {
	line(b, "base", []float64{left, width - right}, []float64{s.y(0), s.y(0)})
	fmt.Fprintf(b, `<text class="axis end" x="%d" y="%.1f">%d</text><text class="axis end" x="%[1]d" y="%[4]d">0</text>`,
		left-6, s.y(s.most)+4, s.most, s.at+s.high+4)
	fmt.Fprintf(b, `<text class="axis" x="%d" y="%d">%s</text>`, left, s.at-5, label)
}

// end is the name of a line, at the height of the line's end.
type end struct {
	class, text string
	y           float64
}

// draw draws one line and its end.
func (s scale) draw(
	b *strings.Builder, class string, samples []scene.Sample, x func(scene.Sample) float64, value func(scene.Sample) int,
) []end {
	if len(samples) == 0 {
		return nil
	}
	var xs, ys []float64
	for _, p := range samples {
		xs, ys = append(xs, x(p)), append(ys, s.y(value(p)))
	}
	line(b, class, xs, ys)
	return []end{{class, class, ys[len(ys)-1]}}
}

func line(b *strings.Builder, class string, xs, ys []float64) {
	fmt.Fprintf(b, `<polyline class="%s" points="`, class)
	for i := range xs {
		fmt.Fprintf(b, "%.1f,%.1f ", xs[i], ys[i])
	}
	b.WriteString(`"/>`)
}

const between = 15 // minimum distance of two names

// names writes each name at the end of its line, and moves overlapping names apart, so that the chart can be read
// without distinguishing colours.
func names(b *strings.Builder, ends []end) {
	slices.SortStableFunc(ends, func(a, b end) int { return cmp.Compare(a.y, b.y) })
	for i, e := range ends {
		if i > 0 {
			e.y = max(e.y, ends[i-1].y+between)
			ends[i].y = e.y
		}
		fmt.Fprintf(b, `<text class="name %s" x="%d" y="%.1f">%s</text>`, e.class, width-right+5, e.y+4, e.text)
	}
}
