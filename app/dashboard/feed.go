package dashboard

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"ddtb/db"
	"ddtb/db/activity"
)

// pointsKept is how far back the charts go: a quarter of an hour at the default interval of two seconds.
const pointsKept = 450

const (
	patience = time.Second     // how long the server may take to answer at least, before the page says that it does not
	ownPace  = 5 * time.Second // how old this process's own figures may be, however seldom the server is looked at
)

// feed makes of each reading of the sampler one event for all who watch. What an event says is put together when the
// first of them asks; without any, a reading costs a line of figures.
type feed struct {
	o        Options
	failures *failures
	limit    time.Duration // what the server said is old after that

	mu      sync.Mutex
	latest  *event
	waits   waits
	reading activity.Reading // the newest
	heard   time.Time        // when it came

	ctx   context.Context // ends with the feed, and the streams with it
	stop  context.CancelFunc
	ended sync.WaitGroup
}

// event is one moment, as it is sent: to who saw the one before, and to who did not.
type event struct {
	id      int64         // also how many points were ever made
	next    chan struct{} // closed when there is a newer one
	stat    db.Stat       // for the rates of the next, and when they were so
	at      time.Time
	points  []point
	picture func() picture
	rows    func() map[string][][]string // under the charts
	now     func() []byte
	history func() []byte
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

// run follows the sampler. A server that takes long to answer must not hide what this process knows by itself: who
// waits for a lease, most of all.
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

// wait is how long the next event waits for a reading. It ends when the last one becomes old.
func (f *feed) wait() time.Duration {
	if left := f.limit - time.Since(f.heard); left > 0 {
		return min(left, ownPace)
	}
	return min(f.limit, ownPace)
}

// tell makes an event of what is known now: in its turn, or in between since something else is so from now on.
func (f *feed) tell(inTurn bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.latest
	f.latest = f.newEvent(inTurn)
	close(before.next)
}

// event is the newest.
func (f *feed) event() *event {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.latest
}

// newEvent describes the last reading, with this process's own figures as they are now. f.mu is held.
func (f *feed) newEvent(inTurn bool) *event {
	e := &event{next: make(chan struct{}), stat: f.o.DB.Stat(), at: time.Now()}
	s := sight{Reading: f.reading, late: time.Since(f.heard) >= f.limit, at: e.at, stat: e.stat, cfg: f.o.DB.Config()}
	if f.latest != nil {
		e.id, s.since, s.passed = f.latest.id+1, f.latest.stat, e.at.Sub(f.latest.at)
		e.points = f.latest.points
	}
	if !inTurn { // a moment is too short to tell a pace from
		s.passed = max(s.passed, time.Second)
		e.stat, e.at = f.latest.stat, f.latest.at
	}
	s.waits = f.waits.look(s.at, s.cfg)
	s.measure(f.o.Config)
	p := s.point()
	if f.latest != nil { // before the first look there is nothing to draw
		e.points = append(e.points[max(0, len(e.points)-pointsKept+1):], p)
	}
	points := e.points // what is appended to it later is beyond its end
	e.picture = sync.OnceValue(func() picture { return f.paint(s) })
	e.rows = sync.OnceValue(func() map[string][][]string { return rowsUnder(points, e.id) })
	e.now = sync.OnceValue(func() []byte {
		newest := rowsUnder(points[len(points)-inSpan(e.id):], e.id)
		return e.frame("now", "point", p.appendJSON(nil), newest)
	})
	e.history = sync.OnceValue(func() []byte { return e.frame("history", "columns", columns(points), e.rows()) })
	return e
}

// sent is what an event says beside the figures for the charts.
type sent struct {
	picture
	Rows   map[string][][]string `json:"rows"`   // of the tables under the charts; of "now" the newest of each
	Begins bool                  `json:"begins"` // the newest rows are new ones, and not the last ones anew
}

// frame is the event as it goes over the wire.
func (e *event) frame(kind, name string, figures []byte, rows map[string][][]string) []byte {
	body, err := json.Marshal(sent{e.picture(), rows, inSpan(e.id) == 1})
	if err != nil {
		panic(err) // nothing in it can fail
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "id: %d\nevent: %s\ndata: {%q:%s,", e.id, kind, name, figures)
	b.Write(body[1:])
	b.WriteString("\n\n")
	return b.Bytes()
}
