package activity

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"ddtb/db/localpg"
)

func TestManyReadersOfASamplerCostTheServerNoMoreThanOne(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		o := s.observer(t, app)
		snapshot(t, o)
		s.fill(t, other, "crowd")
		sampler := StartSampler(o, 10*time.Millisecond, defaults)
		defer sampler.Stop()
		var readers sync.WaitGroup
		for range 50 {
			readers.Go(func() {
				var r Reading
				for range 5 {
					next, err := sampler.Next(t.Context(), r)
					if err != nil || next.Err != nil || !next.Sample.At.After(r.Sample.At) {
						t.Errorf("after %v: %+v, %v", r.Sample.At, next.Sample, err)
						return
					}
					r = next
				}
			})
		}
		readers.Wait()
		r := sampler.Latest()
		if r.Sample.Slots.Free() != 0 || r.Sample.Level != Critical {
			t.Errorf("%+v", r.Sample)
		}
		ours := 0
		for _, x := range r.Snapshot.Sessions {
			if x.Application == "shop/monitor" || x.Self {
				ours++
			}
		}
		if ours != 1 {
			t.Errorf("%d sessions look", ours)
		}
	})
}

func TestASamplerGoesOnWhenItsSessionIsEndedAndStopsItsReaders(t *testing.T) {
	s := servers[0]
	o := s.observer(t, app)
	sampler := StartSampler(o, 10*time.Millisecond, defaults)
	r, err := sampler.Next(t.Context(), Reading{})
	must(t, err)
	exec(t, s.session(t, localpg.Superuser, "postgres", "closer"), fmt.Sprintf("SELECT pg_terminate_backend(%d)", monitorPID(r.Snapshot)))
	eventually(t, "it looks through another", func() bool {
		now := sampler.Latest()
		return now.Err == nil && monitorPID(now.Snapshot) != monitorPID(r.Snapshot)
	})
	sampler.Stop()
	sampler.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := sampler.Next(ctx, sampler.Latest()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("after the end: %v", err)
	}
}

func TestASamplerReportsThatItCanNotPoll(t *testing.T) {
	cfg := servers[0].config(app, "wall")
	cfg.Port = 1 // no server listens there
	o, err := NewObserver(cfg)
	must(t, err)
	defer o.Close()
	s := &Sampler{poller: o, thresholds: defaults, latest: Reading{next: make(chan struct{})}}
	s.poll(t.Context())
	if r := s.Latest(); r.Err == nil || r.Sample.Level != Unknown || r.Sample.Slots != nil {
		t.Errorf("%+v", r.Sample)
	}
}

func monitorPID(s Snapshot) int32 {
	for _, x := range s.Sessions {
		if x.Self {
			return x.PID
		}
	}
	return 0
}
