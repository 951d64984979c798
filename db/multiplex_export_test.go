package db

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// What the tests of the multiplexer need of it: they import dbtest, which imports this package.
type Multiplexer = multiplexer

var (
	NewMultiplexer      = newMultiplexer
	ErrUnsuitable       = errUnsuitable
	ErrMultiplexClosed  = errMultiplexClosed
	Retryable           = retryable
	MultiplexStuckAfter = muxStuck
)

func (m *multiplexer) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	return m.query(ctx, sql, args)
}

func (m *multiplexer) Stat() multiplexStat             { return m.stat() }
func (m *multiplexer) Close(ctx context.Context) error { return m.close(ctx) }
