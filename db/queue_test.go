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
		for range 4 { // while the pace is not known, everybody may wait
			ask(t.Context())
		}
		<-time.After(400 * time.Millisecond)
		q.leave(l)
		l = <-served // three wait, and 4 × 0.4 s are more than a third of the timeout
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
		if s := q.snapshot(); s.Refused != 1 || s.Waiting != 0 || s.Leases != 0 || s.Acquired != 7 {
			t.Errorf("%+v", s)
		}
	})
}

func TestAQueueThatBeginsAnewForgetsItsPace(t *testing.T) {
	p := pace{}
	now := time.Now()
	p.begin(now)
	p.handedOver(now.Add(time.Second))
	p.handedOver(now.Add(1500 * time.Millisecond))
	if got := p.wait(4); got != 3*time.Second {
		t.Errorf("at an average of 750 ms: %v", got)
	}
	for i := range 100 {
		p.handedOver(now.Add(1500*time.Millisecond + time.Duration(i+1)*time.Millisecond))
	}
	if got := p.wait(1); got < time.Millisecond || got > 10*time.Millisecond {
		t.Errorf("after a hundred of 1 ms: %v", got)
	}
	p.begin(now)
	if got := p.wait(1000); got != 0 {
		t.Errorf("anew: %v", got)
	}
}
