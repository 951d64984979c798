package console

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/activity"
	"ddtb/db/dbtest"
	"ddtb/db/logtest"
)

// terminal is a pseudo-terminal with a full screen on it.
type terminal struct {
	*testing.T
	keys   *os.File     // bytes written here are typed keys
	screen *logtest.Log // everything drawn so far
}

func newTerminal(t *testing.T) (term *terminal, tty *os.File) {
	t.Helper()
	screen, keys, tty := dbtest.Terminal(t, 30, 120)
	return &terminal{T: t, keys: keys, screen: screen}, tty
}

func (t *terminal) types(keys string) {
	t.Helper()
	_, err := io.WriteString(t.keys, keys)
	must(t.T, err)
}

func (t *terminal) waitFor(text string) {
	t.Helper()
	dbtest.Eventually(t.T, fmt.Sprintf("%q is on the screen", text), func() bool { return strings.Contains(t.screen.String(), text) })
}

func TestASelectedSessionIsEndedFromTheFullScreenAfterAQuestion(t *testing.T) {
	dbtest.NoLeaks(t)
	s := dbtest.NewServer(t, dbtest.Options{})
	cfg := s.Config(t)
	control := dbtest.Control(t, cfg)
	victim, bystander := session(t, cfg, "victim"), session(t, cfg, "bystander")
	term, ended := watching(t, cfg)
	term.waitFor("bystander")
	term.types("/victim\r")
	term.waitFor("filter: victim")
	term.types("jt")
	term.waitFor("End session ")
	term.types("n")
	term.waitFor("nothing was done")
	if n := dbtest.Backends(t, control, "victim"); n != 1 {
		t.Fatalf("%d sessions after the answer no", n)
	}
	term.types("t")
	dbtest.Eventually(t, "it asks again", func() bool { return strings.Count(term.screen.String(), "[y/N]") > 1 })
	term.types("y")
	dbtest.Eventually(t, "the session is gone", func() bool { return dbtest.Backends(t, control, "victim") == 0 })
	must(t, bystander.Ping(t.Context()))
	if victim.Ping(t.Context()) == nil {
		t.Error("the session that was ended still answers")
	}

	s.Restart(t, dbtest.Immediate)
	drawn := len(term.screen.String())
	session(t, cfg, "newcomer")
	term.types("\x1b")
	dbtest.Eventually(t, "it shows the server after the restart", func() bool { return strings.Contains(term.screen.String()[drawn:], "newcomer") })
	term.types("q")
	must(t, <-ended)
	term.waitFor("\x1b[?1049l") // the terminal's own screen is restored
}

// watching runs the full screen for the server of cfg on a terminal, until q is typed.
func watching(t *testing.T, cfg config.Database) (term *terminal, ended <-chan error) {
	t.Helper()
	o, err := activity.NewObserver(cfg)
	must(t, err)
	t.Cleanup(o.Close)
	term, tty := newTerminal(t)
	done := make(chan error, 1)
	go func() {
		done <- Watch{
			Poller: o, Thresholds: activity.ThresholdsOf(configMonitor), Interval: 100 * time.Millisecond,
			In: tty, Out: tty, Environ: []string{"TERM=xterm-256color"}, Colour: true,
		}.Run(t.Context())
	}()
	return term, done
}

func TestSeveralMarkedSessionsAreEndedTogetherAndNoOther(t *testing.T) {
	dbtest.NoLeaks(t)
	cfg := dbtest.NewServer(t, dbtest.Options{}).Config(t)
	control := dbtest.Control(t, cfg)
	for range 3 {
		session(t, cfg, "victim")
	}
	term, ended := watching(t, cfg)
	term.waitFor("victim")
	term.types("/victim\rj  t")
	term.waitFor("End 2 sessions? [y/N]")
	term.types("y")
	dbtest.Eventually(t, "two are gone", func() bool { return dbtest.Backends(t, control, "victim") == 1 })
	term.waitFor("2 told to end")
	term.types("q")
	must(t, <-ended)
}

func TestTheFullScreenEndsWithItsContext(t *testing.T) {
	dbtest.NoLeaks(t)
	cfg := dbtest.NewServer(t, dbtest.Options{}).Config(t)
	o, err := activity.NewObserver(cfg)
	must(t, err)
	t.Cleanup(o.Close)
	term, tty := newTerminal(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Watch{Poller: o, Thresholds: activity.ThresholdsOf(configMonitor), Interval: time.Hour, In: tty, Out: tty, Environ: []string{"TERM=xterm"}}.Run(ctx)
	}()
	term.waitFor("this monitor")
	cancel()
	must(t, <-ended)
	term.waitFor("\x1b[?1049l")
}

func TestSessionsInTroubleAreShownFirstAndOrdersCanBeChosen(t *testing.T) {
	s := newScreen(t.Context(), Watch{})
	now := hostile()
	now.Sessions = []activity.Session{
		{PID: 3, Kind: activity.ClientBackend, State: activity.Idle, InState: 100},
		{PID: 1, Kind: activity.ClientBackend, State: activity.Active, Waits: true},
		{PID: 2, Kind: activity.ClientBackend, State: activity.IdleInTransaction},
		{PID: 4, Kind: activity.AutovacuumWorker},
	}
	s.take(activity.Reading{Snapshot: now, Sample: activity.SampleOf(now, nil, s.Thresholds)})
	pids := func() (p []int32) {
		for _, x := range s.rows() {
			p = append(p, x.PID)
		}
		return p
	}
	if got := pids(); !slices.Equal(got, []int32{1, 2, 3}) {
		t.Errorf("by trouble: %v", got)
	}
	s.sort = slices.IndexFunc(orders, func(o struct {
		name    string
		compare func(a, b activity.Session) int
	},
	) bool {
		return o.name == "pid"
	})
	s.reverse = true
	if got := pids(); !slices.Equal(got, []int32{3, 2, 1}) {
		t.Errorf("by pid, reversed: %v", got)
	}
}

func TestTheFullScreenFitsIntoAnyTerminal(t *testing.T) {
	s := newScreen(t.Context(), Watch{})
	for i := range 300 {
		now := hostile()
		for n := range i {
			now.Sessions = append(now.Sessions, activity.Session{PID: int32(100 + n), Kind: activity.ClientBackend, State: activity.Idle})
		}
		s.take(activity.Reading{Snapshot: now, Sample: activity.SampleOf(now, nil, s.Thresholds)})
		s.width, s.height = 1+i%140, 1+i%50
		lines := strings.Split(s.content(), "\n")
		if len(lines) > s.height {
			t.Fatalf("%d lines on %d", len(lines), s.height)
		}
		s.move(1)
	}
	if len(s.history) > mostHistory {
		t.Errorf("%d values are kept", len(s.history))
	}
}

func session(t *testing.T, cfg config.Database, application string) *pgx.Conn {
	t.Helper()
	cc, err := db.ConnConfig(cfg, application)
	must(t, err)
	conn, err := pgx.ConnectConfig(t.Context(), cc)
	must(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	})
	must(t, conn.Ping(t.Context()))
	return conn
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
