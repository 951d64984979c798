package report

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"ddtb/db"
)

// maxKinds bounds the kinds of failure that are told apart at once, in memory and in the state file.
const maxKinds = 1000

// pending is the queue between failing requests and the keeper. It has one place for each kind: the first of
// its incidents, and the number of all. So it can't overflow with a count lost: one kind too many is counted
// among the others.
type pending struct {
	mu    sync.Mutex
	kinds map[fingerprint]*kind
	wake  chan struct{} // has room for one: somebody was added
}

type kind struct {
	fingerprint
	count       int // of requests that failed
	untold      int // of requests that failed before, and whose mail was lost
	first, last time.Time
	noConn      bool // it is an outage of the database's connections
	sample      *sample
}

// sample is what a mail or an event tells of one incident. Its strings are cut, and not clean yet.
type sample struct {
	at       time.Time
	errText  string
	errType  string
	sqlstate string
	stack    []uintptr
	strategy string
	request  Request
	slots    string
	waiters  string
	holders  []string
}

func newPending() *pending {
	return &pending{kinds: map[fingerprint]*kind{}, wake: make(chan struct{}, 1)}
}

// known tells whether a sample of that kind waits already, so that another one need not be made.
func (p *pending) known(f fingerprint) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.kinds[f]
	return k != nil && k.sample != nil
}

// add counts one failed request. s may be nil when the kind was known.
func (p *pending) add(f fingerprint, at time.Time, noConn bool, s *sample) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.kind(f)
	k.count++
	k.noConn = k.noConn || noConn
	k.seen(at)
	if k.sample == nil {
		k.sample = s
	}
	if k.count == 1 {
		p.rouse()
	}
}

// addUntold counts failures again that a mail should have told of, and did not.
func (p *pending) addUntold(f fingerprint, n int, first, last time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.kind(f)
	k.untold += n
	k.seen(first)
	k.seen(last)
	p.rouse()
}

// rouse wakes the keeper.
func (p *pending) rouse() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// drain takes everything.
func (p *pending) drain() map[fingerprint]*kind {
	p.mu.Lock()
	defer p.mu.Unlock()
	kinds := p.kinds
	p.kinds = map[fingerprint]*kind{}
	return kinds
}

func (p *pending) empty() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.kinds) == 0
}

func (p *pending) kind(f fingerprint) *kind {
	k := p.kinds[f]
	if k == nil && len(p.kinds) >= maxKinds {
		f = others
		k = p.kinds[f]
	}
	if k == nil {
		k = &kind{fingerprint: f}
		p.kinds[f] = k
	}
	return k
}

func (k *kind) seen(at time.Time) {
	if k.first.IsZero() || at.Before(k.first) {
		k.first = at
	}
	if at.After(k.last) {
		k.last = at
	}
}

// sampleOf keeps of the incident what a mail needs.
func sampleOf(in *Incident) *sample {
	s := &sample{
		at: in.At, stack: in.Stack, strategy: line(in.Strategy), slots: line(in.Slots), waiters: line(in.Waiters),
		request: Request{
			Method: line(in.Request.Method), Route: line(in.Request.Route), Path: line(in.Request.Path),
			Query: line(in.Request.Query), ClientIP: line(in.Request.ClientIP), ID: line(in.Request.ID),
			UserAgent: line(in.Request.UserAgent),
		},
	}
	for _, h := range in.Holders[:min(len(in.Holders), maxHolders)] {
		s.holders = append(s.holders, line(h))
	}
	if in.Err != nil {
		s.errText, s.errType = cut(in.Err.Error(), maxText), fmt.Sprintf("%T", innermost(in.Err))
	}
	if ce, ok := errors.AsType[*db.ConnError](in.Err); ok {
		s.ofConnError(ce)
	}
	return s
}

func (s *sample) ofConnError(ce *db.ConnError) {
	s.errType, s.sqlstate = "ConnError", ce.SQLState()
	if s.strategy == "" {
		s.strategy = ce.Strategy
	}
	if s.waiters == "" && (ce.Leases > 0 || ce.Waiting > 0 || ce.Waited > 0) {
		size := "without a bound"
		if ce.Size > 0 {
			size = fmt.Sprintf("of %d", ce.Size)
		}
		s.waiters = fmt.Sprintf("it waited %.2f s; %d leases %s were out, and %d other requests waited",
			ce.Waited.Seconds(), ce.Leases, size, ce.Waiting)
	}
}

// innermost is the error at the end of err's chain, whose type says most.
func innermost(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}
