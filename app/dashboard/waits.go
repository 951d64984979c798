package dashboard

import (
	"fmt"
	"strconv"
	"time"

	"ddtb/app/metrics"
	"ddtb/config"
)

const (
	window    = time.Minute     // minimum window of the percentiles
	markEvery = 5 * time.Second // maximum amount by which the window may be longer
)

// waits computes recent waits for a lease under the current settings. Waits under earlier settings are excluded.
type waits struct {
	of    func(strategy string) metrics.Waits
	cfg   config.Database
	marks []mark // oldest first
}

// mark is the number of ended waits at one time.
type mark struct {
	at    time.Time
	ended metrics.Waits
}

// recentWaits are the waits that ended recently.
type recentWaits struct {
	metrics.Waits
	within time.Duration
}

// recent returns the waits of the last minute, or since these settings were first seen.
func (w *waits) recent(at time.Time, cfg config.Database) recentWaits {
	now := mark{at, w.of(cfg.Strategy)}
	if cfg != w.cfg {
		w.cfg, w.marks = cfg, nil
	}
	if n := len(w.marks); n == 0 || at.Sub(w.marks[n-1].at) >= markEvery {
		w.marks = append(w.marks, now)
	}
	for len(w.marks) > 1 && at.Sub(w.marks[1].at) >= window {
		w.marks = w.marks[1:]
	}
	first := w.marks[0]
	return recentWaits{now.ended.Since(first.ended), at.Sub(first.at)}
}

// words formats the percentiles: the 95th, and the text below it. The longest wait is included because a stall of all
// requests adds only few waits.
func (l recentWaits) words() (p95, more string) {
	when := "in the last minute"
	if l.within < window {
		when = fmt.Sprintf("in the last %d s", max(1, int(l.within.Seconds())))
	}
	n := l.Count()
	if n == 0 {
		return "–", "no lease was given or refused " + when
	}
	return within(l.AtMost(95)), fmt.Sprintf("p50 %s, p99 %s, the longest %s; %d asked %s",
		within(l.AtMost(50)), within(l.AtMost(99)), within(l.AtMost(100)), n, when)
}

// within formats the exact bound of a histogram step on one line.
func within(d time.Duration) string {
	if d < time.Second {
		return "≤\u00a0" + strconv.FormatFloat(millis(d), 'f', -1, 64) + "\u00a0ms"
	}
	return "≤\u00a0" + strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "\u00a0s"
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
