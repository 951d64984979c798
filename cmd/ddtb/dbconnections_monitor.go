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
	if d.watch && !d.asJSON && isTerminal(d.in) && isTerminal(d.out) && d.environment("TERM") != "dumb" {
		return d.screen(ctx)
	}
	var earlier *activity.Snapshot
	for {
		s, now := d.sample(ctx, earlier)
		if ctx.Err() != nil {
			return nil
		}
		if err := d.print(s); err != nil {
			return err
		}
		if now != nil {
			earlier = now
		}
		if !d.watch {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(d.interval):
		}
	}
}

func (d *connections) sample(ctx context.Context, earlier *activity.Snapshot) (activity.Sample, *activity.Snapshot) {
	now, err := d.access.Snapshot(ctx)
	if err != nil {
		return activity.SampleOfFailure(time.Now(), err), nil
	}
	return activity.SampleOf(now, earlier, d.thresholds()), &now
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

func (d *connections) screen(ctx context.Context) error {
	return console.Watch{
		Access: d.access, Thresholds: d.thresholds(), Interval: d.interval,
		In: d.in, Out: below(d.out),
		Environ: d.environ, Colour: d.printer.Colour,
	}.Run(ctx)
}
