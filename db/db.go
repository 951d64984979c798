package db

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"ddtb/config"
)

// Querier runs SQL without knowing which connection it gets.
type Querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// DB is one database through the strategy in force.
type DB struct{ pool *pgxpool.Pool }

// Open makes a DB; it connects at the first query.
func Open(ctx context.Context, cfg config.Database) (*DB, error) {
	pc, err := pgxpool.ParseConfig("")
	if err != nil {
		return nil, err
	}
	cc := pc.ConnConfig
	cc.Host, cc.Port, cc.Database, cc.User, cc.Password = cfg.Host, uint16(cfg.Port), cfg.Name, cfg.User, cfg.Password.Reveal()
	cc.TLSConfig = nil
	p, err := pgxpool.NewWithConfig(ctx, pc)
	return &DB{p}, err
}

// Exec is part of Querier.
func (d *DB) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	return d.pool.Exec(ctx, sql, args...)
}

// Query is part of Querier.
func (d *DB) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	return d.pool.Query(ctx, sql, args...)
}

// QueryRow is part of Querier.
func (d *DB) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	return d.pool.QueryRow(ctx, sql, args...)
}

// InTx runs fn in one transaction on one lease: committed when fn returns nil, else rolled back.
// fn must query through the Querier it is given.
func (d *DB) InTx(ctx context.Context, fn func(Querier) error) error {
	return pgx.BeginFunc(ctx, d.pool, func(tx pgx.Tx) error { return fn(tx) })
}

// Close gives every connection back to the server.
func (d *DB) Close(context.Context) error { d.pool.Close(); return nil }
