package dashboard

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"ddtb/db"
	"ddtb/db/activity"
)

// pointsKept is the length of the charts: a quarter of an hour at the default interval of two seconds.
const pointsKept = 450

const (
	patience = time.Second     // at least this long without an answer before the page says so
	ownPace  = 5 * time.Second // maximum age of this process's figures, however long the interval
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

// event is one snapshot in two encodings: for viewers that got the previous event, and for those that did not.
type event struct {
	id      int64         // also the number of points ever made
	next    chan struct{} // closed when there is a newer event
	stat    db.Stat       // for the rates of the next event, with its time
	at      time.Time
	history history
	picture func() picture
	rows    func() map[string][][]string // of the tables under the charts
	now     func() []byte
	whole   func() []byte
}

func startFeed(o Options, failed *failures) *feed {
	ctx, stop := context.WithCancel(context.Background())
	f := &feed{o: o, failures: failed, limit: max(2*o.Config.Monitor.Interval, patience), ctx: ctx, stop: stop}
	f.waits.of = o.Waits
	f.latest = f.newEvent(true)
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
		next, err := f.o.Look.Next(within, f.reading)
		cancel()
		if f.ctx.Err() != nil {
			return
		}
		if err == nil {
			f.mu.Lock()
			f.reading, f.heard = next, time.Now()
			f.mu.Unlock()
		}
		f.tell(true)
	}
}

// wait returns how long the next event waits for a reading. It ends when the last reading becomes stale.
func (f *feed) wait() time.Duration {
	if left := f.limit - time.Since(f.heard); left > 0 {
		return min(left, ownPace)
	}
	return min(f.limit, ownPace)
}

// tell makes an event from the current state: on a new reading (inTurn), or between readings when this process's state
// has changed.
func (f *feed) tell(inTurn bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.latest
	f.latest = f.newEvent(inTurn)
	close(before.next)
}

// event returns the newest event.
func (f *feed) event() *event {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.latest
}

// newEvent describes the last reading with this process's current figures. The caller holds f.mu.
func (f *feed) newEvent(inTurn bool) *event {
	e := &event{next: make(chan struct{}), history: newHistory(), stat: f.o.DB.Stat(), at: time.Now()}
	s := snapshot{Reading: f.reading, late: time.Since(f.heard) >= f.limit, at: e.at, stat: e.stat, cfg: f.o.DB.Config()}
	if f.latest != nil {
		e.id, s.since, s.passed = f.latest.id+1, f.latest.stat, e.at.Sub(f.latest.at)
		e.history = f.latest.history
	}
	if !inTurn { // too short an interval for a rate
		s.passed = max(s.passed, time.Second)
		e.stat, e.at = f.latest.stat, f.latest.at
	}
	s.waits = f.waits.look(s.at, s.cfg)
	s.measure(f.o.Config)
	if f.latest != nil { // before the first reading there is nothing to draw
		e.history = e.history.with(&s)
	}
	e.picture = sync.OnceValue(func() picture { return f.render(s) })
	e.rows = sync.OnceValue(func() map[string][][]string { return e.history.rows(e.id) })
	e.now = sync.OnceValue(func() []byte {
		n := e.history.points()
		return e.frame("now", e.history.from(n-1), e.history.from(n-inSpan(e.id)).rows(e.id))
	})
	e.whole = sync.OnceValue(func() []byte { return e.frame("history", e.history, e.rows()) })
	return e
}

// sent is the JSON of an event.
type sent struct {
	picture
	Columns history               `json:"columns"` // of the charts; of "now" the newest point
	Rows    map[string][][]string `json:"rows"`    // of the tables under the charts; of "now" the newest of each
	Begins  bool                  `json:"begins"`  // the newest rows are new ones, and not the last ones anew
}

// frame encodes the event for the wire.
func (e *event) frame(kind string, columns history, rows map[string][][]string) []byte {
	body, err := json.Marshal(sent{e.picture(), columns, rows, inSpan(e.id) == 1})
	if err != nil {
		panic(err) // none of its types can fail
	}
	return fmt.Appendf(nil, "id: %d\nevent: %s\ndata: %s\n\n", e.id, kind, body)
}
