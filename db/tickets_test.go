package db

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestATicketThatAFailedAttemptGivesBackGoesToTheNextAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tickets := newTickets(Settings{Strategy: Pool}, &queue{tickets: true}, Options{})
		tickets.pid = 1
		tickets.ready = []ticket{{n: 1, pid: 1}}
		if err := tickets.take(t.Context()); err != nil {
			t.Fatal(err)
		}
		second := make(chan error, 1)
		go func() { second <- tickets.take(t.Context()) }()
		synctest.Wait()
		began := time.Now()
		tickets.gaveUp(t.Context())
		if err := <-second; err != nil || !time.Now().Equal(began) {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

func TestASharedConnectionThatIsNotMadeLeavesItsTicketForALease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &queue{tickets: true}
		tickets := newTickets(Settings{Strategy: Multiplex}, q, Options{})
		tickets.pid = 1
		tickets.ready = []ticket{{n: 1, pid: 1}, {n: 2, pid: 1}}
		shared := context.WithValue(t.Context(), sharedAttempt{}, true)
		if err := tickets.take(shared); err != nil {
			t.Fatal(err)
		}
		if q.size != 1 {
			t.Errorf("meanwhile %d leases are allowed, want the one that is left", q.size)
		}
		tickets.gaveUp(shared)
		if q.size != 2 || tickets.shared != 0 {
			t.Errorf("afterwards %d leases are allowed, and %d connections count as shared", q.size, tickets.shared)
		}
	})
}
