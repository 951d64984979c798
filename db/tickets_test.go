package db

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestATicketThatAFailedAttemptGivesBackGoesToTheNextAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tickets, err := newTickets(Settings{Strategy: Pool}, &queue{tickets: true}, Options{})
		if err != nil {
			t.Fatal(err)
		}
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
