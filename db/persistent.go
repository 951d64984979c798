package db

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
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

// PersistentSettings are the settings of Persistent.
type PersistentSettings struct {
	ConnMaxAge time.Duration `toml:"conn_max_age" allow:"none|0..8760h"` // 0 closes it at the request's end
	Workers    int           `toml:"workers" allow:"0..10000"`           // 0: one for each client connection
	Reap       bool          `toml:"reap"`                               // close the connection of a worker that has left
}

var defaultPersistent = PersistentSettings{ConnMaxAge: 10 * time.Minute}

// gunicornTimeout is how long a request waits for one of a fixed number of workers. Django has no bound here; 30 s is
// gunicorn's default for a worker that does not respond.
const gunicornTimeout = 30 * time.Second

// pingAfter is how long a connection must have been idle to be checked before it is used, so that no request fails
// after a server restart or an idle_session_timeout. Django has CONN_HEALTH_CHECKS for this; pgxpool does the same.
const pingAfter = time.Second

func init() {
	Register(Spec{
		Name:            Persistent,
		Description:     "each worker keeps its connection: with a worker for each client, they add up",
		Size:            func(s Settings) int { return s.Persistent.Workers },
		SizeKey:         "persistent.workers",
		Backends:        func(s Settings) int { return s.Persistent.Workers },
		HoldsForRequest: func(Settings) bool { return true },
		Timeout: func(s Settings) time.Duration {
			if s.Persistent.Workers == 0 {
				return 0
			}
			return gunicornTimeout
		},
		Show: func(s Settings) []Setting {
			p := s.Persistent
			return []Setting{
				{Key: "persistent.workers", Title: "Workers", Help: "A fixed number; 0: one for each client connection.", Value: p.Workers},
				{Key: "persistent.conn_max_age", Title: "Age", Help: "When a worker replaces its connection, as 10s; none: never.", Value: p.ConnMaxAge},
				{Key: "persistent.reap", Title: "Close the connection of a worker that has left", Value: p.Reap},
			}
		},
		Check: func(s Settings) error {
			return errors.Join(atLeast("persistent.workers", s.Persistent.Workers, 0),
				atLeast("persistent.conn_max_age", s.Persistent.ConnMaxAge, Forever))
		},
		New: func(s Settings, c *Connector) (Strategy, error) {
			return &persistent{Connector: c, settings: s.Persistent, byOwner: map[context.Context]*kept{}}, nil
		},
	})
}

type persistent struct {
	*Connector
	settings PersistentSettings
	fresh    atomic.Int64 // connections made before this time are not used again, in Unix nanoseconds

	mu      sync.Mutex
	retired bool
	byOwner map[context.Context]*kept // Workers = 0. The bug: the entry of a worker that has left is never removed
	free    []*kept                   // Workers > 0: idle connections, the longest idle first
}

// kept is a connection that its worker keeps between requests.
type kept struct {
	conn   *pgx.Conn
	owner  context.Context // nil: no worker; closed after its lease
	made   time.Time
	used   time.Time // when it was last released
	busy   bool
	unreap func() bool // stops the wait for the end of its worker; nil: no wait
}

func (p *persistent) Acquire(ctx context.Context, l *Lease) error {
	k := p.take(workerOf(ctx))
	if k != nil && !p.works(ctx, k) {
		p.drop(k)
		p.CloseConn(k.conn)
		k = nil
	}
	if k == nil {
		conn, err := p.Connect(ctx)
		if err != nil {
			return err
		}
		k = &kept{conn: conn, made: time.Now(), busy: true}
		p.own(workerOf(ctx), k)
	}
	l.Lend(k.conn, k)
	return nil
}

// take returns the worker's connection, or nil. It is also nil if the same worker requests a second lease at the same
// time.
func (p *persistent) take(worker context.Context) *kept {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.byOwner[worker]
	if len(p.free) > 0 {
		k, p.free = p.free[0], p.free[1:]
	}
	if k == nil || k.busy {
		return nil
	}
	k.busy = true
	return k
}

// works reports whether the connection is within its maximum age and answers. Only its owner checks the age.
func (p *persistent) works(ctx context.Context, k *kept) bool {
	if !p.fit(k) {
		return false
	}
	return time.Since(k.used) < pingAfter && !unread(k.conn) || k.conn.Ping(ctx) == nil
}

func (p *persistent) fit(k *kept) bool {
	young := p.settings.ConnMaxAge == Forever || time.Since(k.made) < p.settings.ConnMaxAge
	return young && !k.conn.IsClosed() && k.made.UnixNano() > p.fresh.Load()
}

// own gives the connection to the worker, if it has none yet.
func (p *persistent) own(worker context.Context, k *kept) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if worker == nil || p.settings.Workers > 0 || p.byOwner[worker] != nil {
		return
	}
	k.owner = worker
	p.byOwner[worker] = k
	if p.settings.Reap {
		k.unreap = context.AfterFunc(worker, func() { p.reap(k) })
	}
}

// reap is the first fix: when its worker ends, the connection is closed. A connection in use is closed after its lease.
func (p *persistent) reap(k *kept) {
	p.mu.Lock()
	idle := p.disown(k) && !k.busy
	p.mu.Unlock()
	if idle {
		p.CloseConn(k.conn)
	}
}

func (p *persistent) Release(l *Lease) {
	k := l.owner.(*kept)
	if reusable := l.Reusable(); !p.keeps(k, reusable) {
		p.CloseConn(k.conn)
	}
}

// keeps reports whether the connection stays with its worker after a lease.
func (p *persistent) keeps(k *kept, reusable bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	k.busy, k.used = false, time.Now()
	fit := reusable && !p.retired && p.fit(k)
	if fit && p.settings.Workers > 0 {
		p.free = append(p.free, k)
		return true
	}
	mine := k.owner != nil && p.byOwner[k.owner] == k
	if mine && !fit {
		p.disown(k)
	}
	return mine && fit
}

// disown takes the connection from its worker, and reports whether the worker had it. The lock is held.
func (p *persistent) disown(k *kept) bool {
	if k.owner == nil || p.byOwner[k.owner] != k {
		return false
	}
	delete(p.byOwner, k.owner)
	if k.unreap != nil {
		k.unreap()
	}
	return true
}

func (p *persistent) Forget(l *Lease) { p.drop(l.owner.(*kept)) }

func (p *persistent) drop(k *kept) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.disown(k)
}

func (p *persistent) Idle() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.free)
	for _, k := range p.byOwner {
		if !k.busy {
			n++
		}
	}
	return n
}

func (p *persistent) Refresh(ctx context.Context) { p.closeIdle(ctx, false) }
func (p *persistent) Retire(ctx context.Context)  { p.closeIdle(ctx, true) }
func (p *persistent) Close()                      {}

func (p *persistent) closeIdle(ctx context.Context, retire bool) {
	p.mu.Lock()
	p.retired = p.retired || retire
	p.fresh.Store(time.Now().UnixNano())
	idle := p.free
	p.free = nil
	for _, k := range p.byOwner {
		if !k.busy {
			p.disown(k)
			idle = append(idle, k)
		}
	}
	p.mu.Unlock()
	conns := make([]*pgx.Conn, len(idle))
	for i, k := range idle {
		conns[i] = k.conn
	}
	p.closeAll(ctx, conns)
}
