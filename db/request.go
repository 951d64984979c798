package db

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
)

// request is one request's use of one DB. It stays on the strategy with which it began to query, unless that is closed
// between two of its queries, and keeps the lease if that strategy says so. It has no lock: kept
// belongs to the goroutine that has set busy, and the other fields are atomic.
type request struct {
	source atomic.Pointer[Source] // nil until the first query
	over   atomic.Bool            // it has ended: later queries with its context run outside of it
	open   atomic.Pointer[Lease]  // its outstanding leases, newest first, linked by Lease.below; nil: it has had none

	busy  atomic.Bool // the kept lease carries a query, or is being acquired
	kept  *Lease      // nil: none
	leave atomic.Bool // release the kept lease as soon as it is not busy

	shared atomic.Bool // a read of it was answered over a shared connection

	seen  atomic.Uint64 // the Position that its caller follows
	wrote atomic.Bool   // it may have written: its reads need the primary
}

// requestKey is the context key of a DB's request. A request may use several databases.
type requestKey struct{ db *DB }

// Begin begins a request. Its queries, made with the returned context, share the lease if the strategy allows it. end
// releases what is left, and may be called twice. A request that never queries takes no connection. Without Begin, each
// query is a request by itself.
//
// No result outlives its request. Rows that are open at its end, and a QueryRow that was not scanned, are reported as a
// leak, and their lease is reclaimed: a panic or an early return in a loop over rows costs no connection. A goroutine
// that still reads them gets ErrReclaimed. An Exec or InTx that is still running in a goroutine runs to its end, as far
// as its context allows. A query that begins later is a request by itself.
func (d *DB) Begin(ctx context.Context) (_ context.Context, end func()) {
	r := &request{}
	return context.WithValue(ctx, requestKey{d}, r), func() {
		r.over.Store(true)
		var ends sync.WaitGroup
		for l := r.open.Load(); l != nil; l = l.below {
			if rows := l.rows.Load(); rows != nil {
				ends.Go(func() {
					if rows.abort() { // otherwise its holder, or the leak detection, was faster
						d.reportForgotten(rows)
					}
				})
			}
		}
		ends.Wait() // each is bounded in time
		r.releaseKept()
	}
}

// Release releases the request's lease before its end, ahead of work that needs no database: hashing a password,
// rendering, calling another server. Open rows keep theirs. The next query acquires a new lease.
func (d *DB) Release(ctx context.Context) {
	if r, ok := ctx.Value(requestKey{d}).(*request); ok {
		r.releaseKept()
	}
}

// Connected reports whether the context's request got a connection to the primary.
func (d *DB) Connected(ctx context.Context) bool {
	r := d.requestOf(ctx)
	return r != nil && (r.open.Load() != nil || r.shared.Load())
}

// releaseKept releases the lease that the request keeps, now or as soon as it is not busy.
func (r *request) releaseKept() {
	r.leave.Store(true)
	if !r.busy.CompareAndSwap(false, true) {
		return // the busy goroutine calls it again
	}
	r.leave.Store(false)
	l := r.kept
	r.kept = nil
	r.busy.Store(false)
	if l != nil {
		l.Release()
	}
	r.source.Store(nil)
}

// requestOf returns the context's request, or nil if there is none or it has ended.
func (d *DB) requestOf(ctx context.Context) *request {
	r, _ := ctx.Value(requestKey{d}).(*request)
	if r == nil || r.over.Load() {
		return nil
	}
	return r
}

// lease returns the lease for the next query of r: the one that the request keeps, or a new one. Lease.done ends its use.
// A nil r is a query outside of a request.
func (d *DB) lease(ctx context.Context, r *request, from callSite) (*Lease, error) {
	for !d.closed.Load() {
		s := r.sourceOf(d)
		keeps := r != nil && s.HoldsForRequest()
		if keeps {
			if l, err := r.reuse(); l != nil || err != nil {
				return l, err
			}
		} else if first := r.holds(); first != nil {
			d.reportNested(first, s)
		}
		l, err := s.acquire(ctx, r != nil && r.open.Load() != nil, from)
		switch {
		case l != nil && r != nil:
			r.add(l, keeps)
		case keeps:
			r.settle()
		}
		if !errors.Is(err, ErrClosed) {
			return l, err
		}
		if r != nil { // the strategy was switched
			r.source.CompareAndSwap(s, nil)
		}
	}
	return nil, ErrClosed
}

// sourceOf returns the source for the next query of r.
func (r *request) sourceOf(d *DB) *Source {
	if r == nil {
		return d.source.Load()
	}
	s := r.source.Load()
	if s == nil {
		s = d.source.Load()
		r.source.CompareAndSwap(nil, s)
	}
	return s
}

// reuse begins a use of the kept lease. Without one, both results are nil, and the caller acquires a lease to keep.
// Either ends with settle.
func (r *request) reuse() (*Lease, error) {
	if !r.busy.CompareAndSwap(false, true) {
		return nil, ErrInUse
	}
	l := r.kept
	if l == nil || l.takenErr() == nil {
		return l, nil
	}
	taken := l.takenErr() // before the release, after which it is nil
	r.kept = nil
	r.settle()
	l.Release()
	return nil, taken
}

// settle ends the use of the kept lease, and releases it if the request has ended or Release was called meanwhile.
func (r *request) settle() {
	r.busy.Store(false)
	if r.leave.Load() || r.over.Load() {
		r.releaseKept()
	}
}

// add lists a new lease until it is released.
func (r *request) add(l *Lease, keeps bool) {
	l.request, l.kept = r, keeps
	if keeps {
		r.kept = l
	}
	for {
		top := r.open.Load()
		for l.below = top; l.below != nil && l.below.state.Load() != out; {
			l.below = l.below.below
		}
		if r.open.CompareAndSwap(top, l) {
			return
		}
	}
}

// holds returns an outstanding lease of the request, or nil. A nil r has none.
func (r *request) holds() *Lease {
	if r == nil {
		return nil
	}
	for l := r.open.Load(); l != nil; l = l.below {
		if l.state.Load() == out {
			return l
		}
	}
	return nil
}

// done ends one query or transaction: the lease is released, unless its request keeps it. A broken connection is not
// kept: the request's next query gets another. done reports whether the session is outdated; afterwards the lease may
// belong to another goroutine of the request.
func (l *Lease) done() (outdated bool) {
	outdated = l.stale
	if !l.kept {
		l.Release()
		return outdated
	}
	if outdated || l.conn.IsClosed() && l.takenErr() == nil {
		l.request.kept = nil
		l.Release()
	}
	l.request.settle()
	return outdated
}

// reportNested reports a request that holds a lease and asks for a second: N such requests on a pool of N wait for each
// other until their timeout. It reports before the wait.
func (d *DB) reportNested(first *Lease, s *Source) {
	s.nested.Add(1)
	a, b := first.stack()[0], stackOf(callers())[0]
	if d.nested.first(a + " " + b) {
		s.log.Warn("a request that holds a lease asks for a second one: requests that do so can wait for each other until their timeout. "+
			"Close the rows of the first query, or use the transaction's Querier, before the second",
			"first", a, "second", b)
		if d.options.OnNested != nil {
			d.options.OnNested(a, b)
		}
	}
}
