package scenarios_test

import (
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"ddtb/app/lab/scenarios"
	"ddtb/app/lab/scene"
	"ddtb/db/activity"
)

// hurried are thresholds for the lab, in which an hour takes a second.
func hurried() activity.Thresholds {
	return activity.Thresholds{
		Warn: 70, Critical: 85, IdleRatio: 50, IdleInTransaction: 400 * time.Millisecond, LongQuery: 400 * time.Millisecond,
		LockWait: 200 * time.Millisecond, Churn: 10, Orphan: time.Minute, Lag: time.Minute,
		Idle: 50 * time.Millisecond, Slow: 300 * time.Millisecond, Silent: 500 * time.Millisecond,
	}
}

// opinion is one result of the doctor while a scenario ran.
type opinion struct{ scenario, also, culprit string }

// opinions runs the failing half of a scenario, and polls the doctor. maybe is how often it named a pool that may be
// exhausted inside the application.
func opinions(t *testing.T, server *scene.Server, s *scene.Scenario) (heard map[opinion]int, maybe int) {
	t.Helper()
	began, ended := make(chan struct{}), make(chan *scene.Result, 1)
	first := sync.OnceFunc(func() { close(began) })
	go func() {
		ended <- server.Run(t.Context(), s, scene.Plan{Only: scene.Failure, Observe: func(string, scene.Sample) { first() }})
	}()
	heard = map[opinion]int{}
	select {
	case r := <-ended:
		t.Fatal(r.Error)
	case <-began:
	}
	cfg := server.Operator()
	cfg.ApplicationName = "shop"
	o, err := activity.NewObserver(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	var snapshots []activity.Snapshot
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case r := <-ended:
			if r.Error != "" {
				t.Fatal(r.Error)
			}
			return heard, maybe
		case <-tick.C:
		}
		now, err := o.Snapshot(t.Context())
		if err != nil {
			continue // the server restarts
		}
		now.Sessions = slices.DeleteFunc(now.Sessions, func(x activity.Session) bool { return x.Application == "ddtb/localpg" }) // the lab's own
		snapshots = append(snapshots, now)
		d := activity.Diagnose(now, &snapshots[max(0, len(snapshots)-10)], hurried())
		maybe += len(d.MaybeOut)
		if d.Culprit == "" {
			continue
		}
		heard[opinion{nameOf(d.Scenario), nameOf(d.Also), d.Culprit}]++
	}
}

func nameOf(s *activity.Scenario) string {
	if s == nil {
		return ""
	}
	return s.Name
}

// seen are the scenarios that the doctor recognises while the lab plays them. Others look the same from outside as one of
// these, or need a name or an address that the lab's sessions have not: db/activity plays those itself.
var seen = []string{
	"thread-leak", "missed-close", "too-much-at-once", "leaked-transaction", "cancel-snowball", "lock-queue",
	"probe-connects", "listen-pins-slot",
}

// onlyInside are those that exhaust a pool while the server has plenty: the doctor names the pool, and says that it can't be sure.
var onlyInside = []string{"call-inside-transaction"}

// unnamed is whom the doctor blames where sessions come and go so fast that it saw none.
const unnamed = "clients that connect for each piece of work"

func openLab(t *testing.T) *scene.Server {
	t.Helper()
	server, err := scene.Open(t.Context(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return server
}

func TestTheDoctorRecognisesScenariosWhileTheLabPlaysThem(t *testing.T) {
	server := openLab(t)
	for _, name := range slices.Concat(seen, onlyInside) {
		t.Run(name, func(t *testing.T) {
			s, err := scenarios.Find(name)
			if err != nil {
				t.Fatal(err)
			}
			named := false
			for plays := 0; plays < 3 && !named; plays++ { // it may end before the doctor has polled twice
				heard, maybe := opinions(t, server, s)
				t.Log(heard, maybe)
				named = slices.Contains(onlyInside, name) && maybe > 0
				for o := range heard {
					named = named || o.scenario == name || o.also == name
					if o.culprit != "shop" && o.culprit != unnamed {
						t.Errorf("the doctor blames %q", o.culprit)
					}
				}
			}
			if !named {
				t.Error("the doctor did not recognise it")
			}
		})
	}
}
