package db

import (
	"context"
	"sync"

	"github.com/jackc/pgx/v5"
)

// connectFunc makes a connection, or fails with a *ConnError.
type connectFunc func(ctx context.Context) (*pgx.Conn, error)

// connector makes connections with cc, patiently, counts them in q, and tells why one could not be made.
func connector(q *queue, cc *pgx.ConnConfig) connectFunc {
	b := newBreaker(q, cc)
	return func(ctx context.Context) (conn *pgx.Conn, err error) {
		err = b.patiently(ctx, func() error {
			if err := b.admit(); err != nil {
				return err
			}
			if conn, err = pgx.ConnectConfig(ctx, cc.Copy()); err != nil {
				return connectError(ctx, q.strategy, err)
			}
			return nil
		})
		return conn, err
	}
}

// Connect makes one connection outside of any strategy, for who looks at the server rather than serves requests.
// A failure is a *ConnError.
func Connect(ctx context.Context, cc *pgx.ConnConfig) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, cc.Copy())
	if err != nil {
		return nil, connectError(ctx, "", err)
	}
	return conn, nil
}

// hangUpAll closes the connections side by side, until ctx ends.
func hangUpAll(ctx context.Context, conns []*pgx.Conn) {
	var wg sync.WaitGroup
	for _, c := range conns {
		wg.Go(func() { hangUp(c) })
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }() // ends: each is bounded by hangUpTimeout
	select {
	case <-done:
	case <-ctx.Done():
	}
}
