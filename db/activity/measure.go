package activity

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"ddtb/config"
)

type observerKey struct{}

// WithObserver returns a context with which CheckHealth and Monitor poll through o's kept connection.
func WithObserver(ctx context.Context, o *Observer) context.Context {
	return context.WithValue(ctx, observerKey{}, o)
}

var errNoObserver = errors.New("the context has no Observer (activity.WithObserver)")

func observerOf(ctx context.Context) (*Observer, error) {
	if o, ok := ctx.Value(observerKey{}).(*Observer); ok {
		return o, nil
	}
	return nil, errNoObserver
}

// CheckHealth returns the verdict on the connections of the server that the context's Observer polls, by the default
// thresholds. It takes a second, to see how fast sessions begin and end, unless ctx has less time. If the poll failed,
// the Level is Unknown, or Critical if no slot was left, and the Finding says why.
func CheckHealth(ctx context.Context) Health {
	o, err := observerOf(ctx)
	if err != nil {
		return Unreachable(err)
	}
	now, earlier, err := PollTwice(ctx, o)
	if err != nil {
		return Unreachable(err)
	}
	return Assess(now, earlier, ThresholdsOf(config.Monitor{}))
}

// Measurement records the server's sessions while a piece of work runs. See Monitor.
type Measurement struct {
	began  time.Time
	cancel context.CancelFunc
	done   chan struct{} // closed when the recording has ended
	once   sync.Once
	result Usage
	last   Snapshot
}

// Usage is the effect of a piece of work on the connections, as seen from the server. The fields marked "all" also
// count other programs' sessions.
type Usage struct {
	Name      string `json:"name"`
	Took      Age    `json:"took_seconds"`
	Before    Slots  `json:"slots_before"`
	After     Slots  `json:"slots_after"`
	Peak      int    `json:"peak"`              // slots used at once, all
	OwnBefore int    `json:"own_before"`        // sessions of this application, without the monitoring one
	OwnPeak   int    `json:"own_peak"`          //
	OwnAfter  int    `json:"own_after"`         // if more than before, the work left connections open
	Opened    int    `json:"opened"`            // sessions of this application that began meanwhile, as far as the polls saw them
	Waiting   int    `json:"peak_lock_waiters"` // sessions that waited for locks at once, all
	InTxAfter int    `json:"in_transaction_after"`
	Polls     int    `json:"looks"`
	Err       error  `json:"-"` // why the server could not be polled, at all or at the end
}

// String returns the measurement for people.
func (u Usage) String() string {
	if u.Polls == 0 {
		return fmt.Sprintf("%s took %s; its connections could not be counted: %v", u.Name, Short(u.Took.Duration()), u.Err)
	}
	return fmt.Sprintf("%s took %s: connections %d before, %d at most, %d after, %d opened; %d of %d usable slots used at most",
		u.Name, Short(u.Took.Duration()), u.OwnBefore, u.OwnPeak, u.OwnAfter, u.Opened, u.Peak, u.After.Usable())
}

// watchEvery is the interval of a Measurement's polls.
const watchEvery = 100 * time.Millisecond

// Monitor begins to measure what a piece of work does to the connections, until End or the end of ctx:
//
//	m := activity.Monitor(ctx, "bulk_operation")
//	defer m.End()
//
// It polls through the Observer of WithObserver. It never fails: if there is none, or the server can't be polled, the
// work continues, and Usage.Err says why. It has polled once when it returns. It stops with End or with ctx, whichever
// is first.
func Monitor(ctx context.Context, name string) *Measurement {
	m := &Measurement{began: time.Now(), cancel: func() {}, done: make(chan struct{}), result: Usage{Name: name}}
	o, err := observerOf(ctx)
	if err != nil {
		m.result.Err = err
		close(m.done)
		return m
	}
	watching, cancel := context.WithCancel(ctx)
	m.cancel = cancel
	m.poll(ctx, o)
	go func() {
		defer close(m.done)
		Every(watching, watchEvery, func() { m.poll(watching, o) })
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), pollTimeout)
		defer cancel()
		m.poll(last, o)
	}()
	return m
}

// End polls a last time and returns the usage. It may be called twice, and returns the same.
func (m *Measurement) End() Usage {
	m.once.Do(func() {
		m.cancel()
		<-m.done
		m.result.Took = Age(time.Since(m.began))
	})
	return m.result
}

func (m *Measurement) poll(ctx context.Context, o *Observer) {
	now, err := o.Snapshot(ctx)
	switch {
	case errors.Is(err, context.Canceled):
	case err != nil:
		m.result.Err = err
	default:
		m.result.Err = nil
		m.count(now)
	}
}

func (m *Measurement) count(now Snapshot) {
	u, own := &m.result, now.own()
	inTx := 0
	for _, s := range own {
		if s.InTransactionIdle() {
			inTx++
		}
		if u.Polls > 0 && !m.last.has(s) {
			u.Opened++
		}
	}
	if u.Polls == 0 {
		u.Before, u.OwnBefore = now.Slots, len(own)
	}
	u.After, u.OwnAfter, u.InTxAfter = now.Slots, len(own), inTx
	u.Peak, u.OwnPeak, u.Waiting = max(u.Peak, now.Slots.Used), max(u.OwnPeak, len(own)), max(u.Waiting, len(now.waiting()))
	m.last = now
	u.Polls++
}
