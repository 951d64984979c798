package db

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestATicketThatAFailedAttemptGivesBackGoesToTheNextAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tickets := newTickets(Settings{Strategy: Pool}, &places{tickets: true}, Options{})
		tickets.pid = 1
		tickets.ready = []ticket{{n: 1, pid: 1}}
		if err := tickets.take(t.Context()); err != nil {
			t.Fatal(err)
		}
		second := make(chan error, 1)
		go func() { second <- tickets.take(t.Context()) }()
		synctest.Wait()
		began := time.Now()
		tickets.takeBack(t.Context())
		if err := <-second; err != nil || !time.Now().Equal(began) {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

func TestASharedConnectionThatIsNotMadeLeavesItsTicketForALease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &places{tickets: true}
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
		tickets.takeBack(shared)
		if q.size != 2 || tickets.shared != 0 {
			t.Errorf("afterwards %d leases are allowed, and %d connections count as shared", q.size, tickets.shared)
		}
	})
}

func TestTheLastTicketThatAProcessKeepsIsForALease(t *testing.T) {
	for name, c := range map[string]struct{ n, reserved, leased, shared, fromReserved, fromLeased, fromShared int }{
		"nothing to give up":               {n: 0, reserved: 1, leased: 2, shared: 2},
		"reserved ones first":              {n: 2, reserved: 3, leased: 2, shared: 2, fromReserved: 2},
		"then those of leases":             {n: 3, reserved: 2, leased: 4, shared: 2, fromReserved: 2, fromLeased: 1},
		"then shared ones, all but one":    {n: 4, reserved: 1, leased: 2, shared: 3, fromReserved: 1, fromLeased: 1, fromShared: 2},
		"all of them":                      {n: 5, reserved: 1, leased: 2, shared: 2, fromReserved: 1, fromLeased: 2, fromShared: 2},
		"a shared one where no other kind": {n: 0, shared: 2, fromShared: 1},
	} {
		t.Run(name, func(t *testing.T) {
			reserved, leased, shared := giveUp(c.n, c.reserved, c.leased, c.shared)
			if reserved != c.fromReserved || leased != c.fromLeased || shared != c.fromShared {
				t.Errorf("gave up %d reserved, %d leased, %d shared; want %d, %d, %d", reserved, leased, shared, c.fromReserved, c.fromLeased, c.fromShared)
			}
		})
	}
}
