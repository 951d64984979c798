package activity

import (
	"context"
	"sync"
	"time"
)

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

// Reading is the result of one poll by a Sampler.
type Reading struct {
	Sample   Sample
	Snapshot Snapshot  // empty if Err is set
	Earlier  *Snapshot // the previous snapshot; nil if the previous poll failed, or there was none
	Err      error     // why the poll failed
	Seen     time.Time // when a poll last succeeded, by this machine's clock; zero: never

	next chan struct{} // closed when there is a newer reading
}

// Sampler polls the server at one interval, over one Poller, for any number of readers. Their number does not change the
// server's load. A slow reader misses readings and delays no other.
type Sampler struct {
	poller     Poller
	thresholds func() Thresholds

	mu     sync.Mutex
	latest Reading

	stop    context.CancelFunc
	stopped sync.WaitGroup
}

// StartSampler polls at once, and then every interval, until Stop. Each poll is judged by the thresholds of its moment.
func StartSampler(a Poller, interval time.Duration, thresholds func() Thresholds) *Sampler {
	ctx, stop := context.WithCancel(context.Background())
	s := &Sampler{poller: a, thresholds: thresholds, stop: stop, latest: Reading{next: make(chan struct{})}}
	s.stopped.Go(func() {
		s.poll(ctx)
		Every(ctx, interval, func() { s.poll(ctx) })
	})
	return s
}

// Every calls f at an interval until ctx ends.
func Every(ctx context.Context, interval time.Duration, f func()) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			f()
		}
	}
}

func (s *Sampler) poll(ctx context.Context) {
	now, err := s.poller.Snapshot(ctx)
	if ctx.Err() != nil {
		return
	}
	before := s.Latest()
	r := Reading{Snapshot: now, Err: err, Seen: before.Seen, next: make(chan struct{})}
	if err == nil && before.Err == nil && !before.Sample.At.IsZero() {
		earlier := before.Snapshot // a copy: a pointer into before would keep all earlier snapshots in memory
		r.Earlier = &earlier
	}
	if err == nil {
		r.Seen, r.Sample = time.Now(), SampleOf(now, r.Earlier, s.thresholds())
	} else {
		r.Sample = SampleOfFailure(time.Now(), err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.latest = r
	close(before.next)
}

// Thresholds returns those by which a poll is judged now.
func (s *Sampler) Thresholds() Thresholds { return s.thresholds() }

// Latest returns the newest reading. Its Sample.At is zero if there is none yet.
func (s *Sampler) Latest() Reading {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.latest
}

// Next waits for a reading that is newer than r. The zero Reading is older than all.
func (s *Sampler) Next(ctx context.Context, r Reading) (Reading, error) {
	if r.next == nil {
		if r = s.Latest(); !r.Sample.At.IsZero() {
			return r, nil
		}
	}
	select {
	case <-r.next:
		return s.Latest(), nil
	case <-ctx.Done():
		return Reading{}, ctx.Err()
	}
}

// Stop stops the polls and waits until they have ended. It may be called twice.
func (s *Sampler) Stop() {
	s.stop()
	s.stopped.Wait()
}
