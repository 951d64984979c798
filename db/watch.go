package db

import (
	"log/slog"
	"strings"
	"sync"
	"time"
)

// watch looks after leases that are held for too long, under every strategy. One that is out for leakAfter is logged
// with the lines that asked for it, and again when it comes back; a stream that keeps one is found in the same way, and
// where a request keeps its lease, so is a slow request. One that is out for reclaimAfter is taken back from its holder.
type watch struct {
	queue                   *queue
	leakAfter, reclaimAfter time.Duration // 0: never
	log                     *slog.Logger

	stop    chan struct{}
	stopped sync.WaitGroup
	once    sync.Once
}

// startWatch begins to look, if there is anything to look for.
func startWatch(q *queue, leakAfter, reclaimAfter time.Duration, log *slog.Logger) *watch {
	w := &watch{queue: q, leakAfter: leakAfter, reclaimAfter: reclaimAfter, log: log, stop: make(chan struct{})}
	if leakAfter > 0 || reclaimAfter > 0 {
		w.stopped.Go(w.run)
	}
	return w
}

// interval is a tenth of the shorter time, within bounds that cost nothing and are soon enough.
func (w *watch) interval() time.Duration {
	shorter := max(w.leakAfter, w.reclaimAfter)
	for _, d := range []time.Duration{w.leakAfter, w.reclaimAfter} {
		if d > 0 {
			shorter = min(shorter, d)
		}
	}
	return min(max(shorter/10, 5*time.Millisecond), time.Second)
}

func (w *watch) run() {
	ticker := time.NewTicker(w.interval())
	defer ticker.Stop()
	for {
		select {
		case <-w.stop:
			return
		case now := <-ticker.C:
			w.look(now)
		}
	}
}

// look tells of leaks, and takes back what is due, side by side: a connection that is dead is cut in its own time.
func (w *watch) look(now time.Time) {
	var cuts sync.WaitGroup
	defer cuts.Wait()
	for _, l := range w.queue.leases() {
		age := now.Sub(l.since)
		if w.reclaimAfter > 0 && age >= w.reclaimAfter {
			cuts.Go(func() { w.takeBack(l) })
			continue
		}
		if w.leakAfter <= 0 || age < w.leakAfter || !l.late.CompareAndSwap(false, true) {
			continue
		}
		w.queue.count(&w.queue.counts.Leaked)
		w.log.Warn("a lease is held for long: is it a leak, a stream, or a slow request? Give it back before slow work", w.about(l)...)
	}
}

func (w *watch) takeBack(l *Lease) {
	if l.Reclaim() {
		w.queue.count(&w.queue.counts.Reclaimed)
		w.log.Error("a lease was taken back: its holder kept it for too long", w.about(l)...)
	}
}

func (w *watch) cameBack(l *Lease) {
	w.log.Info("the lease that was held for long came back", "held", time.Since(l.since).Round(time.Millisecond), "backend", l.PID())
}

func (w *watch) about(l *Lease) []any {
	return []any{
		"strategy", w.queue.strategy, "held", time.Since(l.since).Round(time.Millisecond), "backend", l.PID(),
		"stack", strings.Join(l.stack(), " < "),
	}
}

func (w *watch) end() {
	w.once.Do(func() { close(w.stop) })
	w.stopped.Wait()
}

// tellNested tells of a holder that asks for a second lease: N of them on a pool of N wait for each other.
func (d *DB) tellNested(first, second *Lease) {
	a, b := first.stack()[0], second.stack()[0]
	if d.nested.first(a + " " + b) {
		d.log.Warn("a request that holds a lease asks for a second one: requests that do so can wait for each other for ever. "+
			"Close the rows of the first query, or use the transaction's Querier, before the second",
			"strategy", first.queue.strategy, "first", a, "second", b)
	}
}

// toldOnce keeps a busy line of code from filling the log.
type toldOnce struct {
	mu   sync.Mutex
	told map[string]bool
}

const mostTold = 100

// first tells whether this is the first time, and not one too many altogether.
func (t *toldOnce) first(what string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.told[what] || len(t.told) >= mostTold {
		return false
	}
	if t.told == nil {
		t.told = map[string]bool{}
	}
	t.told[what] = true
	return true
}
