package metrics

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// steps are the preferred numbers R″20 of ISO 3, times ten: each is at most a sixth larger than the previous one.
var steps = [...]int{10, 11, 12, 14, 16, 18, 20, 22, 25, 28, 30, 35, 40, 45, 50, 55, 60, 70, 80, 90}

// decades is the number of decades from 0.1 ms. They end at 1000 s, beyond every timeout that the configuration allows.
const decades = 7

// bounds are the upper bounds of the steps.
var bounds = func() (b [decades*len(steps) + 1]time.Duration) {
	unit := 10 * time.Microsecond
	for i := range b {
		if i > 0 && i%len(steps) == 0 {
			unit *= 10
		}
		b[i] = time.Duration(steps[i%len(steps)]) * unit
	}
	return b
}()

// exportedBounds are the bounds exported to Prometheus. Each costs a series there.
var exportedBounds = []time.Duration{
	100 * time.Microsecond, time.Millisecond, 5 * time.Millisecond, 25 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond,
	500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second, 30 * time.Second,
}

// Waits counts ended waits for a lease by duration: in steps from 0.1 ms to 1000 s, and longer ones.
type Waits [len(bounds) + 1]uint64

// Since returns the waits added since before.
func (w Waits) Since(before Waits) Waits {
	for i := range w {
		w[i] -= before[i]
	}
	return w
}

// Count returns the number of waits.
func (w Waits) Count() (n uint64) {
	for _, c := range w {
		n += c
	}
	return n
}

// AtMost returns the given percentile, rounded up: the upper bound of a step. It is at most a sixth too long for waits
// above 0.1 ms. 0: there are no waits. A wait of more than 1000 s counts as 1000 s.
func (w Waits) AtMost(percent uint64) time.Duration {
	left := (w.Count()*percent + 99) / 100
	if left == 0 {
		return 0
	}
	for i, bound := range bounds {
		if w[i] >= left {
			return bound
		}
		left -= w[i]
	}
	return bounds[len(bounds)-1]
}

// waits counts waits in small steps for the percentiles, and exports them to Prometheus.
type waits struct {
	counts [len(bounds) + 1]atomic.Uint64
	total  atomic.Int64 // in nanoseconds
}

func (w *waits) add(d time.Duration) {
	i, _ := slices.BinarySearch(bounds[:], d)
	w.counts[i].Add(1)
	w.total.Add(int64(d))
}

func (w *waits) now() (now Waits) {
	for i := range now {
		now[i] = w.counts[i].Load()
	}
	return now
}

// waitsVec is the waits by strategy, as a Prometheus histogram.
type waitsVec struct {
	desc *prometheus.Desc
	of   sync.Map // strategy → *waits
}

func newWaitsVec(name, help string) *waitsVec {
	return &waitsVec{desc: prometheus.NewDesc(name, help, []string{"strategy"}, nil)}
}

// with returns a strategy's waits, starting at 0 for a new one.
func (v *waitsVec) with(strategy string) *waits {
	w, known := v.of.Load(strategy)
	if !known {
		w, _ = v.of.LoadOrStore(strategy, &waits{})
	}
	return w.(*waits)
}

// Describe implements prometheus.Collector.
func (v *waitsVec) Describe(out chan<- *prometheus.Desc) { out <- v.desc }

// Collect implements prometheus.Collector.
func (v *waitsVec) Collect(out chan<- prometheus.Metric) {
	for strategy, w := range v.of.Range {
		w := w.(*waits)
		now, sum := w.now(), uint64(0)
		buckets := map[float64]uint64{}
		for i, bound := range bounds {
			if sum += now[i]; slices.Contains(exportedBounds, bound) {
				buckets[bound.Seconds()] = sum
			}
		}
		total := time.Duration(w.total.Load()).Seconds()
		out <- prometheus.MustNewConstHistogram(v.desc, now.Count(), total, buckets, strategy.(string))
	}
}
