package report

import (
	"slices"
	"strings"
	"time"
)

// limit bounds what is told, by mail and to Sentry alike.
type limit struct {
	window  time.Duration // one telling a kind in it
	perHour int           // over all kinds
}

// settle is how long no request may fail, from the first success on, before an outage is over: one that flaps is
// one outage.
const settle = 5 * time.Second

// forgetOutage is when an outage that never saw a success is no longer waited for.
const forgetOutage = 24 * time.Hour

// ledger is what was told and what was not: all that the processes of one host share. Time is a parameter.
type ledger struct {
	Marks  map[string]*mark `json:"marks"`  // by fingerprint.key
	Told   []time.Time      `json:"told"`   // within the last hour, in order
	Outage *outage          `json:"outage"` // nil: requests get their connections
}

// mark is one kind of failure, until a window has passed in which it did not happen.
type mark struct {
	fingerprint
	NoConn bool      `json:"no_conn,omitempty"`
	Error  string    `json:"error,omitempty"` // of one of them, for a process that tells of them and has seen none
	Told   time.Time `json:"told"`            // the last time; zero: never
	Untold int       `json:"untold"`          // failures since then
	Since  time.Time `json:"since"`           // the first of the untold
	Last   time.Time `json:"last"`            // the last failure
	Held   bool      `json:"held,omitempty"`  // the cap held it back
}

// outage is the time in which requests failed for want of a connection, for whatever causes: it has one end.
type outage struct {
	Since  time.Time      `json:"since"`
	Last   time.Time      `json:"last"`   // the last failure
	Served time.Time      `json:"served"` // the first success after it; not later: none yet
	Failed map[string]int `json:"failed"` // requests, by cause
	Told   bool           `json:"told"`   // somebody knows of it, and is to know of its end
}

// notice is one thing to tell.
type notice struct {
	fingerprint
	noConn      bool
	errText     string
	count       int       // failures that it tells of
	since, last time.Time // the first and the last of them
	previous    time.Time // when the last notice of this kind was; zero: it is the first
	held        bool      // it comes late, because of the cap
	capped      time.Time // it is the last one until then; zero: it is not
	window      time.Duration
	outage      *outage // as far as it goes; of a recovery: the whole
	recovered   bool
}

// failed adds what a process counted, to the mark that it returns.
func (l *ledger) failed(k *kind) *mark {
	m := l.mark(k.fingerprint)
	if m.Untold == 0 {
		m.Since = k.first
	}
	m.Untold += k.count + k.untold
	m.NoConn = m.NoConn || k.noConn
	m.Last = later(m.Last, k.last)
	if k.noConn && k.count > 0 {
		l.outageSince(k.first).fail(k)
	}
	return m
}

func (l *ledger) mark(f fingerprint) *mark {
	m := l.Marks[f.key()]
	if m == nil && len(l.Marks) >= maxKinds {
		f = others
		m = l.Marks[f.key()]
	}
	if m == nil {
		m = &mark{fingerprint: f}
		l.Marks[f.key()] = m
	}
	return m
}

func (l *ledger) outageSince(t time.Time) *outage {
	if l.Outage == nil {
		l.Outage = &outage{Since: t, Failed: map[string]int{}}
	}
	return l.Outage
}

func (o *outage) fail(k *kind) {
	o.Failed[k.Cause] += k.count
	o.Last = later(o.Last, k.last)
}

func (o *outage) total() (n int) {
	for _, failed := range o.Failed {
		n += failed
	}
	return n
}

// served notes that a request got a connection.
func (l *ledger) served(at time.Time) {
	if o := l.Outage; o != nil && !o.Served.After(o.Last) {
		o.Served = at
	}
}

// take is what is to be told now, at most room notices of it. It counts as told. The ledger was tidied before.
func (l *ledger) take(now time.Time, lim limit, room int) []notice {
	var out []notice
	if o := l.Outage; o != nil && !now.Before(o.over()) {
		recovered := o.Told && o.Served.After(o.Last)
		if recovered && (room == 0 || !l.allowed(lim)) {
			return nil // its end is told before anything else
		}
		l.Outage = nil
		if recovered {
			out = append(out, l.recovery(now, lim, o))
		}
	}
	for _, m := range l.inOrder() {
		if !m.due(now, lim) {
			continue
		}
		if len(out) == room || !l.allowed(lim) {
			m.Held = true
			continue
		}
		out = append(out, l.tell(now, lim, m))
	}
	return out
}

// over is when the outage is over if nothing more fails; the far future when no success was seen.
func (o *outage) over() time.Time {
	if !o.Served.After(o.Last) {
		return o.Last.Add(forgetOutage)
	}
	return o.Served.Add(settle)
}

func (m *mark) due(now time.Time, lim limit) bool {
	return m.Untold > 0 && !now.Before(m.Told.Add(lim.window))
}

// tell makes the notice of m. The very first one goes out at once and is about one failure; those that came in
// the same moment wait for the window's end with the rest, so that the numbers add up for who reads both.
func (l *ledger) tell(now time.Time, lim limit, m *mark) notice {
	n := notice{
		fingerprint: m.fingerprint, noConn: m.NoConn, errText: m.Error, count: m.Untold, since: m.Since, last: m.Last,
		previous: m.Told, held: m.Held, window: lim.window,
	}
	if m.Told.IsZero() && !m.Held {
		n.count, n.last = 1, m.Since
	}
	m.Untold -= n.count
	m.Told, m.Held = now, false
	if m.NoConn && l.Outage != nil {
		l.Outage.Told = true
		n.outage = l.Outage.copy()
	}
	n.capped = l.charge(now, lim)
	return n
}

func (l *ledger) recovery(now time.Time, lim limit, o *outage) notice {
	for _, m := range l.Marks {
		if m.NoConn {
			m.Untold = 0 // the recovery tells of them
		}
	}
	return notice{
		recovered: true, noConn: true, count: o.total(), since: o.Since, last: o.Last, outage: o.copy(),
		window: lim.window, capped: l.charge(now, lim),
	}
}

func (o *outage) copy() *outage {
	c := *o
	c.Failed = make(map[string]int, len(o.Failed))
	for cause, n := range o.Failed {
		c.Failed[cause] = n
	}
	return &c
}

// charge counts one notice against the cap, and tells until when it is the last one.
func (l *ledger) charge(now time.Time, lim limit) time.Time {
	l.Told = append(l.Told, now)
	if l.allowed(lim) {
		return time.Time{}
	}
	return l.free(lim)
}

func (l *ledger) allowed(lim limit) bool { return len(l.Told) < lim.perHour }

// free is when the next notice is allowed, given that none is now.
func (l *ledger) free(lim limit) time.Time {
	return l.Told[len(l.Told)-lim.perHour].Add(time.Hour)
}

// next is when take has something to tell if nothing more happens; zero: never.
func (l *ledger) next(lim limit) time.Time {
	var next time.Time
	sooner := func(t time.Time, capped bool) {
		if capped && !l.allowed(lim) {
			t = later(t, l.free(lim))
		}
		if next.IsZero() || t.Before(next) {
			next = t
		}
	}
	for _, m := range l.Marks {
		if m.Untold > 0 {
			sooner(m.Told.Add(lim.window), true)
		}
	}
	if l.Outage != nil {
		sooner(l.Outage.over(), l.Outage.Told)
	}
	return next
}

// tidy forgets what has passed, before anything new is entered. Times in the future come from a clock that was set
// back: they would silence a kind for as long, so they become now.
func (l *ledger) tidy(now time.Time, lim limit) {
	for i, t := range l.Told {
		l.Told[i] = earlier(t, now)
	}
	l.Told = slices.DeleteFunc(l.Told, func(t time.Time) bool { return now.Sub(t) >= time.Hour })
	for key, m := range l.Marks {
		m.Told, m.Last = earlier(m.Told, now), earlier(m.Last, now)
		if m.Untold == 0 && now.Sub(m.Told) >= lim.window {
			delete(l.Marks, key)
		}
	}
	if o := l.Outage; o != nil {
		o.Last, o.Served = earlier(o.Last, now), earlier(o.Served, now)
	}
}

// inOrder is the marks, those that wait longest first.
func (l *ledger) inOrder() []*mark {
	all := make([]*mark, 0, len(l.Marks))
	for _, m := range l.Marks {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b *mark) int {
		if c := a.Since.Compare(b.Since); c != 0 {
			return c
		}
		return strings.Compare(a.key(), b.key())
	})
	return all
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
