package app

import (
	"math"
	"time"

	"ddtb/db"
)

// load computes a weight from the share of leases in use and the queue, sample by sample.
//
// Up to the load calm the weight is 100 %. Above, it falls with a power of the load. A balancer distributes requests by
// weight, so a process gets fewer requests as its load rises, until the loads are nearly equal. With the power 4, a
// process with a sixth of the capacity of the others has 1.4 times their load. A larger power would be closer but
// overshoot, because a weight affects the load only after the balancer's interval and the averaging.
type load struct {
	average float64 // over the last second
	log     float64 // logarithm of the weight, as a fraction
}

const (
	loadEvery      = 100 * time.Millisecond // between two samples; short leases only show in the average
	loadAverages   = 10                     // samples in the average
	weightAverages = 60                     // samples until the weight follows
	calm           = 0.5
	power          = 4
	leastWeight    = 0.01 // 0 would be a drain
)

// weight adds a sample and returns the weight in percent.
func (l *load) weight(s db.Stat) int64 {
	now := 0.0 // if leases are unlimited
	if s.Size > 0 {
		now = float64(s.Leases+s.Waiting) / float64(s.Size)
	}
	l.average += (now - l.average) / loadAverages
	goal := 0.0
	if l.average > calm {
		goal = max(power*math.Log(calm/l.average), math.Log(leastWeight))
	}
	l.log += (goal - l.log) / weightAverages
	return int64(math.Round(100 * math.Exp(l.log)))
}
