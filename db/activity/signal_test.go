package activity

import (
	"context"
	"slices"
	"testing"
	"time"

	"ddtb/db/localpg"
)

func TestCloseIdleEndsIdleSessionsOfItsOwnDatabaseAlone(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		o := s.observer(t, localpg.Superuser)
		snapshot(t, o)
		for _, name := range []string{"shop/a", "shop/b", "shop/monitor", "report", "shopping"} {
			exec(t, s.session(t, app, "wall", name), "SELECT 1")
		}
		exec(t, s.session(t, app, "wall", "shop/tx"), "BEGIN; SELECT 1")
		exec(t, s.session(t, other, "elsewhere", "foreign"), "SELECT 1")
		exec(t, s.session(t, localpg.Superuser, "wall", "super"), "SELECT 1")
		runs(t, s.session(t, app, "wall", "shop/works"), "SELECT pg_sleep(60)")
		pollUntil(t, o, "it works", func(now Snapshot) bool { return find(t, now, "shop/works").State == Active })

		for _, step := range []struct {
			f    Filter
			want []string
		}{
			{Filter{OlderThan: 1e15}, nil},
			{Filter{Application: "shop", User: other}, nil},
			{Filter{Application: "shop"}, []string{"shop/a", "shop/b"}},
			{Filter{User: app}, []string{"report", "shopping"}},
			{Filter{InTransaction: true}, []string{"shop/tx"}},
			{Filter{Superusers: true}, []string{"super"}},
			{Filter{Database: "elsewhere"}, []string{"foreign"}},
			{Filter{Application: "shop/monitor"}, []string{"shop/monitor"}}, // asked for by its full name; not the one that looks
		} {
			plan := Plan(snapshot(t, o), step.f)
			got, err := End(t.Context(), o, plan, step.f)
			must(t, err)
			names := []string{}
			for _, e := range got.Sessions {
				names = append(names, e.Application)
				if e.Outcome != Closed {
					t.Errorf("%s: %s %s", e.Application, e.Outcome, e.Error)
				}
			}
			slices.Sort(names)
			if !slices.Equal(names, append([]string{}, step.want...)) {
				t.Errorf("%+v closed %v, want %v", step.f, names, step.want)
			}
		}
		now := snapshot(t, o)
		if x := find(t, now, "shop/works"); x.State != Active {
			t.Errorf("the session that worked: %+v", x)
		}
	})
}

func TestForceCloseEndsOneApplicationWhateverItDoes(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		o := s.observer(t, app)
		runs(t, s.session(t, app, "wall", "shop/pool"), "SELECT pg_sleep(60)")
		exec(t, s.session(t, app, "wall", "shop/pool"), "BEGIN")
		exec(t, s.session(t, app, "wall", "report"), "SELECT 1")
		f := Filter{Application: "shop", AnyState: true}
		got, err := End(t.Context(), o, Plan(snapshot(t, o), f), f)
		must(t, err)
		if got.Count(Closed) != 2 || len(got.Sessions) != 2 || got.After.Used != 2 || got.Before.Used != 4 {
			t.Errorf("%+v", got)
		}
		find(t, snapshot(t, o), "report")
	})
}

func TestASessionThatBeganToWorkAfterItWasChosenGoesOn(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		o := s.observer(t, app)
		conn := s.session(t, app, "wall", "shop/pool")
		exec(t, conn, "SELECT 1")
		f := Filter{Application: "shop"}
		plan := Plan(snapshot(t, o), f)
		exec(t, conn, "BEGIN; SELECT 1")
		got, err := End(t.Context(), o, plan, f)
		must(t, err)
		if got.Count(Changed) != 1 || len(got.Sessions) != 1 {
			t.Errorf("%+v", got)
		}
		exec(t, conn, "COMMIT")

		f = Filter{Application: "shop", OlderThan: 1}
		plan = Plan(snapshot(t, o), f)
		f.OlderThan = 1e15 // as if it had rested long, and was used since
		got, err = End(t.Context(), o, plan, f)
		must(t, err)
		if got.Count(Changed) != 1 {
			t.Errorf("%+v", got)
		}
		exec(t, conn, "SELECT 1")
	})
}

func TestASessionThatWentAwayIsReportedAsGone(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		o := s.observer(t, app)
		conn, err := s.connect(t.Context(), app, "wall", "shop/pool")
		must(t, err)
		exec(t, conn, "SELECT 1")
		f := Filter{Application: "shop"}
		plan := Plan(snapshot(t, o), f)
		must(t, conn.Close(t.Context()))
		pollUntil(t, o, "it is gone", func(now Snapshot) bool { return now.Slots.Used == 1 })
		got, err := End(t.Context(), o, plan, f)
		must(t, err)
		if got.Count(Gone) != 1 || len(got.Sessions) != 1 {
			t.Errorf("%+v", got)
		}
	})
}

func TestAnotherSessionWithTheSameProcessIDIsNotEnded(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		o := s.observer(t, app)
		conn := s.session(t, app, "wall", "shop/pool")
		exec(t, conn, "SELECT 1")
		x := find(t, snapshot(t, o), "shop/pool")
		outcome, err := o.Signal(t.Context(), Order{PID: x.PID, Started: x.Started.Add(-1e9)})
		if err != nil || outcome != Gone {
			t.Errorf("%v, %v", outcome, err)
		}
		exec(t, conn, "SELECT 1")
	})
}

func TestWhatTheRoleMayNotEndIsReported(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		exec(t, s.session(t, other, "wall", "theirs"), "SELECT 1")
		exec(t, s.session(t, localpg.Superuser, "wall", "super"), "SELECT 1")

		f := Filter{Superusers: true}
		if plan := Plan(snapshot(t, s.observer(t, app)), f); len(plan.Sessions) != 0 || plan.Unseen != 2 {
			t.Errorf("an ordinary role plans %+v", plan)
		}
		if plan := Plan(snapshot(t, s.observer(t, app)), Filter{Application: "theirs", AnyState: true}); len(plan.Sessions) != 0 || plan.Unseen != 1 {
			t.Errorf("an ordinary role plans to force-close %+v", plan)
		}
		o := s.observer(t, reader)
		got, err := End(t.Context(), o, Plan(snapshot(t, o), f), f)
		must(t, err)
		if got.Count(Refused) != 2 || len(got.Sessions) != 2 || got.Sessions[0].Error != "" {
			t.Errorf("a role that may read and not signal: %+v", got)
		}
		o.Close()
		o = s.observer(t, closer)
		plan := Plan(snapshot(t, o), Filter{})
		if plan.Superuser != 1 || len(plan.Sessions) != 1 {
			t.Errorf("without asking for superusers': %+v", plan)
		}
		got, err = End(t.Context(), o, Plan(snapshot(t, o), f), f)
		must(t, err)
		if got.Count(Refused) != 1 || got.Count(Closed) != 1 {
			t.Errorf("a role that may signal: %+v", got)
		}
	})
}

func TestTheObserverNeverEndsItself(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		o := s.observer(t, localpg.Superuser)
		self := find(t, snapshot(t, o), "shop/monitor")
		outcome, err := o.Signal(t.Context(), Order{PID: self.PID, Started: self.Started, Superusers: true})
		if err != nil || outcome != Changed {
			t.Errorf("%v, %v", outcome, err)
		}
	})
}

func TestCancelEndsTheQueryAndKeepsTheSession(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		o := s.observer(t, app)
		conn := s.session(t, app, "wall", "shop/pool")
		ended := make(chan error, 1)
		go func() {
			_, err := conn.Exec(context.Background(), "SELECT pg_sleep(60)")
			ended <- err
		}()
		now := pollUntil(t, o, "it runs", func(now Snapshot) bool { return find(t, now, "shop/pool").State == Active })
		x := find(t, now, "shop/pool")
		outcome, err := o.Signal(t.Context(), Order{Cancel: true, PID: x.PID, Started: x.Started, States: []string{Active}})
		if err != nil || outcome != Cancelled {
			t.Errorf("%v, %v", outcome, err)
		}
		if err := <-ended; err == nil {
			t.Error("the query went on")
		}
		exec(t, conn, "SELECT 1")
	})
}

func TestCancelSparesAQueryThatBeganAfterTheOneThatWasShown(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		o := s.observer(t, app)
		conn := s.session(t, app, "wall", "shop/pool")
		shown := func() (x Session, ended chan struct{}) {
			ended = make(chan struct{})
			go func() {
				defer close(ended)
				_, _ = conn.Exec(context.Background(), "SELECT pg_sleep(60)")
			}()
			return find(t, pollUntil(t, o, "it runs", func(now Snapshot) bool { return find(t, now, "shop/pool").State == Active }), "shop/pool"), ended
		}
		cancels := func(x Session, want Outcome) {
			if e, err := Cancel(t.Context(), o, x, false); err != nil || e.Outcome != want {
				t.Errorf("%s, %v; want %s", e.Outcome, err, want)
			}
		}
		first, ended := shown()
		cancels(first, Cancelled)
		<-ended
		second, ended := shown()
		cancels(first, Changed)
		cancels(second, Cancelled)
		<-ended
	})
}

func TestASessionOfUnknownStateIsNotSignalledForAState(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		conn := s.session(t, localpg.Superuser, "wall", "quiet")
		exec(t, conn, "SET track_activities = off")
		o := s.observer(t, localpg.Superuser)
		x := find(t, snapshot(t, o), "quiet")
		outcome, err := o.Signal(t.Context(), Order{PID: x.PID, Started: x.Started, States: []string{disabled}, Resting: Age(time.Hour), Superusers: true})
		if err != nil || outcome != Changed {
			t.Errorf("in state %q: %v, %v", x.State, outcome, err)
		}
		exec(t, conn, "SELECT 1")
	})
}
