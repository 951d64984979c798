package site

import (
	"fmt"
	"html/template"
	"strings"
	"time"

	"ddtb/app/lab/scene"
)

// The size of a chart, in its own units; it scales to the width of its place.
const (
	width, height     = 480, 220
	left, right       = 40, 70
	upper, gap, lower = 16, 28, 70 // the upper panel ends where the gap begins; the lower one has this height
)

const panel = height - upper - gap - lower - 24 // of the backends

// svg draws the backends against the slots, and below them the requests that were served and refused.
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
	name(&b, "slots", fmt.Sprintf("%d slots", slots), top.y(slots)+4)
	for _, l := range []struct {
		class, label string
		at           scale
		value        func(scene.Sample) int
	}{
		{"backends", "backends", top, func(s scene.Sample) int { return s.Backends }},
		{"served", "served", bottom, func(s scene.Sample) int { return s.Served }},
		{"refused", "refused", bottom, func(s scene.Sample) int { return s.Refused }},
	} {
		l.at.draw(&b, l.class, l.label, samples, x, l.value)
	}
	fmt.Fprintf(&b, `<text class="axis end" x="%d" y="%d">%.1f s</text></svg>`, width-right, height-6, last.Seconds())
	return template.HTML(b.String()) //nolint:gosec // numbers and escaped texts
}

// scale is a panel: where it begins, how high it is, and which figure its upper edge stands for.
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

// draw is one line with its name at its end, so that nobody needs to tell colours apart.
func (s scale) draw(
	b *strings.Builder, class, label string, samples []scene.Sample, x func(scene.Sample) float64, value func(scene.Sample) int,
) {
	if len(samples) == 0 {
		return
	}
	var xs, ys []float64
	for _, p := range samples {
		xs, ys = append(xs, x(p)), append(ys, s.y(value(p)))
	}
	line(b, class, xs, ys)
	last := samples[len(samples)-1]
	if class == "refused" && value(last) == 0 {
		return // it lies on the base
	}
	name(b, class, label, ys[len(ys)-1]+4)
}

func line(b *strings.Builder, class string, xs, ys []float64) {
	fmt.Fprintf(b, `<polyline class="%s" points="`, class)
	for i := range xs {
		fmt.Fprintf(b, "%.1f,%.1f ", xs[i], ys[i])
	}
	b.WriteString(`"/>`)
}

func name(b *strings.Builder, class, text string, y float64) {
	fmt.Fprintf(b, `<text class="name %s" x="%d" y="%.1f">%s</text>`, class, width-right+5, y, text)
}
