package report

import "sync/atomic"

// Stat is what became of the failures, since the start.
type Stat struct {
	MailsSent   int64
	MailsFailed int64 // given up: the failures are counted again
	Events      int64 // handed to Sentry's queue
	Suppressed  int64 // failures that had no notice of their own when they came, but are told with others or at the end
}

// tally is a Stat under way.
type tally struct{ mailsSent, mailsFailed, events, suppressed atomic.Int64 }

// decided counts the failures that came and the notices that are due now. The first of its kind, when it comes, is told
// by a notice that is about it alone.
func (t *tally) decided(came map[fingerprint]*kind, due []notice) {
	var n int
	for _, k := range came {
		n += k.count
	}
	for _, d := range due {
		if d.previous.IsZero() && !d.held && !d.recovered {
			n--
		}
	}
	t.suppressed.Add(int64(max(0, n))) // below 0: what another process left behind is told by this one
}

// Stat is a snapshot. That of a nil Reporter is zero.
func (r *Reporter) Stat() Stat {
	if r == nil {
		return Stat{}
	}
	t := &r.keeper.tally
	return Stat{t.mailsSent.Load(), t.mailsFailed.Load(), t.events.Load(), t.suppressed.Load()}
}
