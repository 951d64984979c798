package main

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"ddtb/db/activity"
	"ddtb/db/activity/console"
)

func (d *connections) closeFlags(f *pflag.FlagSet) {
	f.StringVar(&d.filter.Application, "application", "", "only sessions that call themselves so, or so with a slash and more; NAME* for all that begin so; '' for those without a name")
	f.StringVar(&d.filter.User, "user", "", "only this role's sessions")
	f.StringVar(&d.filter.Database, "database", "", "sessions of this database (default: the one that is connected to)")
	f.Int32Var(&d.filter.PID, "pid", 0, "only this session")
	f.BoolVar(&d.filter.Superusers, "superusers", false, "a superuser's sessions too")
	f.BoolVar(&d.dryRun, "dry-run", false, "show what would be ended, and end nothing")
	f.BoolVar(&d.yes, "yes", false, "don't ask")
}

func (d *connections) closeIdleFlags(f *pflag.FlagSet) {
	d.closeFlags(f)
	d.filter.OlderThan = 5 * time.Minute
	f.Var(secondsValue{&d.filter.OlderThan}, "older-than", "idle for so long at least")
	f.BoolVar(&d.filter.InTransaction, "in-transaction", false, "also those that are idle in a transaction, which is rolled back")
}

func (d *connections) cancelFlags(f *pflag.FlagSet) {
	f.Int32Var(&d.filter.PID, "pid", 0, "the session")
	f.BoolVar(&d.filter.Superusers, "superusers", false, "a superuser's too")
	f.BoolVar(&d.yes, "yes", false, "don't ask")
}

func (d *connections) closeIdle(ctx context.Context) error {
	return d.end(ctx, "idle for "+activity.Short(d.filter.OlderThan)+" or longer")
}

func (d *connections) forceClose(ctx context.Context) error {
	d.filter.AnyState, d.filter.OlderThan = true, 0
	switch {
	case d.filter.Nameless:
		return d.end(ctx, "all without a name")
	case d.filter.Application != "":
		return d.end(ctx, "all of "+d.filter.Application)
	case d.filter.PID != 0:
		return d.end(ctx, fmt.Sprintf("pid %d", d.filter.PID))
	}
	d.filter.Application = d.database().ApplicationName
	return d.end(ctx, fmt.Sprintf("all of %s, which is this application (--application names another)", d.filter.Application))
}

// end lists the sessions that match the filter, asks for confirmation, ends them, and reports the result.
func (d *connections) end(ctx context.Context, what string) error {
	s, err := d.poller.Snapshot(ctx)
	if err != nil {
		return err
	}
	plan := activity.Plan(s, d.filter)
	if !d.asJSON {
		d.say("Sessions of database %s, %s:\n\n", cmp.Or(d.filter.Database, s.Database), what)
	}
	if !d.asJSON && (!d.yes || d.dryRun || len(plan.Sessions) == 0) { // otherwise the report lists them
		d.printer.Plan(plan)
	}
	if d.dryRun || len(plan.Sessions) == 0 {
		return d.show(plan, func() {})
	}
	if err := d.confirm(ctx, fmt.Sprintf("End %s?", sessions(len(plan.Sessions))), "add --yes to end them, or --dry-run to only list them"); err != nil {
		return err
	}
	done, err := activity.End(ctx, d.poller, plan, d.filter)
	if d.asJSON {
		err = cmp.Or(err, d.json(done))
	} else {
		d.printer.Closing(done)
	}
	left := done.Count(activity.Refused) + done.Count(activity.Failed) + done.Count(activity.Signalled)
	if err == nil && left > 0 {
		return &exitError{code: exitFailed}
	}
	return err
}

func sessions(n int) string {
	if n == 1 {
		return "this session"
	}
	return fmt.Sprintf("these %d sessions", n)
}

// confirm asks unless --yes was given. Where it can't ask, hint says what to add.
func (d *connections) confirm(ctx context.Context, question, hint string) error {
	if d.yes {
		return nil
	}
	if d.asJSON {
		return usage("nothing was ended, because --json asks nothing: %s", hint)
	}
	return d.cli.confirm(ctx, "\n"+question, "nothing was ended", hint)
}

func (d *connections) cancel(ctx context.Context) error {
	if d.filter.PID == 0 {
		return usage("which session? --pid=N; `ddtb db-connections status` and doctor name them")
	}
	s, err := d.poller.Snapshot(ctx)
	if err != nil {
		return err
	}
	x, err := find(s, d.filter.PID, s.GrantReadAll())
	if err != nil {
		return err
	}
	if !d.asJSON {
		d.say("%s\n", console.Clean(fmt.Sprintf("pid %d, %s, as %s in %s, for %s: %s",
			x.PID, x.Who(), x.User, x.Database, activity.Short(x.InQuery.Duration()), x.Query)))
	}
	if err := d.confirm(ctx, "Cancel this query?", "add --yes to cancel it"); err != nil {
		return err
	}
	done, err := activity.Cancel(ctx, d.poller, x, d.filter.Superusers)
	if err != nil {
		return err
	}
	err = d.show(done, func() {
		d.printer.Cancelled(done, d.sameServer(fmt.Sprintf("ddtb db-connections force-close --pid=%d --database=%s", x.PID, activity.ShellQuote(x.Database))))
	})
	if done.Outcome != activity.Cancelled && err == nil {
		return &exitError{code: exitFailed}
	}
	return err
}

// find returns the session, if its query may be cancelled. grant lets this role see those of others.
func find(s activity.Snapshot, pid int32, grant string) (activity.Session, error) {
	for _, x := range s.Sessions {
		switch {
		case x.PID != pid:
			continue
		case x.Hidden:
			return x, &exitError{exitFailed, fmt.Errorf("session %d is another role's, and this one may not see what it does: %s",
				pid, grant)}
		case x.State != activity.Active || x.Self:
			return x, &exitError{exitFailed, fmt.Errorf("session %d runs no query: it is %s", pid, x.State)}
		}
		return x, nil
	}
	return activity.Session{}, &exitError{exitFailed, fmt.Errorf("there is no session %d", pid)}
}
