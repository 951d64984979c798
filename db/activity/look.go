package activity

import (
	"context"
	"time"
)

// churnSpan is how long Churn is watched where nobody watches all the time.
const churnSpan = time.Second

// Looker takes snapshots: an Observer with its own connection, or a Remote with that of a running server.
type Looker interface {
	Snapshot(ctx context.Context) (Snapshot, error)
}

// LookTwice takes two snapshots, a second apart, for what shows only over time. earlier is nil where ctx leaves
// no time for it.
func LookTwice(ctx context.Context, l Looker) (now Snapshot, earlier *Snapshot, err error) {
	first, err := l.Snapshot(ctx)
	if err != nil {
		return Snapshot{}, nil, err
	}
	if end, bounded := ctx.Deadline(); bounded && time.Until(end) < 2*churnSpan {
		return first, nil, nil
	}
	select {
	case <-ctx.Done():
		return first, nil, nil
	case <-time.After(churnSpan):
	}
	now, err = l.Snapshot(ctx)
	return now, &first, err
}

// Churn is how many sessions a second began between two snapshots: all of them from PostgreSQL 14 on, before
// that those that are still there.
func Churn(now, earlier Snapshot) float64 {
	passed := now.At.Sub(earlier.At).Seconds()
	if passed <= 0 {
		return 0
	}
	began := 0
	for _, s := range now.Sessions {
		if s.Client() && !s.Self && s.Started.After(earlier.At) {
			began++
		}
	}
	counted := now.EverConnects - earlier.EverConnects // the statistics lag a little, or were reset
	return float64(max(began, int(counted))) / passed
}
