package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"ddtb/db/dbtest"
)

func TestTheLabRunsAScenarioAndProvesItsFix(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	report := filepath.Join(m.home, "report.html")
	o := m.run("", "lab", "run", "mail-storm", "--report", report)
	if o.code != exitFine {
		t.Fatalf("exit code %d\n%s\n%s", o.code, o.out, o.err)
	}
	for _, words := range []string{"100 of 100 mails sent (53300)", "  1 of 100 mails sent (53300)", "peak 20 of 20", "reproduced; fixed by one mail"} {
		if !strings.Contains(o.out, words) {
			t.Errorf("it does not say %q:\n%s", words, o.out)
		}
	}
	mustFit(t, o.out)
	page, err := os.ReadFile(report)
	if err != nil || !strings.Contains(string(page), "<svg") || strings.Contains(string(page), "<script") {
		t.Errorf("the report: %v, %d bytes", err, len(page))
	}
	mustFit(t, m.run("", "lab", "list").out)
}

func mustFit(t *testing.T, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

func TestTheLabAnswersInJSON(t *testing.T) {
	t.Parallel()
	o := newMachine(t).run("", "lab", "run", "report-amplifies", "--without-the-fix", "--json")
	var got struct {
		Scenarios []struct {
			Number, Seconds         float64
			Name, Title, Figure     string
			Failure, Fix            halfOfRun
			Reproduced, Fixed, Skip bool
		}
		Server string
	}
	if err := json.Unmarshal([]byte(o.out), &got); err != nil || len(got.Scenarios) != 1 || got.Server == "" {
		t.Fatalf("%v\n%s\n%s", err, o.out, o.err)
	}
	s := got.Scenarios[0]
	if o.code != exitFailed || !s.Reproduced || s.Fixed || s.Fix.Value != 440 || s.Failure.Value != 440 {
		t.Errorf("without the fix: exit code %d\n%s", o.code, o.out)
	}
	if s.Failure.Peak != s.Failure.Slots || s.Failure.SQLStates["53300"] != 20 || s.Failure.Of != 440 {
		t.Errorf("the failure is not as it was counted: %+v", s.Failure)
	}
}

type halfOfRun struct {
	Value, Of, Slots int
	Peak             int            `json:"peak_backends"`
	SQLStates        map[string]int `json:"sqlstates"`
}

func TestTheLabRefusesWhatItCanNotRun(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	for words, args := range map[string][]string{
		`did you mean "thread-leak"`:  {"thraed-leak"},
		"which scenario?":             {},
		"names or --all, not both":    {"--all", "thread-leak"},
		"--only=both: use failure or": {"--all", "--only=both"},
		"exclude each other":          {"--all", "--only=failure", "--without-the-fix"},
		"there is no scenario \"31\"": {"31"},
		"the report can't be written": {"--all", "--report", filepath.Join(m.home, "none", "x.html")},
	} {
		if o := m.run("", append([]string{"lab", "run"}, args...)...); o.code != exitUsage || !strings.Contains(o.err, words) {
			t.Errorf("%v: exit code %d, %s", args, o.code, o.err)
		}
	}
}

func TestTheLabStopsSoonAndLeavesNothing(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	report := filepath.Join(m.home, "report.html")
	p := m.start("lab", "run", "--all", "--report", report)
	dbtest.Eventually(t, "a scenario has been run", func() bool { return strings.Contains(p.log.String(), "thread-leak") })
	dbtest.Eventually(t, "its server has started again, with other slots", func() bool { return len(labsOf(t, p.cmd.Process.Pid)) == 1 })
	began := time.Now()
	p.stop(syscall.SIGINT)
	if code := p.cmd.ProcessState.ExitCode(); code != exitInterrupted || time.Since(began) > 5*time.Second { // a busy machine gets more time
		t.Errorf("exit code %d after %v: %s", code, time.Since(began), p.log)
	}
	if dirs := labsOf(t, p.cmd.Process.Pid); len(dirs) != 0 {
		t.Errorf("it left %v", dirs)
	}
	if _, err := os.Stat(report); err == nil {
		t.Error("it left an empty report")
	}
}

func TestALabThatWasKilledIsRemovedByTheNext(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	p := m.start("lab", "run", "--all")
	dbtest.Eventually(t, "its server runs", func() bool { return len(labsOf(t, p.cmd.Process.Pid)) == 1 })
	p.stop(syscall.SIGKILL)
	if len(labsOf(t, p.cmd.Process.Pid)) != 1 {
		t.Error("nothing is left of it: the test removes nothing")
	}
	m.run("", "lab", "run", "mail-storm", "--only=fix").must(exitFine, "fixed by one mail")
	if dirs := labsOf(t, p.cmd.Process.Pid); len(dirs) != 0 {
		t.Errorf("%v is left", dirs)
	}
}

// labsOf are the directories of the labs that a process began, by the id in the lock of their PostgreSQL.
func labsOf(t *testing.T, pid int) (dirs []string) {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(os.TempDir(), "ddtb-lab-*", "pg", "lock"))
	if err != nil {
		t.Fatal(err)
	}
	for _, lock := range all {
		if text, err := os.ReadFile(lock); err == nil && strings.HasPrefix(string(text), fmt.Sprintf("%d ", pid)) {
			dirs = append(dirs, filepath.Dir(filepath.Dir(lock)))
		}
	}
	return dirs
}
