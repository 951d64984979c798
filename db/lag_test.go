package db

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestAPositionThatWasSeenSoonAfterAnotherCountsForTheLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const maxLag = time.Hour
		all := &replicas{maxLag: maxLag}
		saw := func(p Position) { all.sawPrimary(seenServer{position: p, identity: identity{system: "1"}}, nil) }
		saw(10)
		saw(20) // sooner than samples are taken, and then the primary rests
		<-time.After(maxLag / replicaHistory * 3)
		saw(20)
		<-time.After(maxLag)
		saw(20)
		if lag := all.lagOf(10); lag < maxLag {
			t.Errorf("a replica that stays at the first position is %s behind", lag)
		}
		if lag := all.lagOf(20); lag != 0 {
			t.Errorf("one that has all is %s behind", lag)
		}
	})
}
