package activity

import "time"

// Sample is one line of a monitor: the server's figures at one moment.
type Sample struct {
	At                time.Time `json:"at"`
	Slots             *Slots    `json:"slots,omitempty"` // null if the server could not be polled
	Active            int       `json:"active"`
	Idle              int       `json:"idle"`
	IdleInTransaction int       `json:"idle_in_transaction"`
	Waiting           int       `json:"waiting_for_lock"` // of the active ones
	Unseen            int       `json:"unseen"`           // client sessions whose state the role may not see
	NewPerSecond      float64   `json:"new_per_second"`   // since the previous sample
	Level             Level     `json:"level"`
	Findings          []Finding `json:"findings,omitempty"`
}

// SampleOf counts a snapshot; earlier is the previous one, or nil.
func SampleOf(now Snapshot, earlier *Snapshot, t Thresholds) Sample {
	h := Assess(now, earlier, t)
	s := Sample{At: now.At, Slots: &now.Slots, Unseen: h.Unseen, Level: h.Level, Findings: h.Findings}
	if earlier != nil {
		s.NewPerSecond = Churn(now, *earlier)
	}
	var g Group
	for _, x := range now.clients(func(Session) bool { return true }) {
		g.add(x)
	}
	s.Active, s.Idle, s.IdleInTransaction, s.Waiting = g.Active, g.Idle, g.IdleInTransaction, g.Waiting
	return s
}

// SampleOfFailure returns the Sample of a failed poll.
func SampleOfFailure(at time.Time, err error) Sample {
	h := Unreachable(err)
	return Sample{At: at, Level: h.Level, Findings: h.Findings}
}
