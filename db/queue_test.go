package db

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestARequestThatWouldBeServedTooLateIsRefusedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &queue{strategy: "pool", size: 1, timeout: 3 * time.Second}
		l, err := q.enter(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan *Lease, 10)
		ask := func(ctx context.Context) {
			go func() {
				if l, err := q.enter(ctx); err == nil {
					served <- l
				}
			}()
			synctest.Wait()
		}
		for range 5 { // while the pace is not known, everybody may wait
			ask(t.Context())
		}
		for range 2 {
			<-time.After(400 * time.Millisecond)
			q.leave(l)
			l = <-served
		}
		// Three wait, and 4 × 0.4 s are more than a third of the timeout.
		began := time.Now()
		_, err = q.enter(t.Context())
		if CauseOf(err) != QueueFull || !time.Now().Equal(began) {
			t.Errorf("the newcomer: %v after %v", err, time.Since(began))
		}
		if ce, ok := err.(*ConnError); !ok || ce.RetryAfter != 3*400*time.Millisecond { //nolint:errorlint // it is not wrapped
			t.Errorf("told to come back after: %+v", err)
		}
		ask(context.WithValue(t.Context(), begun{}, true))
		if n := q.snapshot().Waiting; n != 4 {
			t.Errorf("%d wait: a request that has had a lease may", n)
		}
		for range 4 { // it gets faster
			<-time.After(50 * time.Millisecond)
			q.leave(l)
			l = <-served
		}
		ask(t.Context())
		if n := q.snapshot().Waiting; n != 1 {
			t.Errorf("%d wait: as many as there are places may", n)
		}
		q.leave(l)
		q.leave(<-served)
		if s := q.snapshot(); s.Refused != 1 || s.Waiting != 0 || s.Leases != 0 || s.Acquired != 8 {
			t.Errorf("%+v", s)
		}
	})
}

func TestThePaceIsThatOfTheLastRounds(t *testing.T) {
	p, now := pace{size: 4}, time.Now()
	lend := func(after time.Duration) {
		now = now.Add(after)
		p.handedOver(now)
	}
	for round := range 3 {
		if got := p.wait(4); got != 0 && round < 2 {
			t.Errorf("in round %d: %v", round, got)
		}
		lend(200 * time.Millisecond)
		for range 3 { // those that were taken together come back together
			lend(0)
		}
	}
	if got := p.wait(4).Round(50 * time.Millisecond); got != 150*time.Millisecond && got != 200*time.Millisecond {
		t.Errorf("of four, which take 200 ms: %v", got)
	}
	for range 100 {
		lend(time.Millisecond)
	}
	if got := p.wait(1); got < time.Millisecond || got > 2*time.Millisecond {
		t.Errorf("after a hundred of 1 ms: %v", got)
	}
}
