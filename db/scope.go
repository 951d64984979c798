package db

import (
	"context"
	"slices"
	"sync"
)

// scope is one request's use of one DB. It stays on the strategy with which it began to query, and keeps the
// lease where that strategy says so.
type scope struct {
	mu    sync.Mutex
	gen   *generation // nil until the first query
	lease *Lease      // kept for the request; nil: none
	busy  bool        // the kept lease carries a query, or is being acquired
	over  bool        // ended while it was busy: whoever is busy ends it
	gone  bool        // the request is over: whoever still queries with its context is on their own
	open  []*Lease    // those of queries under way, where the lease is for the query
}

// scopeKey finds the scope of a DB in a context: a request may use several databases.
type scopeKey struct{ db *DB }

// Begin begins the scope of a request: its queries, made with the returned context, share what the strategy
// lets a request share. end gives back what is left, and may be called twice. A request that never queries
// takes nothing. Without a scope each query is a request of its own.
func (d *DB) Begin(ctx context.Context) (_ context.Context, end func()) {
	s := &scope{}
	return context.WithValue(ctx, scopeKey{d}, s), func() {
		s.mu.Lock()
		s.gone = true
		s.mu.Unlock()
		s.end()
	}
}

// Release gives the request's lease back before its end, ahead of work that needs no database: hashing a
// password, rendering, talking to another server. The next query takes a new one.
func (d *DB) Release(ctx context.Context) {
	if s, ok := ctx.Value(scopeKey{d}).(*scope); ok {
		s.end()
	}
}

func (s *scope) end() {
	s.mu.Lock()
	if s.busy {
		s.over = true
		s.mu.Unlock()
		return
	}
	g, l := s.gen, s.lease
	s.gen, s.lease, s.over = nil, nil, false
	s.mu.Unlock()
	if l != nil {
		l.Release()
	}
	if g != nil {
		g.leave()
	}
}

// loan is a lease for one query or one transaction.
type loan struct {
	*Lease
	scope *scope // nil: a query without a request
	kept  bool   // the scope keeps the lease afterwards; else it ends with the loan
}

// borrow finds the lease for the next query: the one that the request keeps, or a new one.
func (d *DB) borrow(ctx context.Context) (loan, error) {
	s, _ := ctx.Value(scopeKey{d}).(*scope)
	if s == nil {
		return d.borrowAlone(ctx)
	}
	if d.closed.Load() {
		return loan{}, ErrClosed
	}
	s.mu.Lock()
	if s.gone {
		s.mu.Unlock()
		return d.borrowAlone(ctx)
	}
	if s.gen == nil {
		s.gen = d.enter()
	}
	g := s.gen
	if !g.HoldsForRequest() {
		s.mu.Unlock()
		return d.borrowForQuery(ctx, s, g)
	}
	if s.busy {
		s.mu.Unlock()
		return loan{}, ErrInUse
	}
	s.busy = true
	l := s.lease
	s.mu.Unlock()
	if l == nil {
		return s.acquire(ctx, g)
	}
	if l.wasReclaimed() {
		s.settle(nil)
		l.Release()
		return loan{}, ErrReclaimed
	}
	return loan{l, s, true}, nil
}

// borrowAlone takes a lease for one query outside of any request.
func (d *DB) borrowAlone(ctx context.Context) (loan, error) {
	l, err := d.Acquire(ctx)
	return loan{Lease: l}, err
}

// borrowForQuery takes a lease for one query. A request that holds one already is told of before it waits for the
// second: afterwards nobody might be left to tell.
func (d *DB) borrowForQuery(ctx context.Context, s *scope, g *generation) (loan, error) {
	s.mu.Lock()
	var first *Lease
	if len(s.open) > 0 {
		first = s.open[0]
	}
	s.mu.Unlock()
	if first != nil {
		first.queue.count(&first.queue.counts.Nested)
		d.nesting.note(d.log, first, newLease(first.queue))
	}
	l, err := g.Acquire(ctx)
	if err != nil {
		return loan{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = append(s.open, l)
	return loan{l, s, false}, nil
}

func (s *scope) acquire(ctx context.Context, g *generation) (loan, error) {
	l, err := g.Acquire(ctx)
	if err != nil {
		s.settle(nil)
		return loan{}, err
	}
	s.mu.Lock()
	s.lease = l
	s.mu.Unlock()
	return loan{l, s, true}, nil
}

// settle ends the use of the kept lease, which stays kept unless it is nil.
func (s *scope) settle(l *Lease) {
	s.mu.Lock()
	s.lease, s.busy = l, false
	over := s.over
	s.mu.Unlock()
	if over {
		s.end()
	}
}

// giveBack ends the loan. A connection that broke under it is not kept: the request's next query gets another.
func (l loan) giveBack() {
	switch {
	case l.scope == nil:
		l.Release()
	case !l.kept:
		l.scope.close(l.Lease)
		l.Release()
	case l.conn.IsClosed() && !l.wasReclaimed():
		l.scope.settle(nil)
		l.Release()
	default:
		l.scope.settle(l.Lease)
	}
}

// close takes the lease off the list of those under way.
func (s *scope) close(l *Lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = slices.DeleteFunc(s.open, func(o *Lease) bool { return o == l })
}
