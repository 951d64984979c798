package console

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"

	"ddtb/db/activity"
)

// queue is a full screen of a server on which all sessions wait for one that does nothing.
func queue(width, height int) *screen {
	one := func(pid int32, state string, behind ...int32) activity.Session {
		return activity.Session{
			PID: pid, Kind: activity.ClientBackend, Application: fmt.Sprintf("app-%d", pid), User: "the-user", Database: "wall",
			Address: "10.0.0.1", State: state, InState: activity.Age(time.Minute), Age: activity.Age(time.Hour),
			Waits: len(behind) > 0, Waited: activity.Age(time.Minute), BlockedBy: behind, Query: "SELECT * FROM stock WHERE n = 1",
		}
	}
	now := activity.Snapshot{
		At: time.Now(), Server: activity.Server{Version: "18.1", Address: "db:5432"}, Database: "wall", Slots: activity.Slots{Max: 100, Used: 40},
		Sessions: []activity.Session{
			one(11, activity.Idle), one(12, activity.Active, 14), one(13, activity.Active, 12), one(14, activity.IdleInTransaction), one(15, activity.Active),
		},
	}
	s := newScreen(nil, Watch{Thresholds: activity.ThresholdsOf(configMonitor), Colour: true}) //nolint:staticcheck // nothing runs
	s.width, s.height = width, height
	s.take(activity.Reading{Snapshot: now, Sample: activity.SampleOf(now, nil, s.Thresholds)})
	return s
}

func TestTheFullScreenBeginsWithWhomAllWaitFor(t *testing.T) {
	rows := queue(80, 24).rows()
	var order []int32
	for _, x := range rows {
		order = append(order, x.PID)
	}
	if got := fmt.Sprint(order); got != "[14 12 13 15 11]" {
		t.Errorf("the rows are %s", got)
	}
}

func TestTheFullScreenFitsItsTerminalWithItsKeysOnTheLastLine(t *testing.T) {
	for _, size := range [][2]int{{80, 24}, {120, 40}, {80, 10}, {40, 6}} {
		s := queue(size[0], size[1])
		s.move(1)
		text := s.content()
		lines := strings.Split(ansi.Strip(text), "\n")
		if len(lines) != s.height || !strings.Contains(lines[len(lines)-1], "c cancel") {
			t.Errorf("%v: %d lines, the last is %q", size, len(lines), lines[len(lines)-1])
		}
		for _, l := range lines {
			if w := ansi.StringWidth(l); w > s.width {
				t.Errorf("%v: %d cells: %q", size, w, l)
			}
		}
		if withUser := strings.Contains(text, "the-user"); withUser != (s.width >= 100) {
			t.Errorf("%v: the user is shown: %v", size, withUser)
		}
		if s.height >= 24 && !strings.Contains(text, "behind pid 14, app-14") {
			t.Errorf("%v: it does not say whom all wait for:\n%s", size, ansi.Strip(text))
		}
	}
}

func TestAQuestionNamesWhatEndsInFullAndKeepsTheHeight(t *testing.T) {
	s := queue(80, 24)
	long := strings.Repeat("a", 63)
	for i := range s.now.Sessions {
		s.now.Sessions[i].Application = long
	}
	press(s, "down", "t")
	lines := strings.Split(ansi.Strip(s.content()), "\n")
	foot := strings.Join(lines[len(lines)-2:], " ")
	if len(lines) != s.height || !strings.Contains(foot, long) || !strings.HasSuffix(foot, "idle in transaction)? [y/N]") {
		t.Errorf("%d lines, the last are %q", len(lines), foot)
	}
}
