package dashboard

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"ddtb/db/activity"
)

// pointsKept is the length of the charts: a quarter of an hour at the default interval of two seconds.
const pointsKept = 450

const (
	silentFor = time.Second     // at least this long without an answer before the page says so
	ownPace   = 5 * time.Second // maximum age of this process's figures, however long the interval
)

// feed turns each reading of the sampler into one event for all viewers. An event is encoded when the first viewer
// requests it. Without viewers, a reading costs one line of figures.
type feed struct {
	o        Options
	failures *failures
	limit    time.Duration // the age after which a reading is stale

	mu      sync.Mutex
	latest  *event
	waits   waits
	reading activity.Reading // the newest
	heard   time.Time        // when it arrived

	ctx   context.Context // ends with the feed, and ends the streams
	stop  context.CancelFunc
	ended sync.WaitGroup
}

// event is the readings of one moment in two encodings: for viewers that got the previous event, and for those that did not.
type event struct {
	id       int64         // the number of events, and so of points, ever made
	next     chan struct{} // closed when there is a newer event
	connects meter
	history  history
	view     func() view
	now      func() []byte
	whole    func() []byte
}

// meter measures the rate of a counter, over at least a second.
type meter struct {
	at        time.Time
	count     int64
	perSecond float64
}

// next returns the meter after a later count. A smaller one is that of another strategy, whose counter began at 0.
func (m meter) next(at time.Time, count int64) meter {
	passed := at.Sub(m.at)
	if passed < time.Second {
		return m
	}
	if count < m.count {
		m.count = 0
	}
	return meter{at, count, float64(count-m.count) / passed.Seconds()}
}

func startFeed(o Options, failed *failures) *feed {
	ctx, stop := context.WithCancel(context.Background())
	f := &feed{o: o, failures: failed, limit: max(2*o.Config.Monitor.Interval, silentFor), ctx: ctx, stop: stop}
	f.waits.of = o.Waits
	f.latest = f.newEvent(&event{connects: meter{at: time.Now()}})
	f.ended.Go(f.run)
	return f
}

func (f *feed) end() {
	f.stop()
	f.ended.Wait()
}

// run follows the sampler. A slow server must not hide this process's own figures, in particular the requests waiting
// for a lease.
func (f *feed) run() {
	for {
		within, cancel := context.WithTimeout(f.ctx, f.wait())
		next, err := f.o.Sampler.Next(within, f.reading)
		cancel()
		if f.ctx.Err() != nil {
			return
		}
		if err == nil {
			f.mu.Lock()
			f.reading, f.heard = next, time.Now()
			f.mu.Unlock()
		}
		f.publish()
	}
}

// wait returns how long the next event waits for a reading. It ends when the last reading becomes stale.
func (f *feed) wait() time.Duration {
	if left := f.limit - time.Since(f.heard); left > 0 {
		return min(left, ownPace)
	}
	return min(f.limit, ownPace)
}

// publish makes an event from the current state.
func (f *feed) publish() {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.latest
	f.latest = f.newEvent(before)
	close(before.next)
}

// event returns the newest event.
func (f *feed) event() *event {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.latest
}

// newEvent describes the last reading with this process's current figures. The caller holds f.mu.
func (f *feed) newEvent(before *event) *event {
	s := readings{
		Reading: f.reading, late: time.Since(f.heard) >= f.limit, at: time.Now(), stat: f.o.DB.Stat(), cfg: f.o.DB.Config(),
		monitor: f.o.Config.Monitor,
	}
	e := &event{id: before.id + 1, next: make(chan struct{}), connects: before.connects.next(s.at, s.stat.Connects)}
	s.connects = e.connects.perSecond
	s.waits = f.waits.recent(s.at, s.cfg)
	if s.seen() {
		s.budget = activity.PlanBudget(s.cfg, f.o.DB.Replica() != nil, f.o.Config.Server.Replicas, s.Snapshot.Extras(), s.Snapshot.Slots).
			Within(s.Snapshot, s.cfg)
	}
	e.history = before.history.with(&s)
	e.view = sync.OnceValue(func() view {
		v := f.render(s)
		for _, c := range charts {
			v.Tables[c.table()] = e.history.rows(c.Lines, e.id)
		}
		return v
	})
	e.now = sync.OnceValue(func() []byte { return e.frame("now", e.history.newest()) })
	e.whole = sync.OnceValue(func() []byte { return e.frame("history", e.history) })
	return e
}

// sent is the JSON of an event.
type sent struct {
	view
	Columns history `json:"columns"` // of the charts; of "now" the newest point
}

// frame encodes the event for the wire.
func (e *event) frame(kind string, columns history) []byte {
	body, _ := json.Marshal(sent{e.view(), columns}) // none of its types can fail: NaN is null
	return fmt.Appendf(nil, "id: %d\nevent: %s\ndata: %s\n\n", e.id, kind, body)
}
