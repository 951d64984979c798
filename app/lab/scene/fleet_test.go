package scene_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"ddtb/app/lab/scene"
	"ddtb/config"
)

func TestASiteDividesItsRequestsAmongTheProcessesThatAreReady(t *testing.T) {
	x := scenario()
	x.Load = scene.Load{Requests: 1, Patience: 20 * time.Second}
	x.Fails = func(s *scene.Stage) scene.Request {
		site := s.Site(2)
		return func(ctx context.Context, _ int) error { return divides(ctx, s, site) }
	}
	if r := server.Run(t.Context(), x, scene.Plan{Only: scene.Failure}); r.Error != "" || r.Failure.Refused != 0 {
		t.Errorf("%+v: %+v", r, r.Failure)
	}
}

func divides(ctx context.Context, s *scene.Stage, site *scene.Site) error {
	asked := make([]int, 2)
	ended := 0
	start := func(place int) *scene.Process {
		return s.Start(site, place, func(context.Context) error { asked[place]++; return nil }, func() { ended++ })
	}
	one, two := start(0), start(1)
	send := func() (err error) {
		for range 10 {
			err = errors.Join(err, site.Post(ctx))
		}
		return err
	}
	err := send()
	if asked[0] != 5 || asked[1] != 5 {
		err = errors.Join(err, errors.New("they are not divided"))
	}
	one.Drain()
	err = errors.Join(err, scene.Sleep(ctx, scene.Noticed))
	one.End(ctx)
	err = errors.Join(err, send())
	if asked[0] != 5 || asked[1] != 15 || ended != 1 {
		err = errors.Join(err, errors.New("one that is not ready is asked"))
	}
	two.Kill()
	if site.Post(ctx) == nil {
		err = errors.Join(err, errors.New("a process that was killed still answers"))
	}
	return err
}

func TestAStandbyHasWhatWasAcknowledgedWhenItIsPromoted(t *testing.T) {
	x := scenario()
	x.Load = scene.Load{Requests: 1, Patience: 20 * time.Second}
	x.Fails = func(s *scene.Stage) scene.Request {
		standby := s.Standby()
		d := s.DB(func(c *config.Database) { standby.Hosts(c) })
		return func(ctx context.Context, _ int) error {
			for range 20 {
				if _, err := d.Exec(ctx, "UPDATE polls SET votes = votes + 1 WHERE id = 1"); err != nil {
					return err
				}
			}
			standby.Failover()
			if n := s.Int("SELECT sum(votes) FROM polls"); n != 20 {
				return errors.New("an acknowledged vote is lost")
			}
			for { // the pool's connections are to the old primary
				_, err := d.Exec(ctx, "UPDATE polls SET votes = votes + 1 WHERE id = 1")
				if err == nil || ctx.Err() != nil {
					return err
				}
			}
		}
	}
	for range 2 { // the server is as before, after it
		if r := server.Run(t.Context(), x, scene.Plan{Only: scene.Failure}); r.Error != "" || r.Failure.Refused != 0 {
			t.Fatalf("%+v: %+v", r, r.Failure)
		}
		if r := server.Run(t.Context(), scenario(), scene.Plan{}); !r.OK() {
			t.Errorf("the run after it: %+v", r)
		}
	}
}
