package db

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// Persistent is the name of the strategy that lets each worker keep its connection, as Django does with CONN_MAX_AGE.
//
// It reproduces Django's mechanism, including its gap: only its owner checks the age of a connection, when it serves a
// request. A worker whose client has left never serves again and never checks, so its connection and its slot stay in
// use. A threaded development server makes a worker for each client connection.
//
// There are two fixes. With Reap, a connection is closed when its worker ends. With Workers, the number of workers is
// fixed: they serve in turn, and requests wait for a free one.
const Persistent = "persistent"

type persistent struct {
	*Connector
	settings PersistentSettings

	mu    sync.Mutex
	fresh time.Time                   // connections that were made before are not used again
	idle  map[context.Context][]*kept // by worker; nil: retired. The bug: the entry of a worker that has left stays
}

// kept is a connection that its worker keeps between requests.
type kept struct {
	conn   *pgx.Conn
	worker context.Context // nil: no worker; closed after its lease
	made   time.Time
	used   time.Time   // when it was last released
	unreap func() bool // stops the wait for the end of its worker
}

// workerOf returns the worker that serves ctx, or nil. A fixed number of workers share their connections: they serve in
// turn.
func (p *persistent) workerOf(ctx context.Context) context.Context {
	if p.settings.Workers > 0 {
		return context.Background()
	}
	return workerOf(ctx)
}

func (p *persistent) Acquire(ctx context.Context, l *Lease) error {
	worker := p.workerOf(ctx)
	k := p.take(worker)
	if k != nil && !p.works(ctx, k) {
		p.drop(k)
		k = nil
	}
	if k == nil {
		k = &kept{worker: worker, made: time.Now(), unreap: func() bool { return false }}
		var err error
		if k.conn, err = p.Connect(ctx); err != nil {
			return err
		}
		if p.settings.Reap && worker != nil {
			k.unreap = context.AfterFunc(worker, func() { p.reap(worker) })
		}
	}
	l.Attach(k.conn, k)
	return nil
}

// take returns the connection of the worker that has been idle for longest, or nil. It is also nil if the same worker
// requests a second lease at the same time.
func (p *persistent) take(worker context.Context) *kept {
	p.mu.Lock()
	defer p.mu.Unlock()
	idle := p.idle[worker]
	if len(idle) == 0 {
		return nil
	}
	k := idle[0]
	p.idle[worker] = slices.Delete(idle, 0, 1)
	return k
}

// works reports whether the connection is within its maximum age and answers. Only its owner checks the age.
func (p *persistent) works(ctx context.Context, k *kept) bool {
	if !p.young(k) {
		return false
	}
	rested := time.Since(k.used)
	if rested < peekAfter || rested < pingAfter && !unread(k.conn) {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, p.config.ConnectTimeout)
	defer cancel()
	return k.conn.Ping(ctx) == nil
}

func (p *persistent) young(k *kept) bool {
	return p.settings.ConnMaxAge == Forever || time.Since(k.made) < p.settings.ConnMaxAge
}

func (p *persistent) Release(l *Lease) {
	if k := l.owner.(*kept); !l.Reusable() || !p.keep(k) {
		p.drop(k)
	}
}

// keep leaves the connection to its worker after a lease, and reports whether it did. A worker keeps one connection.
func (p *persistent) keep(k *kept) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	room := k.worker != nil && (p.settings.Workers > 0 || len(p.idle[k.worker]) == 0)
	left := p.settings.Reap && room && k.worker.Err() != nil
	if !room || left || p.idle == nil || !k.made.After(p.fresh) || !p.young(k) {
		return false
	}
	k.used = time.Now()
	p.idle[k.worker] = append(p.idle[k.worker], k)
	return true
}

// reap is the first fix: when its worker ends, the idle connection is closed. A connection in use is closed after its lease.
func (p *persistent) reap(worker context.Context) {
	if k := p.take(worker); k != nil {
		p.drop(k)
	}
}

// drop closes a connection that its worker no longer keeps.
func (p *persistent) drop(k *kept) {
	p.forget(k)
	p.CloseConn(k.conn)
}

func (p *persistent) Forget(l *Lease) { p.forget(l.owner.(*kept)) }

func (p *persistent) forget(k *kept) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if k.unreap(); len(p.idle[k.worker]) == 0 {
		delete(p.idle, k.worker)
	}
}

func (p *persistent) Idle() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, idle := range p.idle {
		n += len(idle)
	}
	return n
}

func (p *persistent) Refresh(ctx context.Context) { p.closeIdle(ctx, false) }
func (p *persistent) Retire(ctx context.Context)  { p.closeIdle(ctx, true) }
func (p *persistent) Close()                      {}

func (p *persistent) closeIdle(ctx context.Context, retire bool) {
	var conns []*pgx.Conn
	p.mu.Lock()
	p.fresh = time.Now()
	for _, idle := range p.idle {
		for _, k := range idle {
			k.unreap()
			conns = append(conns, k.conn)
		}
	}
	clear(p.idle)
	if retire {
		p.idle = nil
	}
	p.mu.Unlock()
	closeAll(ctx, conns, p.CloseConn)
}
