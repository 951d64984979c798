package app

import (
	"math"
	"time"

	"ddtb/db"
)

// load makes a weight of how busy the leases and the queue are, sample by sample.
//
// Up to the load calm the weight is 100 %. Above, it falls with a power of the load. A balancer divides the requests by
// weight, so those that go to a process fall as its load rises, until the loads are nearly alike: with the power 4, a
// process that can bear a sixth of what others can has 1.4 times their load. A larger power would be closer, and overshoot:
// between a weight and the load that it leads to, there are the interval of the balancer and the average of the load.
type load struct {
	average float64 // of the last second
	log     float64 // of the weight, as a share
}

const (
	loadEvery      = 100 * time.Millisecond // between two samples; leases that last for milliseconds are seen in the average alone
	loadAverages   = 10                     // samples that the average is over
	weightAverages = 60                     // samples that the weight takes to follow
	calm           = 0.5
	power          = 4
	leastWeight    = 0.01 // 0 would be a drain
)

// weight takes a sample, and returns the weight in percent.
func (l *load) weight(s db.Stat) int64 {
	l.average += (loadOf(s) - l.average) / loadAverages
	goal := 0.0
	if l.average > calm {
		goal = max(power*math.Log(calm/l.average), math.Log(leastWeight))
	}
	l.log += (goal - l.log) / weightAverages
	return int64(math.Round(100 * math.Exp(l.log)))
}

// loadOf is how many leases are out or waited for, as a share of all. Where leases have no bound it is 0.
func loadOf(s db.Stat) float64 {
	if s.Size == 0 {
		return 0
	}
	return float64(s.Leases+s.Waiting) / float64(s.Size)
}
