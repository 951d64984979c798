package db

import (
	"context"

	"github.com/jackc/pgx/v5"

	"ddtb/config"
)

// perRequest connects at the first query of a request and closes at its end, as Django does with
// CONN_MAX_AGE = 0. Nothing accumulates; but each request pays for a new backend and a login, and as many
// requests at once as there are slots still use them all up, unless MaxSize bounds them.
type perRequest struct {
	queue   *queue
	connect connectFunc
}

func newPerRequest(q *queue, cfg config.PerRequest, cc *pgx.ConnConfig) *perRequest {
	q.size, q.timeout = cfg.MaxSize, cfg.Timeout
	return &perRequest{queue: q, connect: connector(q, cc)}
}

func (p *perRequest) Acquire(ctx context.Context) (*Lease, error) {
	l, err := p.queue.enter(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := p.connect(ctx)
	if err != nil {
		p.queue.leave(l)
		return nil, err
	}
	return l.lend(p, conn, nil), nil
}

func (p *perRequest) giveBack(l *Lease) { hangUp(l.conn) }
func (p *perRequest) detach(*Lease)     {}

func (p *perRequest) HoldsForRequest() bool           { return true }
func (p *perRequest) Stat() Stat                      { return p.queue.snapshot() }
func (p *perRequest) Holders() []Holder               { return p.queue.holders() }
func (p *perRequest) Retire(context.Context)          {}
func (p *perRequest) Close(ctx context.Context) error { return p.queue.drain(ctx) }
