package console

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/activity"
)

var configMonitor = config.Default().Monitor

// hostile returns a snapshot of sessions with control characters in all their texts.
func hostile() activity.Snapshot {
	return activity.Snapshot{
		At: hostileTime, Database: "wall", Application: "shop", Role: activity.Role{Name: "app"},
		Server: activity.Server{Version: "15.13", Address: "db:5432", Started: hostileTime.Add(-time.Hour)},
		Slots:  activity.Slots{Max: 100, Reserved: 3, Used: 90},
		Sessions: []activity.Session{
			{
				PID: 1, Kind: activity.ClientBackend, Application: "\x1b[2J\x1b]0;title\x07", User: "a\nb", Database: "wall", Address: "10.0.0.1",
				State: activity.IdleInTransaction, InState: activity.Age(time.Hour), InTransaction: activity.Age(time.Hour), Age: activity.Age(time.Hour),
				Query: "SELECT '\x9b31m' \u202e" + strings.Repeat("very long ", 200),
			},
			{PID: 2, Kind: activity.ClientBackend, Application: strings.Repeat("名前", 30), User: "app", Database: "wall", State: activity.Active},
			{PID: 3, Kind: activity.ClientBackend, Hidden: true, Application: "theirs", User: "other", Database: "wall"},
		},
	}
}

// hostileTime is the same for each call, since two pages are compared.
var hostileTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// pages returns everything that is written.
func pages(p Printer) {
	s := hostile()
	t := activity.ThresholdsOf(configMonitor)
	status := activity.Summarise(s)
	status.Pools = []activity.Pool{{
		Database: "\x1b[2J" + strings.Repeat("wall", 20), User: "app", Mode: "transaction", ClientActive: 1000, ClientWaiting: 1000,
		ServerActive: 100, MaxWait: activity.Age(100 * time.Second),
	}}
	status.Replication = []activity.Replication{{}, {Name: "\x1b[2J", State: "streaming", Sync: "async"}}
	status.Replicas = []activity.ReplicaUse{{Host: "r1:5432", Serves: true}, {Host: strings.Repeat("r", 63) + ":5432", Why: errHostile.Error()}}
	status.PoolsError = errHostile.Error()
	p.Status(status, activity.Critical)
	p.Budget(activity.PlanBudget(config.Database{Strategy: db.Pool}, false, 12, 100, s.Slots))
	p.Health(activity.Assess(s, nil, t))
	p.Diagnosis(activity.Diagnose(s, nil, t))
	p.Plan(activity.Plan(s, activity.Filter{AnyState: true}))
	p.Closing(activity.Plan(s, activity.Filter{AnyState: true}))
	p.Sample(activity.SampleOf(s, nil, t))
	p.Sample(activity.SampleOfFailure(hostileTime, errHostile))
	p.Refusal(activity.NoAccess(errHostile, nil, ""))
}

type hostileError struct{}

func (hostileError) Error() string { return "no\x1b[2J\nanswer" }

var errHostile = hostileError{}

func TestNothingASessionSaysReachesTheTerminalAsACommand(t *testing.T) {
	var b bytes.Buffer
	pages(Printer{W: &b})
	for _, r := range b.String() {
		if r != '\n' && (r < ' ' || r == '\x7f' || r >= 0x80 && r < 0xa0 || r == '\u202e') {
			t.Fatalf("%q is in the output:\n%s", r, b.String())
		}
	}
}

func TestLinesAreNoWiderThanTheTerminal(t *testing.T) {
	for _, width := range []int{40, 60, 80, 132} {
		var b bytes.Buffer
		pages(Printer{W: &b, Width: width, Colour: true})
		for line := range strings.Lines(b.String()) {
			line = strings.TrimRight(line, "\n")
			if copied := strings.Contains(line, "ddtb db-connections ") || strings.Contains(line, "psql "); copied {
				continue // commands are not clipped
			}
			if w := ansi.StringWidth(line); w > width {
				t.Errorf("%d cells of %d: %q", w, width, line)
			}
		}
	}
}

func TestWhatIdentifiesASessionThatEndsIsNeverCut(t *testing.T) {
	application, user, database := strings.Repeat("a", 63), strings.Repeat("名", 21), strings.Repeat("d", 63)
	s := hostile()
	s.Sessions = []activity.Session{{
		PID: 4711, Kind: activity.ClientBackend, State: activity.Idle, Application: application, User: user, Database: database,
		Address: "2001:db8:1111:2222:3333:4444:5555:6666",
	}}
	for _, width := range []int{0, 40, 80, 300} {
		var b bytes.Buffer
		Printer{W: &b, Width: width}.Plan(activity.Plan(s, activity.Filter{AnyState: true, Database: database}))
		joined := strings.Join(strings.Fields(b.String()), "")
		for _, want := range []string{application, user + "@" + database, "2001:db8:1111:2222:3333:4444:5555:6666", "4711", "idle"} {
			if !strings.Contains(joined, want) {
				t.Errorf("%d cells: %s is not in\n%s", width, want, &b)
			}
		}
	}
}

func TestColourIsUsedWhereItIsWantedOnly(t *testing.T) {
	var without, with bytes.Buffer
	pages(Printer{W: &without})
	pages(Printer{W: &with, Colour: true})
	if strings.Contains(without.String(), "\x1b") || !strings.Contains(with.String(), "\x1b[31m") {
		t.Error("colour where there should be none, or none where there should be some")
	}
	if ansi.Strip(with.String()) != without.String() {
		t.Error("colour changes the text")
	}
}

func TestTheBarShowsUsedFreeAndReservedSlots(t *testing.T) {
	for _, c := range []struct {
		used int
		want string
	}{
		{0, "[.........-]"}, {1, "[#........-]"}, {50, "[#####....-]"}, {90, "[#########-]"}, {100, "[##########]"},
	} {
		s := activity.Slots{Max: 100, Reserved: 10, Used: c.used}
		if got := (Printer{}).bar(s, activity.OK, 10); got != c.want {
			t.Errorf("%d used: %s, want %s", c.used, got, c.want)
		}
	}
}

func TestWhatARoleMayNotSeeIsNotCalledNone(t *testing.T) {
	s := activity.Snapshot{
		Server: activity.Server{VersionNum: 120022, ForSuper: 3}, Slots: activity.Slots{Max: 10, Reserved: 3},
		Sessions: []activity.Session{
			{PID: 1, Kind: activity.ClientBackend, Hidden: true, Application: "jobs"},
			{PID: 2, Kind: activity.ClientBackend, State: activity.Active, Waits: true, BlockedBy: []int32{1}},
		},
	}
	var b bytes.Buffer
	Printer{W: &b}.Status(activity.Summarise(s), activity.OK)
	for _, want := range []string{
		"Longest query               none that this role may see\n", "behind pid 1, jobs, of which this role sees no more\n",
		"reserved 3 (superuser_reserved_connections 3)\n", // PostgreSQL 16 introduced the other setting
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, &b)
		}
	}
}
