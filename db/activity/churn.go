package activity

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"
)

// churnSpan is how long Churn is measured without a Sampler.
const churnSpan = time.Second

// glance is the interval of the polls for new sessions within churnSpan.
const glance = 50 * time.Millisecond

// PollTwice takes two snapshots, a second apart, for properties that only show over time. earlier is nil if ctx leaves
// no time for it. In between it polls repeatedly, for sessions that begin and soon end: they are in now.Came.
func PollTwice(ctx context.Context, a Poller) (now Snapshot, earlier *Snapshot, err error) {
	first, err := a.Snapshot(ctx)
	if err != nil {
		return Snapshot{}, nil, err
	}
	if end, bounded := ctx.Deadline(); bounded && time.Until(end) < 2*churnSpan {
		return first, nil, nil
	}
	came := map[int32]Session{} // the number of slots and of polls bounds it
	watching, stop := context.WithTimeout(ctx, churnSpan)
	defer stop()
	Every(watching, glance, func() {
		if now, err := a.Snapshot(ctx); err == nil {
			now.newcomers(first.At, came)
		}
	})
	if ctx.Err() != nil {
		return first, nil, nil
	}
	now, err = a.Snapshot(ctx)
	now.newcomers(first.At, came)
	now.Came = slices.SortedFunc(maps.Values(came), func(x, y Session) int { return cmp.Compare(x.PID, y.PID) })
	return now, &first, err
}

// newcomers adds the sessions that began since then. The last observation of each counts: at first they have no name
// and no query.
func (s Snapshot) newcomers(since time.Time, came map[int32]Session) {
	for _, x := range s.clients(func(x Session) bool { return !x.Self && x.Started.After(since) }) {
		came[x.PID] = x
	}
}

// Churn returns how many sessions a second began between two snapshots. From PostgreSQL 14 on it counts all of them;
// before, those that are still there, or that PollTwice saw.
func Churn(now, earlier Snapshot) float64 {
	passed := now.At.Sub(earlier.At).Seconds()
	if passed <= 0 {
		return 0
	}
	began := len(now.clients(func(s Session) bool { return !s.Self && s.Started.After(earlier.At) }))
	counted := now.EverConnects - earlier.EverConnects // the statistics lag a little, or were reset
	return float64(max(began, len(now.Came), int(counted))) / passed
}

// shortLife is the age below which a session that ends counts as short-lived.
const shortLife = 10 * time.Second

// turnover returns how many sessions a second began and soon ended between two snapshots. A pool that opens its
// connections and keeps them is none of it, nor are sessions that a restart of their program or of the server replaced
// once.
func turnover(now, earlier Snapshot) float64 {
	passed := now.At.Sub(earlier.At).Seconds()
	if passed <= 0 || !now.Server.Started.Equal(earlier.Server.Started) {
		return 0
	}
	known := map[int32]bool{}
	for _, s := range earlier.Sessions {
		known[s.PID] = true
	}
	stay := now.clients(func(s Session) bool { // counted, perhaps late
		return !s.LogsIn() && (!s.Hidden && s.Age.Duration() < shortLife || s.Hidden && !known[s.PID])
	})
	counted := int(now.EverConnects-earlier.EverConnects) - len(stay)
	return min(Churn(now, earlier), float64(max(len(ended(now, earlier)), counted))/passed)
}

// ended returns the short-lived sessions that were seen and have ended.
func ended(now, earlier Snapshot) []Session {
	short := earlier.clients(func(s Session) bool { return !s.Self && !s.Hidden && !s.LogsIn() && s.Age.Duration() < shortLife })
	return slices.DeleteFunc(slices.Concat(short, now.Came), now.has)
}

// has reports whether the session is there.
func (s Snapshot) has(x Session) bool {
	for i := range s.Sessions {
		if y := &s.Sessions[i]; y.PID == x.PID && y.Started.Equal(x.Started) {
			return true
		}
	}
	return false
}
