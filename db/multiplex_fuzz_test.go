package db_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

var muxOperations = flag.Int("multiplex-operations", 20000, "random operations on one multiplexer")

// muxFuzz counts how the operations ended.
type muxFuzz struct {
	*muxTest
	answered, failed, left, unsuitable, lost atomic.Int64
}

// TestEveryAnswerIsForItsCaller: each query carries a number that comes back, whatever happens meanwhile.
func TestEveryAnswerIsForItsCaller(t *testing.T) {
	t.Run("on connections to the server", func(t *testing.T) {
		cfg := dbtest.Config(t)
		everyAnswerIsForItsCaller(t, cfg, muxConfig(t, cfg))
	})
	t.Run("through PgBouncer in transaction mode", func(t *testing.T) {
		cfg := dbtest.Config(t)
		everyAnswerIsForItsCaller(t, cfg, throughPgBouncer(t, cfg))
	})
	t.Run("through an undeclared PgBouncer", func(t *testing.T) {
		cfg := dbtest.Config(t)
		cc := throughPgBouncer(t, cfg)
		cc.DefaultQueryExecMode = pgx.QueryExecModeCacheStatement
		everyAnswerIsForItsCaller(t, cfg, cc)
	})
}

func everyAnswerIsForItsCaller(t *testing.T, cfg config.Database, cc *pgx.ConnConfig) {
	t.Helper()
	m := &muxFuzz{muxTest: newMuxTestOver(t, cfg, cc, db.MultiplexSettings{MaxResult: 64 << 10, MaxInFlight: 20})}
	m.exec(`CREATE TABLE t (id int PRIMARY KEY, v int NOT NULL); INSERT INTO t SELECT n, n FROM generate_series(0, 999) n; GRANT SELECT ON t TO PUBLIC`)
	m.exec(`CREATE FUNCTION forget(n int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN DEALLOCATE ALL; RETURN n; END $$`)
	seed := rand.Uint64()
	t.Log("seed", seed)
	m.during1(m.disturb(seed), func() {
		var wg sync.WaitGroup
		var next atomic.Int64
		for worker := range 64 {
			r := rand.New(rand.NewPCG(seed, uint64(worker)))
			wg.Go(func() {
				for n := next.Add(1); m.goesOn(n) && !t.Failed(); n = next.Add(1) {
					m.operation(r, int(n))
				}
			})
		}
		wg.Wait()
	})
	t.Logf("%d answers, %d shared, %d errors, %d left, %d unsuitable, %d asked again",
		m.answered.Load(), m.Stat().Joined, m.failed.Load(), m.left.Load(), m.unsuitable.Load(), m.lost.Load())
	if !m.enough() {
		t.Error("too few of a kind for the test to prove anything")
	}
}

// goesOn reports whether operation n is due. On a busy machine, statements that take long make many others unsuitable:
// there are then more operations.
func (m *muxFuzz) goesOn(n int64) bool {
	total := int64(*muxOperations)
	return n <= total || n <= 20*total && !m.enough()
}

// enough reports whether there were enough operations of each kind.
func (m *muxFuzz) enough() bool {
	total := int64(*muxOperations)
	return m.answered.Load() >= total/4 && m.failed.Load() >= total/20 && m.left.Load() >= total/50 && m.Stat().Joined >= total/100
}

// during1 runs disturb beside f, over and over.
func (m *muxFuzz) during1(disturb, f func()) {
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		for tick := time.NewTicker(200 * time.Millisecond); ; {
			select {
			case <-tick.C:
				disturb()
			case <-done:
				tick.Stop()
				return
			}
		}
	})
	defer wg.Wait()
	defer close(done)
	f()
}

// disturb changes the schema, or kills the backends.
func (m *muxFuzz) disturb(seed uint64) func() {
	r := rand.New(rand.NewPCG(seed, 1<<32))
	return func() {
		kinds := []string{"int4", "int8", "float8", "text", "numeric(9,0)", "varchar(20)"}
		switch r.IntN(4) {
		case 0:
			if r.IntN(2) == 0 {
				m.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '` + muxName + `'`)
			}
		case 1:
			m.exec(`ALTER TABLE t DROP COLUMN IF EXISTS more`)
			m.exec(`ALTER TABLE t ADD COLUMN more text DEFAULT 'more'`)
		default:
			kind := kinds[r.IntN(len(kinds))]
			m.exec(`ALTER TABLE t ALTER v TYPE ` + kind + ` USING v::` + kind)
		}
	}
}

// operation is one random query and a check of its answer.
func (m *muxFuzz) operation(r *rand.Rand, n int) {
	number := fmt.Sprintf(`SELECT $1::int /* %d */`, n/500) // a text that was slow because the machine is busy is replaced
	switch k := r.IntN(1000); {
	case k < 200:
		m.wants(context.Background(), n, "", number, n)
	case k < 400: // many ask the same
		m.wants(context.Background(), n/64, "", fmt.Sprintf(`SELECT $1::int + 0 /* %d */`, n/500), n/64)
	case k < 550:
		m.wants(context.Background(), n%1000, "", `SELECT v FROM t WHERE id = $1`, n%1000)
	case k < 600:
		m.wants(context.Background(), n%1000, "", `SELECT v, t.* FROM t WHERE id = $1`, n%1000)
	case k < 700:
		m.wants(context.Background(), n, "", fmt.Sprintf(`SELECT $1::int + 0 * %d`, r.IntN(400)), n)
	case k < 800:
		m.wants(context.Background(), n, fmt.Sprintf(`"e%d"`, n), `SELECT ('e' || $1)::int`, fmt.Sprint(n))
	case k < 850:
		m.wants(context.Background(), n, "division by zero", `SELECT $1::int / ($2::int - $2::int)`, n, n)
	case k < 870:
		m.wants(context.Background(), n, "own", number, 1<<40)
	case k < 880:
		m.wants(context.Background(), n, "nonsense", fmt.Sprintf(`SELECT nonsense%d`, r.IntN(50)))
	case k < 970:
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(r.IntN(3000))*time.Microsecond)
		defer cancel()
		m.wants(ctx, n, "", number, n)
	case k < 990:
		m.wants(context.Background(), n, "", `SELECT $1::int FROM generate_series(1, 100)`, n)
	case k < 991:
		m.wants(context.Background(), n, "", `SELECT forget($1::int)`, n)
	case k < 998:
		m.wants(context.Background(), n, "", `SELECT $1::int + 0 * length(pg_sleep(0.02)::text)`, n)
	case k == 998:
		m.wants(context.Background(), n, "", fmt.Sprintf(`SELECT $1::int, repeat('x', 1000) FROM generate_series(1, %d)`, 10+r.IntN(500)), n)
	case r.IntN(20) == 0:
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(r.IntN(300))*time.Millisecond)
		defer cancel()
		m.wants(ctx, n, "", `SELECT $1::int + 0 * length(pg_sleep(0.2)::text)`, n)
	}
}

// wants asks until the answer concerns the query itself: the number, an error with that text, or the end of ctx.
func (m *muxFuzz) wants(ctx context.Context, n int, failure, sql string, args ...any) {
	for {
		got, err := firstValue(m.Query(ctx, sql, args...))
		switch {
		case db.Retryable(err):
			m.lost.Add(1)
			continue
		case errors.Is(err, db.ErrUnsuitable) && failure != "own":
			m.unsuitable.Add(1)
		case err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()):
			m.left.Add(1)
		case failure != "" && err != nil && strings.Contains(err.Error(), failure):
			m.failed.Add(1)
		case failure == "" && err == nil && got == fmt.Sprint(n):
			m.answered.Add(1)
		default:
			m.Errorf("%s with %v: got %q and %v", sql, args, got, err)
		}
		return
	}
}

// firstValue is that of every row, as text.
func firstValue(rows pgx.Rows, err error) (string, error) {
	if err != nil {
		return "", err
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
		values, err := row.Values()
		if err != nil {
			return "", err
		}
		if v, ok := values[0].(driver.Valuer); ok {
			text, err := v.Value()
			return fmt.Sprint(text), err
		}
		return fmt.Sprint(values[0]), nil
	})
	for _, v := range list {
		if v != list[0] {
			return "", fmt.Errorf("rows of several queries: %v", list)
		}
	}
	if len(list) == 0 {
		return "", errors.Join(err, errors.New("no row"))
	}
	return list[0], err
}
