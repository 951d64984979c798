package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/charmbracelet/x/ansi"
	"github.com/spf13/cobra"

	"ddtb/app/lab/scenarios"
	"ddtb/app/lab/scene"
	"ddtb/app/lab/site"
	"ddtb/db/activity/console"
)

func (c *cli) labCommand() *cobra.Command {
	lab := &cobra.Command{
		Use: "lab", Short: "Reproduce each way to run out of connections, and each fix",
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	lab.AddCommand(c.labListCommand(), c.labRunCommand())
	return lab
}

func (c *cli) labListCommand() *cobra.Command {
	var asJSON bool
	list := &cobra.Command{
		Use: "list", Short: "List the scenarios, by number and name",
		RunE: func(*cobra.Command, []string) error { return c.labList(asJSON) },
	}
	list.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return list
}

func (c *cli) labList(asJSON bool) error {
	if asJSON {
		type entry struct {
			Number int          `json:"number"`
			Name   string       `json:"name"`
			Title  string       `json:"title"`
			Family scene.Family `json:"family"`
			Figure string       `json:"figure"`
			Fix    string       `json:"fix"`
		}
		list := []entry{}
		for _, s := range scenarios.All() {
			list = append(list, entry{s.Number, s.Name, s.Title, s.Family, s.Figure, s.FixedBy})
		}
		return console.JSON(c.out, map[string]any{"scenarios": list})
	}
	for _, f := range scene.Families {
		c.say("%s\n", f)
		for _, s := range scenarios.All() {
			if s.Family == f {
				c.say("%4d %-24s %s\n", s.Number, s.Name, s.Title)
			}
		}
	}
	run := c.suggester().complete("ddtb lab run")
	c.print("\nRun one by its name or number, or all:\n  %[1]s thread-leak\n  %[1]s --all\n", run)
	return nil
}

// labRun is the parameters of `ddtb lab run`.
type labRun struct {
	all, json bool
	report    string
	plan      scene.Plan
}

func (c *cli) labRunCommand() *cobra.Command {
	var o labRun
	run := &cobra.Command{
		Use:   "run NAME… | --all",
		Args:  cobra.ArbitraryArgs,
		Short: "Run scenarios, without the fix and with it",
		Long: `Run each scenario twice under the same load on a private PostgreSQL with few
slots: without the fix and with it. Every figure is counted: backends on the
server, requests at the client.

Exit code: 0 if every scenario is reproduced and fixed, 1 if not, 2 for wrong
usage, 130 if it was interrupted.`,
		RunE: func(cmd *cobra.Command, names []string) error { return c.labRun(cmd.Context(), o, names) },
	}
	f := run.Flags()
	f.BoolVar(&o.all, "all", false, "run every scenario")
	f.BoolVar(&o.json, "json", false, "print JSON")
	f.StringVar(&o.report, "report", "", "write the results to `FILE`, one HTML page with charts")
	f.StringVar(&o.plan.Only, "only", "", "run one half only: failure or fix")
	f.BoolVar(&o.plan.WithoutTheFix, "without-the-fix", false, "run the second half without the fix, to see that the verdict can fail; not with --only")
	return run
}

func (c *cli) labRun(ctx context.Context, o labRun, names []string) error {
	chosen, err := o.choose(names)
	if err != nil {
		return &exitError{exitUsage, err}
	}
	if err := o.canReport(); err != nil { // found out now rather than after minutes
		return &exitError{exitUsage, fmt.Errorf("the report can't be written: %w", err)}
	}
	results, err := c.runScenarios(ctx, o, chosen)
	if err != nil && ctx.Err() != nil {
		return &exitError{exitInterrupted, err}
	}
	if err != nil {
		return err
	}
	if o.report != "" {
		if err := writeReport(o.report, results); err != nil {
			return err
		}
	}
	if o.json {
		server := ""
		for _, r := range results {
			server = cmp.Or(server, r.Server) // "" of one that could not be run
		}
		if err := console.JSON(c.out, map[string]any{"scenarios": results, "server": server}); err != nil {
			return err
		}
	}
	if !slices.ContainsFunc(results, func(r *scene.Result) bool { return !r.OK() }) {
		return nil
	}
	return &exitError{exitFailed, nil}
}

// canReport checks that the report can be written. It leaves no file behind that was not there.
func (o *labRun) canReport() error {
	if o.report == "" {
		return nil
	}
	_, missing := os.Lstat(o.report)
	f, err := os.OpenFile(o.report, os.O_CREATE|os.O_WRONLY, 0o644) //nolint:gosec // it is for others to read
	if err == nil {
		err = f.Close()
	}
	if err == nil && missing != nil {
		err = os.Remove(o.report)
	}
	return err
}

func writeReport(file string, results []*scene.Result) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	return errors.Join(site.WriteReport(f, results), f.Close())
}

func (o *labRun) choose(names []string) ([]*scene.Scenario, error) {
	switch {
	case o.plan.Only != "" && o.plan.Only != scene.Failure && o.plan.Only != scene.Fix:
		return nil, fmt.Errorf("--only=%s: use failure or fix", o.plan.Only)
	case o.all && len(names) > 0:
		return nil, errors.New("give names or --all, not both")
	case o.plan.Only != "" && o.plan.WithoutTheFix:
		return nil, errors.New("--only and --without-the-fix exclude each other: --without-the-fix compares both halves")
	case o.all:
		return scenarios.All(), nil
	case len(names) == 0:
		return nil, errors.New("which scenario? Give names, or --all; `ddtb lab list` shows them")
	}
	var chosen []*scene.Scenario
	for _, name := range names {
		s, err := scenarios.Find(name)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(chosen, s) {
			chosen = append(chosen, s)
		}
	}
	return chosen, nil
}

// runScenarios runs them in order, and prints each result when it is available, except for JSON.
func (c *cli) runScenarios(ctx context.Context, o labRun, chosen []*scene.Scenario) (results []*scene.Result, err error) {
	log := slog.New(slog.DiscardHandler) // the server's restarts are part of a scenario
	if c.verbose {
		log = c.log
	}
	server, err := scene.Open(ctx, log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	defer c.progress("")
	for i, s := range chosen {
		here := bar(i, len(chosen)) + s.Name
		c.progress(here)
		o.plan.Observe = func(half string, x scene.Sample) {
			c.progress(fmt.Sprintf("%s, %s, %.1f s", here, half, x.At.Seconds()))
		}
		r := server.Run(ctx, s, o.plan)
		if ctx.Err() != nil {
			return nil, errors.New("stopped")
		}
		results = append(results, r)
		c.progress("")
		if !o.json {
			c.sayResult(r)
		}
	}
	return results, nil
}

// progress shows the text in the terminal's last line, in place of the text before.
func (c *cli) progress(text string) {
	if c.screen != nil {
		_, _ = fmt.Fprint(c.screen, "\r\x1b[K"+ansi.Truncate(text, 79, "…"))
	}
}

const barWidth = 20

func bar(done, total int) string {
	full := done * barWidth / total
	return fmt.Sprintf("[%s%s] %d of %d  ", strings.Repeat("#", full), strings.Repeat("-", barWidth-full), done, total)
}

// sayResult prints a result at 80 columns.
func (c *cli) sayResult(r *scene.Result) {
	c.say("%2d %-24s %s\n", r.Number, r.Name, r.Title)
	c.sayHalf(r, scene.Failure, r.Failure)
	c.sayHalf(r, scene.Fix, r.Fix)
	for i, line := range console.Words(r.Verdict(), 66) {
		if i == 0 {
			line = fmt.Sprintf("%-66s %4.1f s", line, r.Seconds)
		}
		c.say("     %s\n", line)
	}
	c.say("\n")
}

func (c *cli) sayHalf(r *scene.Result, name string, o *scene.Outcome) {
	if o == nil {
		return
	}
	words := fmt.Sprintf("%3d of %d %s", o.Value, o.Of, r.Figure)
	switch code := o.State(); {
	case code != "":
		words += " (" + code + ")"
	case o.Timeouts > 0:
		words += " (timeout)"
	}
	c.say("     %-7s %-50s peak %2d of %d\n", name, words, o.Peak, o.Slots)
}
