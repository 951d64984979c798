package dashboard

import (
	"encoding/json"
	"math"
)

// line is a figure over time: drawn in a chart and listed in the table under it, or only listed.
type line struct {
	Name   string                  `json:"name"`   // its key in the events
	Colour string                  `json:"colour"` // a variable of the style sheet; "": it is not drawn
	Width  float64                 `json:"width"`
	Dash   []int                   `json:"dash,omitempty"`
	Fill   bool                    `json:"fill"`
	of     func(*readings) float64 // NaN: not known
}

// chart is a chart with the table under it.
type chart struct {
	Name   string `json:"name"`
	Title  string `json:"-"`
	What   string `json:"-"`
	Note   string `json:"-"`      // above the table
	Narrow int    `json:"narrow"` // heights in pixels
	Wide   int    `json:"wide"`
	Lines  []line `json:"lines"`
}

// table returns the name of the table under the chart.
func (c chart) table() string { return "chart-" + c.Name }

// charts lists every line. They differ in their dashes and are named at their ends, so that no one needs to tell
// colours apart.
var charts = []chart{{
	Name: "slots", Title: "Slots used", Narrow: 260, Wide: 470,
	What: "of the server, against what an application can get, and what this deployment may need",
	Lines: []line{
		{Name: "used", Colour: "--accent", Width: 3, Fill: true, of: ofSlots(func(s *readings) float64 { return float64(s.Sample.Slots.Used) })},
		{Name: "usable", Colour: "--ink", Width: 1.5, of: ofSlots(usable)},
		{Name: "budget", Colour: "--good", Width: 2, Dash: []int{12, 5}, of: ofSlots(func(s *readings) float64 { return bound(s.budget.Needed) })},
		{Name: "warning", Colour: "--warn", Width: 1.5, Dash: []int{2, 4}, of: ofSlots(func(s *readings) float64 { return usable(s) * float64(s.monitor.Warn) / 100 })},
		{Name: "critical", Colour: "--bad", Width: 1.5, Dash: []int{8, 3, 2, 3}, of: ofSlots(func(s *readings) float64 { return usable(s) * float64(s.monitor.Critical) / 100 })},
	},
}, {
	Name: "leases", Title: "Leases and waiters", What: "of this process", Narrow: 200, Wide: 150,
	Note: "Percentiles are of the waits for a lease in the minute before, in milliseconds, rounded up by a sixth at most.",
	Lines: []line{
		{Name: "leases", Colour: "--accent", Width: 3, Fill: true, of: func(s *readings) float64 { return float64(s.stat.Leases) }},
		{Name: "waiting", Colour: "--bad", Width: 2, Dash: []int{6, 4}, of: func(s *readings) float64 { return float64(s.stat.Waiting) }},
		{Name: "at most", Colour: "--ink", Width: 1.5, Dash: []int{2, 4}, of: func(s *readings) float64 { return bound(s.stat.Size) }},
		{Name: "p50", of: ofWaits(50)},
		{Name: "p95", of: ofWaits(95)},
		{Name: "p99", of: ofWaits(99)},
		{Name: "longest", of: ofWaits(100)},
	},
}, {
	Name: "connects", Title: "New sessions a second", What: "on the server, and attempts to connect of this process", Narrow: 200, Wide: 150,
	Lines: []line{
		{Name: "new", Colour: "--accent", Width: 2.5, Fill: true, of: ofSlots(func(s *readings) float64 { return s.Sample.NewPerSecond })},
		{Name: "attempts", Colour: "--warn", Width: 2, Dash: []int{6, 4}, of: func(s *readings) float64 { return s.connects }},
	},
}}

// timeLine is the time of each point, by this process's clock, in Unix seconds.
var timeLine = line{Name: "time", of: func(s *readings) float64 { return float64(s.at.UnixMilli()) / 1000 }}

// lines are those of all charts, and the time.
var lines = func() []line {
	all := []line{timeLine}
	for _, c := range charts {
		all = append(all, c.Lines...)
	}
	return all
}()

// ofSlots returns a figure of the server, which is not known while the server is not seen.
func ofSlots(of func(*readings) float64) func(*readings) float64 {
	return func(s *readings) float64 {
		if !s.seen() {
			return math.NaN()
		}
		return of(s)
	}
}

func usable(s *readings) float64 { return float64(s.Sample.Slots.Usable()) }

// ofWaits returns a percentile of the recent waits for a lease, in milliseconds. Without waits it is not known.
func ofWaits(percent uint64) func(*readings) float64 {
	return func(s *readings) float64 {
		if s.waits.Count() == 0 {
			return math.NaN()
		}
		return millis(s.waits.AtMost(percent))
	}
}

// bound returns NaN for 0, which means that there is no bound.
func bound(n int) float64 {
	if n == 0 {
		return math.NaN()
	}
	return float64(n)
}

// chartsJSON describes the charts to the script.
func chartsJSON() string {
	text, _ := json.Marshal(charts) // none of its types can fail
	return string(text)
}
