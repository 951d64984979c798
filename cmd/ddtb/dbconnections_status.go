package main

import (
	"cmp"
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/pflag"

	"ddtb/db"
	"ddtb/db/activity"
	"ddtb/db/activity/console"
)

func (d *connections) thresholds() activity.Thresholds {
	t := activity.ThresholdsOf(d.cfg.Monitor)
	_, standby := d.cfg.Databases["replica"]
	if d.dsn != "" { // the configured pools are another server's, perhaps
		t.Replica = standby
		return t
	}
	return t.WithPools(d.database(), standby, d.cfg.Server.Replicas)
}

func (d *connections) status(ctx context.Context) error {
	s, err := d.poller.Snapshot(ctx)
	if err != nil {
		return err
	}
	d.askPooler(ctx, &s)
	s.Processes = d.askProcesses(ctx)
	st := activity.Summarise(s)
	return d.show(st, func() { d.printer.Status(st, d.thresholds().OfSlots(s.Slots)) })
}

// pollTwice takes two snapshots, to detect what shows only over time. It adds PgBouncer's pools and the
// leases of running ddtb servers.
func (d *connections) pollTwice(ctx context.Context) (now activity.Snapshot, earlier *activity.Snapshot, err error) {
	now, earlier, err = activity.PollTwice(ctx, d.poller)
	if err != nil {
		return now, earlier, err
	}
	now.Refused(d.refused)
	d.askPooler(ctx, &now)
	now.Processes = d.askProcesses(ctx)
	return now, earlier, nil
}

// askPooler adds the pools of PgBouncer, if one is configured or given.
func (d *connections) askPooler(ctx context.Context, s *activity.Snapshot) {
	cc, err := d.consoleConfig()
	if cc == nil && err == nil {
		return
	}
	if err == nil {
		err = s.AskPgBouncer(ctx, cc)
	}
	if err != nil {
		s.PoolsError = err.Error()
		return
	}
	if s.Console = `psql "$PGBOUNCER"`; d.pooler == "" || cc.Database != "pgbouncer" { // psql would go to another database
		s.Console = fmt.Sprintf("psql -h %s -p %d -U %s -d pgbouncer", activity.ShellQuote(cc.Host), cc.Port, activity.ShellQuote(cc.User))
	} else if !hasPassword(d.pooler) {
		s.Console = "psql " + activity.ShellQuote(d.pooler)
	}
}

// consoleConfig returns PgBouncer's admin console: that of --pgbouncer, or that of the configured pooler; nil if there
// is none.
func (d *connections) consoleConfig() (*pgx.ConnConfig, error) {
	cfg := d.database()
	switch {
	case d.pooler != "":
		return d.parse("pgbouncer", d.pooler)
	case d.dsn == "" && cfg.Pooler != "":
		return db.ConnConfig(cfg, d.application())
	}
	return nil, nil
}

func (d *connections) health(ctx context.Context) error {
	now, earlier, err := d.pollTwice(ctx)
	if err != nil {
		return err
	}
	h := activity.Assess(now, earlier, d.thresholds()).Complete(d.sameServer)
	err = d.show(h, func() {
		d.printer.Health(h)
		d.footnotes(now, h.Level != activity.OK)
	})
	if h.Level == activity.OK || err != nil {
		return err
	}
	return &exitError{code: int(h.Level)}
}

func (d *connections) doctor(ctx context.Context) error {
	now, earlier, err := d.pollTwice(ctx)
	if err != nil {
		return err
	}
	diagnosis := activity.Diagnose(now, earlier, d.thresholds()).Complete(d.sameServer)
	return d.show(diagnosis, func() {
		d.printer.Diagnosis(diagnosis)
		d.footnotes(now, len(diagnosis.Steps) > 0)
	})
}

// footnotes say why PgBouncer did not answer, without which the verdict is incomplete, and explain the placeholder for a
// DSN with a password in the commands.
func (d *connections) footnotes(now activity.Snapshot, commands bool) {
	if now.PoolsError != "" {
		d.say("\n%s\n", console.Clean("PgBouncer's pools were not judged: "+now.PoolsError))
	}
	for _, f := range d.dsns() {
		if commands && hasPassword(f.value) {
			d.say("\n%s stands for the --%s of this run, which is not repeated for its password.\n", f.variable(), f.name)
		}
	}
}

// budgetOf computes the budget of the configured pools. If --dsn names a different server, it uses the pools found
// there.
func (d *connections) budgetOf(s activity.Snapshot) activity.Budget {
	if d.dsn != "" && d.replicas == 0 && d.extras < 0 {
		return activity.ObservedBudget(s)
	}
	d.replicas = cmp.Or(d.replicas, d.cfg.Server.Replicas)
	if d.extras < 0 {
		d.extras = s.Extras()
	}
	_, standby := d.cfg.Databases["replica"]
	b := activity.PlanBudget(d.database(), standby, d.replicas, d.extras, s.Slots).Within(s, d.database()).Through(s)
	b.Services = s.Services()
	return b
}

func (d *connections) budgetFlags(f *pflag.FlagSet) {
	f.IntVar(&d.replicas, "replicas", 0, "how many processes share the database (default: server.replicas)")
	f.IntVar(&d.extras, "extras", -1, "slots that others need (default: those that others have now, and one)")
	f.Lookup("extras").DefValue = "0" // else the help prints -1 as well
}

func (d *connections) budget(ctx context.Context) error {
	if d.replicas < 0 {
		return usage("--replicas must be 1 at least")
	}
	s, err := d.poller.Snapshot(ctx)
	if err != nil {
		return err
	}
	d.askPooler(ctx, &s)
	b := d.budgetOf(s)
	err = d.show(b, func() { d.printer.Budget(b) })
	if b.Fits || err != nil {
		return err
	}
	return &exitError{code: exitFailed}
}
