package dashboard

import (
	"fmt"
	"strconv"
	"time"

	"ddtb/app/metrics"
	"ddtb/config"
)

const (
	lookBack  = time.Minute     // how far back the percentiles of waits look at least
	markEvery = 5 * time.Second // and how much further at most
)

// waits looks back at the waits for a lease under the settings in force: those under others say nothing of these.
type waits struct {
	of    func(strategy string) metrics.Waits
	cfg   config.Database
	marks []mark // the oldest first
}

// mark is how many waits had ended at a moment.
type mark struct {
	at    time.Time
	ended metrics.Waits
}

// lately are the waits that ended of late.
type lately struct {
	metrics.Waits
	within time.Duration
}

// look tells of the last minute, or since a look first found these settings.
func (w *waits) look(at time.Time, cfg config.Database) lately {
	now := mark{at, w.of(cfg.Strategy)}
	if cfg != w.cfg {
		w.cfg, w.marks = cfg, nil
	}
	if n := len(w.marks); n == 0 || at.Sub(w.marks[n-1].at) >= markEvery {
		w.marks = append(w.marks, now)
	}
	for len(w.marks) > 1 && at.Sub(w.marks[1].at) >= lookBack {
		w.marks = w.marks[1:]
	}
	first := w.marks[0]
	return lately{now.ended.Since(first.ended), at.Sub(first.at)}
}

// words are the percentiles: the 95th, and what stands below it. The longest is told since a stall of all who ask is
// few waits among those before it.
func (l lately) words() (p95, more string) {
	when := "in the last minute"
	if l.within < lookBack {
		when = fmt.Sprintf("in the last %d s", max(1, int(l.within.Seconds())))
	}
	n := l.Count()
	if n == 0 {
		return "–", "no lease was given or refused " + when
	}
	return within(l.AtMost(95)), fmt.Sprintf("p50 %s, p99 %s, the longest %s; %d asked %s",
		within(l.AtMost(50)), within(l.AtMost(99)), within(l.AtMost(100)), n, when)
}

// within tells the bound of a step, exactly, on one line.
func within(d time.Duration) string {
	if d < time.Second {
		return "≤\u00a0" + strconv.FormatFloat(millis(d), 'f', -1, 64) + "\u00a0ms"
	}
	return "≤\u00a0" + strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "\u00a0s"
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
