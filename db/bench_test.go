package db_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"ddtb/db"
	"ddtb/db/dbtest"
)

// BenchmarkAcquire measures acquire and release of each strategy beside its floor in the same run: bare
// pgxpool for those that keep connections, bare pgx.Connect for the one that does not.
func BenchmarkAcquire(b *testing.B) {
	cfg := dbtest.Config(b)
	cfg.Strategy = db.Pool
	cc, err := db.ConnConfig(cfg, "floor")
	if err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	floor := map[string]float64{}
	measure := func(name, under string, once func() error) {
		b.Run(name, func(b *testing.B) {
			if err := once(); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if err := once(); err != nil {
					b.Fatal(err)
				}
			}
			ns := float64(b.Elapsed().Nanoseconds()) / float64(b.N)
			if under == "" {
				floor[name] = ns
				return
			}
			b.ReportMetric(ns/floor[under], "x-of-"+under)
			b.ReportMetric(ns-floor[under], "ns-above-"+under)
		})
	}

	pc, err := pgxpool.ParseConfig("")
	if err != nil {
		b.Fatal(err)
	}
	pc.ConnConfig = cc
	bare, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		b.Fatal(err)
	}
	defer bare.Close()
	measure("pgxpool", "", func() error {
		c, err := bare.Acquire(ctx)
		if err == nil {
			c.Release()
		}
		return err
	})
	measure("Connect", "", func() error {
		c, err := pgx.ConnectConfig(ctx, cc.Copy())
		if err == nil {
			err = c.Close(ctx)
		}
		return err
	})
	client, gone := db.WithWorker(ctx)
	defer gone()
	for _, s := range []struct{ strategy, floor string }{
		{db.Pool, "pgxpool"}, {db.Persistent, "pgxpool"}, {db.PerRequest, "Connect"},
	} {
		cfg.Strategy = s.strategy
		strategy, err := db.NewSource(cfg, db.Options{})
		if err != nil {
			b.Fatal(err)
		}
		measure(s.strategy, s.floor, func() error {
			l, err := strategy.Acquire(client)
			if err == nil {
				l.Release()
			}
			return err
		})
		if err := strategy.Close(ctx); err != nil {
			b.Error(err)
		}
	}
}
