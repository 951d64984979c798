package db

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/config"
)

// gunicornTimeout is how long a request waits for one of a fixed number of workers. Django has no bound of
// its own here; 30 s is gunicorn's default for a worker that does not answer. Who would wait for a third of it is
// refused at once, as by every queue.
const gunicornTimeout = 30 * time.Second

// persistent lets each worker keep its connection, as Django does with CONN_MAX_AGE. It has, on purpose,
// Django's mechanism with its gap: the age of a connection is checked by its owner only, when it serves a
// request. A worker that never serves again, because its client is gone, never checks: its connection stays,
// and so does its slot. A threaded development server makes a worker for each client connection.
//
// There are two fixes. With Reap, a connection is closed with its worker. With Workers, their number is
// fixed, they serve in turn, and requests wait for one that is free.
type persistent struct {
	queue   *queue
	connect connectFunc
	maxAge  time.Duration
	reap    bool

	mu      sync.Mutex
	retired bool
	byOwner map[context.Context]*kept // Workers = 0. That nobody removes the entry of a dead worker is the bug
	fixed   []*kept                   // Workers > 0: those that serve nobody, the longest idle first
}

// kept is a connection that its worker keeps between requests.
type kept struct {
	conn    *pgx.Conn
	owner   context.Context // nil: nobody's, closed after its lease
	closeAt time.Time       // zero: never
	busy    bool
	unreap  func() bool // forgets to close it with its worker; nil: nobody would
}

func newPersistent(q *queue, cfg config.Persistent, cc *pgx.ConnConfig) *persistent {
	q.size = cfg.Workers
	if cfg.Workers > 0 {
		q.timeout = gunicornTimeout
	}
	return &persistent{
		queue: q, connect: connector(q, cc), maxAge: cfg.ConnMaxAge, reap: cfg.Reap,
		byOwner: map[context.Context]*kept{},
	}
}

func (p *persistent) HoldsForRequest() bool { return true }
func (p *persistent) Holders() []Holder     { return p.queue.holders() }

func (p *persistent) Acquire(ctx context.Context) (*Lease, error) {
	l, err := p.queue.enter(ctx)
	if err != nil {
		return nil, err
	}
	k := p.take(workerOf(ctx))
	if k == nil {
		if k, err = p.open(ctx); err != nil {
			p.queue.leave(l)
			return nil, err
		}
	}
	return l.lend(p, k.conn, k), nil
}

// take finds the worker's connection, or nil. One past its age is closed here, by its owner and nobody else.
func (p *persistent) take(worker context.Context) *kept {
	p.mu.Lock()
	k := p.byOwner[worker]
	if len(p.fixed) > 0 {
		k, p.fixed = p.fixed[0], p.fixed[1:]
	}
	if k == nil || k.busy { // busy: the same worker asks for a second lease at once
		p.mu.Unlock()
		return nil
	}
	k.busy = true
	p.mu.Unlock()
	if k.fit() {
		return k
	}
	p.forget(k)
	hangUp(k.conn)
	return nil
}

// open connects. The worker keeps the connection if it has none yet.
func (p *persistent) open(ctx context.Context) (*kept, error) {
	conn, err := p.connect(ctx)
	if err != nil {
		return nil, err
	}
	k := &kept{conn: conn, busy: true}
	if p.maxAge != config.Forever {
		k.closeAt = time.Now().Add(p.maxAge)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if worker := workerOf(ctx); worker != nil && p.queue.size == 0 && p.byOwner[worker] == nil {
		k.owner = worker
		p.byOwner[worker] = k
		if p.reap {
			k.unreap = context.AfterFunc(worker, func() { p.reapKept(k) })
		}
	}
	return k, nil
}

// reapKept is the first fix: when its worker is gone, the connection goes too. A busy one goes with its lease.
func (p *persistent) reapKept(k *kept) {
	p.mu.Lock()
	mine := p.byOwner[k.owner] == k
	idle := mine && !k.busy
	if mine {
		p.disown(k)
	}
	p.mu.Unlock()
	if idle {
		hangUp(k.conn)
	}
}

func (p *persistent) giveBack(l *Lease) {
	k := l.slot.(*kept)
	if fit := l.reuse() && k.fit(); !p.keeps(k, fit) {
		hangUp(k.conn)
	}
}

// keeps tells whether the connection stays with its worker after a lease.
func (p *persistent) keeps(k *kept, fit bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	k.busy = false
	mine := k.owner != nil && p.byOwner[k.owner] == k
	switch {
	case fit && !p.retired && mine:
		return true
	case fit && !p.retired && p.queue.size > 0:
		p.fixed = append(p.fixed, k)
		return true
	case mine:
		p.disown(k)
	}
	return false
}

// disown takes the connection from its worker. The lock is held.
func (p *persistent) disown(k *kept) {
	delete(p.byOwner, k.owner)
	if k.unreap != nil {
		k.unreap()
	}
}

func (p *persistent) detach(l *Lease) { p.forget(l.slot.(*kept)) }

func (p *persistent) forget(k *kept) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byOwner[k.owner] == k {
		p.disown(k)
	}
}

func (k *kept) fit() bool {
	return !k.conn.IsClosed() && (k.closeAt.IsZero() || time.Now().Before(k.closeAt))
}

func (p *persistent) Stat() Stat {
	s := p.queue.snapshot()
	p.mu.Lock()
	defer p.mu.Unlock()
	s.Idle = len(p.fixed)
	for _, k := range p.byOwner {
		if !k.busy {
			s.Idle++
		}
	}
	return s
}

func (p *persistent) Retire(ctx context.Context) {
	p.mu.Lock()
	p.retired = true
	idle := p.fixed
	p.fixed = nil
	for _, k := range p.byOwner {
		if !k.busy {
			idle = append(idle, k)
			p.disown(k)
		}
	}
	p.mu.Unlock()
	conns := make([]*pgx.Conn, len(idle))
	for i, k := range idle {
		conns[i] = k.conn
	}
	hangUpAll(ctx, conns)
}

func (p *persistent) Close(ctx context.Context) error {
	p.Retire(ctx)
	return p.queue.drain(ctx)
}
