package db

import (
	"context"
	"sync"

	"github.com/jackc/pgx/v5"
)

// connectFunc makes a connection, or fails with a *ConnError.
type connectFunc func(ctx context.Context) (*pgx.Conn, error)

// connector makes connections with cc, counts them in q, and tells why one could not be made.
func connector(q *queue, cc *pgx.ConnConfig) connectFunc {
	return func(ctx context.Context) (*pgx.Conn, error) {
		q.connecting()
		conn, err := pgx.ConnectConfig(ctx, cc.Copy())
		if err != nil {
			return nil, connectError(ctx, q.strategy, err)
		}
		q.connected()
		return conn, nil
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
