package db

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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
	out   []*rows     // results that nobody has closed yet

	begun atomic.Bool // it has had a lease
}

// scopeKey finds the scope of a DB in a context: a request may use several databases.
type scopeKey struct{ db *DB }

// Begin begins the scope of a request: its queries, made with the returned context, share what the strategy
// lets a request share. end gives back what is left, and may be called twice. A request that never queries
// takes nothing. Without a scope each query is a request of its own.
//
// No result outlives its request. Rows that are open at its end, and a QueryRow that nobody scanned, are told as a
// leak, and their lease is taken back: a panic or an early return in a loop over rows costs no connection. A goroutine
// that still reads them finds ErrReclaimed. An Exec or InTx that is under way in a goroutine goes on to its own end,
// as far as its context lets it; and a query that begins afterwards is a request of its own.
func (d *DB) Begin(ctx context.Context) (_ context.Context, end func()) {
	s := &scope{}
	return context.WithValue(ctx, scopeKey{d}, s), func() {
		var cuts sync.WaitGroup
		for _, r := range s.finish() {
			cuts.Go(func() { d.cutForgotten(r) })
		}
		cuts.Wait() // each is bounded
		s.end()
	}
}

// finish says that the request is over, and which results it left open.
func (s *scope) finish() []*rows {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = true
	return slices.Clone(s.out)
}

// cutForgotten takes the lease of a result back. Each line that forgets one is told once.
func (d *DB) cutForgotten(r *rows) {
	if !r.cut() {
		return // its holder, or the watch, was faster
	}
	q := r.loan.queue
	if r.loan.late.CompareAndSwap(false, true) { // else it was counted when it became late
		q.count(&q.counts.Leaked)
	}
	q.count(&q.counts.Reclaimed)
	if stack := r.stack(); d.forgotten.first(stack[0]) {
		d.log.Error("rows were left open at the end of a request, and were closed: close them in a defer, for a panic or "+
			"a return within the loop passes by the rest",
			"strategy", q.strategy, "asked", stack[0], "stack", strings.Join(stack, " < "))
	}
}

// handOut lists a result until it is taken back, unless its request has ended meanwhile.
func (s *scope) handOut(r *rows) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return false
	}
	s.out = append(s.out, r)
	return true
}

func (s *scope) takeBack(r *rows) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = slices.DeleteFunc(s.out, func(o *rows) bool { return o == r })
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
		d.tellNested(first, newLease(first.queue))
	}
	l, err := s.enter(ctx, g)
	if err != nil {
		return loan{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = append(s.open, l)
	return loan{l, s, false}, nil
}

// enter asks for a lease, and tells the queue where it is not the request's first.
func (s *scope) enter(ctx context.Context, g *generation) (*Lease, error) {
	if s.begun.Load() {
		ctx = context.WithValue(ctx, begun{}, true)
	}
	l, err := g.Acquire(ctx)
	if err == nil {
		s.begun.Store(true)
	}
	return l, err
}

func (s *scope) acquire(ctx context.Context, g *generation) (loan, error) {
	l, err := s.enter(ctx, g)
	if err != nil {
		s.settle(nil)
		return loan{}, err
	}
	s.mu.Lock()
	s.lease = l
	s.mu.Unlock()
	return loan{l, s, true}, nil
}

// settle ends the use of the kept lease, which stays kept unless it is nil or the request is over.
func (s *scope) settle(l *Lease) {
	s.mu.Lock()
	s.lease, s.busy = l, false
	over := s.over || s.gone
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
