package db

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestARequestThatWouldBeServedTooLateIsRefusedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &places{size: 1, queue: queue{timeout: 3 * time.Second}}
		if _, err := q.acquire(t.Context(), false, time.Time{}); err != nil {
			t.Fatal(err)
		}
		served := make(chan bool, 10)
		ask := func(urgent bool) {
			go func() {
				if _, err := q.acquire(t.Context(), urgent, time.Time{}); err == nil {
					served <- true
				}
			}()
			synctest.Wait()
		}
		waiting := func(want int, why string) {
			t.Helper()
			if s := statOf(q); s.Waiting != want {
				t.Errorf("%d wait, want %d: %s", s.Waiting, want, why)
			}
		}
		for range 5 {
			ask(false)
		}
		waiting(5, "while the pace is not known, every request may wait")
		for range 2 {
			<-time.After(400 * time.Millisecond)
			q.release()
			<-served
		}
		began := time.Now()
		_, err := q.acquire(t.Context(), false, time.Time{})
		if CauseOf(err) != QueueFull || !time.Now().Equal(began) {
			t.Errorf("4 × 0.4 s are more than a third of the timeout, but the newcomer got %v after %v", err, time.Since(began))
		}
		if ce, ok := errors.AsType[*ConnError](err); !ok || ce.RetryAfter != 3*400*time.Millisecond {
			t.Errorf("the newcomer may come back after: %+v", err)
		}
		ask(true)
		waiting(4, "a request that has had a lease may wait")
		for range 4 { // it gets faster
			<-time.After(50 * time.Millisecond)
			q.release()
			<-served
		}
		ask(false)
		waiting(1, "as many as there are places may")
		q.release()
		<-served
		q.release()
		if s := statOf(q); s.Refused != 1 || s.Waiting != 0 || s.Leases != 0 || s.Waited != 7 {
			t.Errorf("%+v", s)
		}
	})
}

func TestARequestThatFoundNoSlotWaitsFirstInLineForAPlaceOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &places{size: 3, queue: queue{timeout: 3 * time.Second}}
		began := time.Now()
		for range 3 {
			if _, err := q.acquire(t.Context(), false, time.Time{}); err != nil {
				t.Fatal(err)
			}
		}
		served := make(chan string, 2)
		ask := func(name string, since time.Time) {
			go func() {
				if _, err := q.acquire(t.Context(), false, since); err == nil {
					served <- name
				}
			}()
			synctest.Wait()
		}
		ask("second", time.Time{})
		if !q.stopGrowing() {
			t.Fatal("there are two others to wait for")
		}
		q.release()
		ask("first", began)
		if s := statOf(q); s.Waiting != 2 || s.Leases != 2 {
			t.Errorf("the place that was given up is handed out again: %+v", s)
		}
		q.release()
		if name := <-served; name != "first" {
			t.Errorf("%s was served first", name)
		}
		<-served // none of the others is released
		if waited := time.Since(began); waited != limitFor {
			t.Errorf("the second got a free place after %v, want %v", waited, limitFor)
		}
		if s := statOf(q); s.Leases != 3 || s.Waiting != 0 {
			t.Errorf("%+v", s)
		}
		q.release()
		q.release()
		if q.stopGrowing() {
			t.Error("no other request has a place, but this one shall wait for one")
		}
		q.release()
	})
}

func TestRequestsThatWaitAgainKeepTheirOrderAndTheirTimeout(t *testing.T) {
	for name, release := range map[string]bool{"served": true, "timed out": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := &places{size: 1, queue: queue{timeout: 10 * time.Second}}
				began := time.Now()
				if _, err := q.acquire(t.Context(), false, time.Time{}); err != nil {
					t.Fatal(err)
				}
				<-time.After(8 * time.Second)
				ends := make(chan string, 3)
				ask := func(name string, since time.Time) {
					go func() {
						_, err := q.acquire(t.Context(), false, since)
						ends <- name
						if err == nil {
							q.release()
						}
					}()
					synctest.Wait()
				}
				ask("new", time.Time{})
				ask("old", began)
				ask("younger", began.Add(7*time.Second))
				if release {
					q.release()
				}
				for i, want := range []string{"old", "younger", "new"} {
					if got := <-ends; got != want {
						t.Errorf("%d: %s, want %s", i, got, want)
					}
					if d := time.Since(began); !release && d != []time.Duration{10 * time.Second, 17 * time.Second, 18 * time.Second}[i] {
						t.Errorf("%s gave up after %v", want, d)
					}
				}
			})
		})
	}
}

func TestAWaitThatEndsForTwoReasonsCountsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &places{size: 1, queue: queue{timeout: 3 * time.Second}}
		if _, err := q.acquire(t.Context(), false, time.Time{}); err != nil {
			t.Fatal(err)
		}
		const waiters = 100 // which reason is first is chance
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		var asking sync.WaitGroup
		for range waiters {
			asking.Go(func() {
				if _, err := q.acquire(ctx, true, time.Time{}); CauseOf(err) != PoolTimeout {
					t.Error(err)
				}
			})
		}
		asking.Wait()
		if s := statOf(q); s.TimedOut != waiters {
			t.Errorf("%d of %d timed out", s.TimedOut, waiters)
		}
	})
}

func TestADrainedQueueHasNoLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &places{size: 2, queue: queue{timeout: 3 * time.Second}}
		for range 2 {
			if _, err := q.acquire(t.Context(), false, time.Time{}); err != nil {
				t.Fatal(err)
			}
		}
		q.stopGrowing()
		drained := q.drained()
		q.release()
		q.release()
		<-drained
		<-q.drained() // as well
		if q.limit != 0 {
			t.Errorf("the limit is %d, and its timer may still run", q.limit)
		}
	})
}

func TestAWaiterGivesUpAfterTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &places{size: 1, queue: queue{timeout: 3 * time.Second}}
		if _, err := q.acquire(t.Context(), false, time.Time{}); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		go func() { _, _ = q.acquire(t.Context(), false, time.Time{}) }()
		<-time.After(time.Second)
		if waited, err := q.acquire(t.Context(), false, time.Time{}); CauseOf(err) != PoolTimeout || waited != 3*time.Second {
			t.Errorf("%v after %v", err, waited)
		}
		if d := time.Since(began); d != 4*time.Second {
			t.Errorf("both had given up after %v", d)
		}
		if s := statOf(q); s.TimedOut != 2 || s.Waiting != 0 || s.Leases != 1 {
			t.Errorf("%+v", s)
		}
		q.release()
	})
}

func TestAnErrorSaysForHowLongNoPlaceHasComeFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &places{size: 2, queue: queue{timeout: 3 * time.Second}}
		for range 2 {
			if _, err := q.acquire(t.Context(), false, time.Time{}); err != nil {
				t.Fatal(err)
			}
		}
		stalled := func(want time.Duration) {
			t.Helper()
			_, err := q.acquire(t.Context(), false, time.Time{})
			if ce, ok := errors.AsType[*ConnError](err); !ok || ce.Cause != PoolTimeout || ce.Stalled != want {
				t.Errorf("%+v, want a time-out after %v", err, want)
			}
		}
		stalled(3 * time.Second)
		go func() { _, _ = q.acquire(t.Context(), false, time.Time{}) }()
		synctest.Wait()
		go func() { <-time.After(time.Second); q.release() }()
		stalled(2 * time.Second)
		q.release()
		q.release()
	})
}

func TestTheFirstPlacesSayLittleAboutALongQueue(t *testing.T) {
	q, now := &places{size: 1, queue: queue{timeout: 10 * time.Second, pace: pace{round: 1}}}, time.Now()
	for range 499 {
		q.waiters.PushBack(&waiter{since: now})
	}
	q.pace.handedOver(now, 500)
	q.pace.handedOver(now.Add(50*time.Millisecond), 499) // the first statement of a new session takes longer
	if q.refuses(false) {
		t.Error("one place took 50 ms, and a request behind 499 is refused")
	}
	for range 100 {
		now = now.Add(50 * time.Millisecond)
		q.pace.handedOver(now, 499)
	}
	if !q.refuses(false) {
		t.Error("100 places took 50 ms each, and a request behind 499 is not refused")
	}
}

func TestAShortStallRefusesNoRequestOfALongQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &places{size: 1, queue: queue{timeout: 3 * time.Second}}
		if _, err := q.acquire(t.Context(), false, time.Time{}); err != nil {
			t.Fatal(err)
		}
		defer q.fail(ErrClosed)
		served := make(chan error, 2000)
		ask := func() {
			go func() {
				_, err := q.acquire(t.Context(), false, time.Time{})
				served <- err
			}()
			synctest.Wait()
		}
		for range 100 {
			ask()
		}
		for i := range 1000 { // each client asks again after its answer
			pause := time.Millisecond
			if i >= 100 && i%200 == 0 {
				pause = 500 * time.Millisecond
			}
			<-time.After(pause)
			q.release()
			if err := <-served; err != nil {
				t.Fatalf("request %d: 100 of them wait for 0.6 s, a third of the timeout is 1 s, and yet: %v", i, err)
			}
			ask()
		}
	})
}

func statOf(q *places) (s Stat) {
	q.addStat(&s)
	return s
}

func TestThePaceIsThatOfTheLastRounds(t *testing.T) {
	p, now := pace{round: 4}, time.Now()
	lend := func(after time.Duration) {
		now = now.Add(after)
		p.handedOver(now, 0)
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
