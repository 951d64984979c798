package db_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

// BenchmarkAcquire measures acquire and release of each strategy beside its floor: bare pgxpool for those that keep
// connections, bare pgx.Connect for the one that does not. The two take turns, so that other load affects both. The goal
// is 400 ns above pgxpool.
func BenchmarkAcquire(b *testing.B) {
	cfg := dbtest.Config(b)
	cc, err := db.ConnConfig(cfg, "floor")
	if err != nil {
		b.Fatal(err)
	}
	pc, err := pgxpool.ParseConfig("")
	if err != nil {
		b.Fatal(err)
	}
	pc.ConnConfig = cc
	bare, err := pgxpool.NewWithConfig(b.Context(), pc)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(bare.Close)
	acquire := func(ctx context.Context) error {
		c, err := bare.Acquire(ctx)
		if err == nil {
			c.Release()
		}
		return err
	}
	connect := func(ctx context.Context) error {
		c, err := pgx.ConnectConfig(ctx, cc.Copy())
		if err == nil {
			err = c.Close(ctx)
		}
		return err
	}
	for _, c := range []struct {
		strategy, floor string
		once            func(context.Context) error
		turn            int
	}{
		{db.Pool, "pgxpool", acquire, 2000}, {db.Persistent, "pgxpool", acquire, 2000}, {db.PerRequest, "connect", connect, 5},
	} {
		b.Run(c.strategy, func(b *testing.B) {
			cfg := cfg
			cfg.Strategy = c.strategy
			compareAcquire(b, cfg, c.turn, c.floor, c.once)
		})
	}
}

func compareAcquire(b *testing.B, cfg config.Database, turn int, name string, floor func(context.Context) error) {
	strategy, err := db.NewSource(cfg, db.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = strategy.Close(context.Background()) }()
	client, gone := db.WithWorker(b.Context())
	defer gone()
	timed := func(once func(context.Context) error) time.Duration {
		began := time.Now()
		for range turn {
			if err := once(client); err != nil {
				b.Fatal(err)
			}
		}
		return time.Since(began) / time.Duration(turn)
	}
	lease := func(ctx context.Context) error {
		l, err := strategy.Acquire(ctx)
		if err == nil {
			l.Release()
		}
		return err
	}
	_, _ = timed(lease), timed(floor) // both connect
	var ours, theirs []time.Duration
	for b.Loop() {
		ours, theirs = append(ours, timed(lease)), append(theirs, timed(floor))
	}
	b.ReportMetric(float64(median(ours).Nanoseconds()), "ns/acquire")
	b.ReportMetric(float64((median(ours) - median(theirs)).Nanoseconds()), "ns-above-"+name)
	b.ReportMetric(median(ours).Seconds()/median(theirs).Seconds(), "×"+name)
	b.ReportMetric(0, "ns/op")
}
