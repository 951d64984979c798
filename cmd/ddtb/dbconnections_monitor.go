package main

import (
	"context"
	"encoding/json"
	"time"

	"github.com/spf13/pflag"

	"ddtb/db/activity"
	"ddtb/db/activity/console"
)

func (d *connections) monitorFlags(f *pflag.FlagSet) {
	d.interval = 5 * time.Second
	f.BoolVar(&d.watch, "watch", false, "go on until it is interrupted; a full screen on a terminal")
	f.Var(secondsValue{&d.interval}, "interval", "time between two polls")
}

// leastInterval limits the load that monitoring causes.
const leastInterval = 100 * time.Millisecond

func (d *connections) monitor(ctx context.Context) error {
	if d.interval < leastInterval {
		return usage("--interval must be %v at least", leastInterval)
	}
	poller := &lasting{connections: d, now: d.poller}
	if d.watch && !d.asJSON && isTerminal(d.in) && isTerminal(d.out) && d.environment("TERM") != "dumb" {
		return console.Watch{
			Poller: poller, Thresholds: d.thresholds(), Interval: d.interval,
			In: d.in, Out: below(d.out),
			Environ: d.environ, Colour: d.printer.Colour,
		}.Run(ctx)
	}
	sampler := activity.StartSampler(poller, d.interval, d.thresholds)
	defer sampler.Stop()
	for r, err := sampler.Next(ctx, activity.Reading{}); err == nil; r, err = sampler.Next(ctx, r) {
		if err := d.print(r.Sample); err != nil || !d.watch {
			return err
		}
	}
	return nil
}

// print writes one line; JSON has no line breaks.
func (d *connections) print(s activity.Sample) error {
	if d.asJSON {
		s.Findings = activity.Health{Findings: s.Findings}.Complete(d.sameServer).Findings
		return json.NewEncoder(d.out).Encode(s)
	}
	d.printer.Sample(s)
	return nil
}
