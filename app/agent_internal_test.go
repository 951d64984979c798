package app

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"ddtb/db"
)

func TestTheWeightFallsWithTheLoad(t *testing.T) {
	for _, c := range []struct {
		s    db.Stat
		want int64
	}{
		{db.Stat{Size: 10}, 100},
		{db.Stat{Size: 10, Leases: 5}, 100},
		{db.Stat{Size: 10, Leases: 8}, 15},
		{db.Stat{Size: 10, Leases: 10}, 6},
		{db.Stat{Size: 1, Leases: 1, Waiting: 9999}, 1}, // 0 would be a drain
		{db.Stat{Leases: 500}, 100},                     // without a bound there is no share
	} {
		var l load
		got := l.weight(c.s)
		if got < 90 {
			t.Errorf("%d %% after one sample", got)
		}
		for range 1000 {
			got = l.weight(c.s)
		}
		if got != c.want {
			t.Errorf("%d of %d, %d waiting: %d %%, want %d", c.s.Leases, c.s.Size, c.s.Waiting, got, c.want)
		}
	}
}

func TestABalancerIsRememberedWhileItAsks(t *testing.T) {
	g := &agent{peers: map[netip.Addr]*peer{}}
	from := func(host byte) net.Addr { return &net.TCPAddr{IP: net.IPv4(10, 0, 0, host), Port: 1} }
	if g.expected() || (*agent)(nil).expected() {
		t.Error("nobody asked")
	}
	one, two := g.peer(from(1)), g.peer(from(2))
	one.notified.Store(true)
	if !g.expected() {
		t.Error("the second one does not know yet")
	}
	two.notified.Store(true)
	if g.expected() {
		t.Error("both know")
	}
	three := g.peer(from(3))
	three.asked = time.Now().Add(-peerFor - time.Second)
	if g.expected() {
		t.Error("the third one is gone")
	}
	if g.peer(from(3)) == three {
		t.Error("one that comes again is not new")
	}
	for host := range byte(200) {
		g.peer(from(host))
	}
	if len(g.peers) != agentPeers {
		t.Errorf("%d are remembered", len(g.peers))
	}
}

func TestTheAgentTakesBackADrainOnlyInABalancersFirstSeconds(t *testing.T) {
	g := &agent{ready: &readiness{asked: time.Now().Add(time.Hour), last: Ready{Ready: true}}}
	g.share.Store(75)
	for since, want := range map[time.Duration]string{0: "up ready 75%", peerFor + time.Second: "up 75%"} {
		if line, stopping := g.line(&peer{since: time.Now().Add(-since)}); line != want || stopping {
			t.Errorf("to one that has asked for %v: %q", since, line)
		}
	}
	g.ready.last = Ready{Detail: "the tables are of version 3;\nrun `ddtb migrate`"}
	if line, _ := g.line(&peer{}); line != "down #the tables are of version 3; run `ddtb migrate`" {
		t.Errorf("%q", line)
	}
}
