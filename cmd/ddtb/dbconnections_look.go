package main

import (
	"context"

	"github.com/spf13/pflag"

	"ddtb/db/activity"
)

func (d *connections) thresholds() activity.Thresholds {
	t := activity.ThresholdsOf(d.cfg.Monitor)
	if d.dsn != "" { // the configured pools are another server's, perhaps
		return t
	}
	return t.WithPools(d.database(), d.cfg.Server.Replicas)
}

func (d *connections) status(ctx context.Context) error {
	s, err := d.hand.Snapshot(ctx)
	if err != nil {
		return err
	}
	st := activity.Summarise(s)
	if cfg := d.database(); d.dsn == "" && cfg.Pooler != "" {
		if st.Pools, err = activity.Pools(ctx, cfg); err != nil {
			st.PoolsError = err.Error()
		}
	}
	if d.asJSON {
		return d.json(st)
	}
	d.paper.Status(st, d.thresholds().OfSlots(s.Slots))
	return nil
}

func (d *connections) health(ctx context.Context) error {
	now, earlier, err := activity.LookTwice(ctx, d.hand)
	if err != nil {
		return err
	}
	h := activity.Assess(now, earlier, d.thresholds())
	if d.asJSON {
		err = d.json(h)
	} else {
		d.paper.Health(h)
	}
	if h.Level == activity.OK || err != nil {
		return err
	}
	return &exitError{code: int(h.Level)}
}

func (d *connections) doctor(ctx context.Context) error {
	now, earlier, err := activity.LookTwice(ctx, d.hand)
	if err != nil {
		return err
	}
	diagnosis := activity.Diagnose(now, earlier, d.thresholds())
	d.sameServer(diagnosis.Steps)
	if d.asJSON {
		return d.json(diagnosis)
	}
	d.paper.Diagnosis(diagnosis)
	if len(diagnosis.Steps) > 0 && d.hidesDSN() {
		d.say("\n$DSN stands for the --dsn of this run, which is not repeated for its password.\n")
	}
	return nil
}

func (d *connections) budgetFlags(f *pflag.FlagSet) {
	f.IntVar(&d.replicas, "replicas", 0, "how many processes share the database (default: server.replicas)")
	f.IntVar(&d.extras, "extras", -1, "slots that others need (default: those that others have now, and one)")
}

func (d *connections) budget(ctx context.Context) error {
	if d.replicas < 0 {
		return usage("--replicas must be 1 at least")
	}
	s, err := d.hand.Snapshot(ctx)
	if err != nil {
		return err
	}
	if d.replicas == 0 {
		d.replicas = d.cfg.Server.Replicas
	}
	if d.extras < 0 {
		d.extras = s.Extras()
	}
	b := activity.PlanBudget(d.database(), d.replicas, d.extras, s.Slots)
	if d.asJSON {
		err = d.json(b)
	} else {
		d.paper.Budget(b)
	}
	if b.Fits || err != nil {
		return err
	}
	return &exitError{code: exitFailed}
}
