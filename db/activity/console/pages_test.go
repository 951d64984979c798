package console

import (
	"strings"
	"testing"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"ddtb/db/activity"
)

func press(s *screen, keys ...string) {
	named := map[string]rune{"enter": tea.KeyEnter, "esc": tea.KeyEscape, "space": tea.KeySpace, "down": tea.KeyDown}
	for _, k := range keys {
		if code, is := named[k]; is {
			s.key(tea.KeyPressMsg{Code: code})
		} else {
			s.key(tea.KeyPressMsg{Code: rune(k[0]), Text: k})
		}
	}
}

func shown(s *screen) string { return ansi.Strip(s.content()) }

func TestTheTreeOfLocksShowsWhoWaitsForWhomInTheOrderOfTheQueue(t *testing.T) {
	s := queue(100, 24)
	press(s, "l")
	text := shown(s)
	root, first, second := strings.Index(text, "\npid 14, app-14, idle in transaction"), strings.Index(text, "\n  └ pid 12"), strings.Index(text, "\n    └ pid 13")
	if root < 0 || first < root || second < first {
		t.Errorf("the tree is\n%s", text)
	}
	if strings.Contains(text, "pid 15,") {
		t.Errorf("a session that waits for nobody is in the tree:\n%s", text)
	}
	press(s, "esc")
	if !strings.Contains(shown(s), "last query") {
		t.Errorf("esc does not go back:\n%s", shown(s))
	}
}

func TestATreeOfLocksLongerThanTheScreenSaysHowMuchIsMissing(t *testing.T) {
	s := queue(80, 24)
	for pid := range int32(100) {
		s.now.Sessions = append(s.now.Sessions, activity.Session{PID: 100 + pid, Kind: activity.ClientBackend, Waits: true, BlockedBy: []int32{14}})
	}
	press(s, "l")
	text := shown(s)
	if n := strings.Count(text, "\n") + 1; n != 24 || !strings.Contains(text, " more") {
		t.Errorf("%d lines:\n%s", n, text)
	}
}

func TestATreeOfLocksHasNoTextOfTheServerRaw(t *testing.T) {
	s := queue(200, 24)
	for i := range s.now.Sessions {
		s.now.Sessions[i].Wait = "Lock/\x1b]0;owned\aevent"
	}
	press(s, "l")
	if text := s.content(); strings.Contains(text, "\x1b]") || !strings.Contains(text, "event") {
		t.Errorf("%q", text)
	}
}

func TestWithoutLocksTheTreeSaysSo(t *testing.T) {
	s := queue(80, 24)
	s.now.Sessions = s.now.Sessions[:1]
	press(s, "l")
	if !strings.Contains(shown(s), "No session waits for a lock.") {
		t.Error(shown(s))
	}
}

func TestTheDetailsShowTheWholeQueryAndTheClientsPort(t *testing.T) {
	s := queue(80, 30)
	long := "SELECT " + strings.Repeat("a_column, ", 40) + "the_last_one"
	for i := range s.now.Sessions {
		s.now.Sessions[i].Query, s.now.Sessions[i].Port = long, 54321
	}
	press(s, "down", "enter")
	text := shown(s)
	for _, want := range []string{"pid             14", "the_last_one", "10.0.0.1:54321", "the-user@wall", "session 1h"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	s.now.Sessions = nil
	if !strings.Contains(shown(s), "has ended") {
		t.Errorf("of a session that ended:\n%s", shown(s))
	}
}

func TestTheHelpNamesEveryKeyOfTheFoot(t *testing.T) {
	s := queue(200, 24)
	foot := s.footLine(Printer{})
	press(s, "?")
	text := shown(s)
	for _, k := range []string{"space", "enter", "c ", "t ", "l ", "/ ", "s, r", "esc", "q "} {
		if !strings.Contains(text, "\n  "+k) {
			t.Errorf("%q is not explained:\n%s", k, text)
		}
	}
	for _, k := range []string{"? help", "q quit", "c cancel", "t terminate", "space mark", "enter details", "l locks", "/ filter", "s sort"} {
		if !strings.Contains(foot, k) {
			t.Errorf("%q is not in the foot: %s", k, foot)
		}
	}
}

func TestOnlyMarkedSessionsAreAskedForAndOnlyThoseThatCanBeTouched(t *testing.T) {
	s := queue(100, 24)
	press(s, "down", "space", "space", "space")
	if foot := s.footLine(Printer{}); !strings.HasPrefix(foot, "3 marked") {
		t.Error(foot)
	}
	press(s, "t")
	if s.question == nil || !strings.HasPrefix(s.question.text, "End 3 sessions? ") {
		t.Fatalf("%+v", s.question)
	}
	press(s, "n", "c") // 14 is idle in transaction
	if s.question == nil || !strings.HasPrefix(s.question.text, "Cancel the query of 2 sessions; pid 14 runs no query?") {
		t.Fatalf("%+v", s.question)
	}
	press(s, "n", "esc")
	if len(s.marked) != 0 {
		t.Errorf("esc leaves marks: %v", s.marked)
	}
	now := s.now
	press(s, "space")
	now.Sessions = now.Sessions[:1]
	s.take(activity.Reading{Snapshot: now, Sample: activity.SampleOf(now, nil, s.Thresholds)})
	press(s, "t")
	if s.question != nil {
		t.Errorf("the marked session has ended, and another is asked for: %+v", s.question)
	}
}

func TestEveryPageFitsIntoAnyTerminal(t *testing.T) {
	for _, key := range []string{"l", "enter", "?"} {
		for height := 1; height < 40; height++ {
			s := queue(1+3*height, height)
			s.move(1)
			press(s, key)
			if lines := strings.Split(s.content(), "\n"); len(lines) > height {
				t.Errorf("%s: %d lines on %d", key, len(lines), height)
			}
		}
	}
}

func TestSeveralOutcomesAreCounted(t *testing.T) {
	e := func(o activity.Outcome, text string) activity.Ending {
		return activity.Ending{Session: activity.Session{PID: 7}, Outcome: o, Error: text}
	}
	for want, endings := range map[string][]activity.Ending{
		"pid 7: still running":           {e(activity.StillRuns, "")},
		"pid 7: no route":                {e(activity.Failed, "no\nroute")},
		"1 left: changed, 2 told to end": {e(activity.Signalled, ""), e(activity.Changed, ""), e(activity.Signalled, "")},
	} {
		if got := outcomes(endings); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
