package db_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

const latestQuestions = `SELECT id, question_text FROM polls_question WHERE pub_date <= $1 ORDER BY pub_date DESC, id DESC LIMIT 5`

// reading is one way to run a read: its query, and what to do when that is unsuitable.
type reading func(ctx context.Context, sql string, args ...any) (pgx.Rows, error)

// BenchmarkMultiplex runs a list of polls over two shared connections and over a pgxpool of eight, in turn, and
// reports the ratio of the two rates. Every query has an argument of its own, so that none shares its answer: go test ./db -run - -bench 'Multiplex$' -benchtime 20x
func BenchmarkMultiplex(b *testing.B) {
	cfg, pool, m := multiplexBench(b)
	_ = cfg
	for _, clients := range []int{8, 32, 128, 512} {
		b.Run(fmt.Sprint(clients, " clients"), func(b *testing.B) {
			const queries = 2000
			listOnce := func(read reading) func() {
				return func() {
					rows, err := read(context.Background(), latestQuestions, time.Now())
					if err != nil {
						b.Error(err)
						return
					}
					if list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[question]); err != nil || len(list) != 5 {
						b.Error(len(list), err)
					}
				}
			}
			var bare, shared []time.Duration
			for b.Loop() {
				bare = append(bare, elapsed(clients, queries, listOnce(pool.Query)))
				shared = append(shared, elapsed(clients, queries, listOnce(m.Query)))
			}
			b.ReportMetric(float64(median(bare))/float64(median(shared)), "×pool")
			b.ReportMetric(queries/median(shared).Seconds(), "queries/s")
			b.ReportMetric(queries/median(bare).Seconds(), "pool-queries/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}

type question struct {
	ID   int64
	Text string
}

// BenchmarkMultiplexBesideSlow reports the 99th percentile of fast statements while one in a hundred runs 200 ms.
func BenchmarkMultiplexBesideSlow(b *testing.B) {
	_, pool, m := multiplexBench(b)
	besides := func(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
		rows, err := m.Query(ctx, sql, args...)
		if errors.Is(err, db.ErrUnsuitable) {
			return pool.Query(ctx, sql, args...)
		}
		return rows, err
	}
	for b.Loop() {
		b.ReportMetric(p99BesideSlow(b, pool.Query), "pool-p99-ms")
		b.ReportMetric(p99BesideSlow(b, besides), "p99-ms")
	}
	b.ReportMetric(0, "ns/op")
}

// p99BesideSlow is in milliseconds.
func p99BesideSlow(b *testing.B, read reading) float64 {
	var mu sync.Mutex
	var fast []time.Duration
	var count atomic.Int64
	elapsed(32, 10000, func() {
		begin, slow := time.Now(), count.Add(1)%100 == 0
		sql := latestQuestions
		if slow {
			sql = `SELECT 1::bigint, pg_sleep(0.2)::text WHERE $1::timestamptz IS NOT NULL`
		}
		rows, err := read(context.Background(), sql, begin)
		if err == nil {
			_, err = pgx.CollectRows(rows, pgx.RowToStructByPos[question])
		}
		if err != nil {
			b.Error(err)
		}
		if took := time.Since(begin); !slow {
			mu.Lock()
			fast = append(fast, took)
			mu.Unlock()
		}
	})
	slices.Sort(fast)
	return float64(fast[len(fast)*99/100].Microseconds()) / 1000
}

// elapsed is how long so many clients take for so many calls.
func elapsed(clients, calls int, call func()) time.Duration {
	var wg sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(calls))
	begin := time.Now()
	for range clients {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				call()
			}
		})
	}
	wg.Wait()
	return time.Since(begin)
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// multiplexBench is a database with polls, a pgxpool of eight and a multiplexer of two connections.
func multiplexBench(b *testing.B) (config.Database, *pgxpool.Pool, *db.Multiplexer) {
	b.Helper()
	cfg := dbtest.Config(b)
	if _, err := dbtest.Control(b, cfg).Exec(b.Context(), `INSERT INTO polls_question (question_text, pub_date)
		SELECT 'What do you think of number ' || n || '?', now() - n * interval '1 minute' FROM generate_series(1, 100) n`); err != nil {
		b.Fatal(err)
	}
	pc, err := pgxpool.ParseConfig("")
	if err != nil {
		b.Fatal(err)
	}
	pc.ConnConfig, pc.MaxConns = muxConfig(b, cfg), 8
	pool, err := pgxpool.NewWithConfig(b.Context(), pc)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(pool.Close)
	return cfg, pool, openMultiplexer(b, cfg, db.MultiplexSettings{})
}
