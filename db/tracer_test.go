package db_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"ddtb/db"
	"ddtb/db/dbtest"
)

func TestATracerFollowsEachAcquireConnectAndQuery(t *testing.T) {
	for _, strategy := range []string{db.PerRequest, db.Persistent, db.Pool} {
		t.Run(strategy, func(t *testing.T) {
			cfg := dbtest.Config(t)
			cfg.Strategy, cfg.Pool.MinSize = strategy, 0
			trace := &diary{}
			d, err := db.OpenWith(cfg, db.Options{Tracer: trace})
			must(t, err)
			defer func() { _ = d.Close(context.Background()) }()
			if _, err := d.Exec(t.Context(), "SELECT 1"); err != nil {
				t.Fatal(err)
			}
			gone, leave := context.WithCancel(t.Context())
			leave()
			if _, err := d.Exec(gone, "SELECT 2"); !errors.Is(err, context.Canceled) {
				t.Fatalf("with a context that is over: %v", err)
			}
			want := []string{
				"acquire by " + strategy, "connect", "connected", "acquired", "SELECT 1", "queried",
				"acquire by " + strategy, "not acquired",
			}
			if got := trace.entries(); !slices.Equal(got, want) {
				t.Errorf("%q\nwant %q", got, want)
			}
		})
	}
}

// diary is a Tracer that records its calls.
type diary struct {
	mu   sync.Mutex
	list []string
}

func (d *diary) write(entry string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.list = append(d.list, entry)
}

func (d *diary) entries() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.list)
}

func (d *diary) TraceAcquire(ctx context.Context, strategy string) (context.Context, func(error)) {
	d.write("acquire by " + strategy)
	return ctx, func(err error) {
		if err != nil {
			d.write("not acquired")
			return
		}
		d.write("acquired")
	}
}

func (d *diary) TraceConnectStart(ctx context.Context, _ pgx.TraceConnectStartData) context.Context {
	d.write("connect")
	return ctx
}

func (d *diary) TraceConnectEnd(context.Context, pgx.TraceConnectEndData) { d.write("connected") }

func (d *diary) TraceQueryStart(ctx context.Context, _ *pgx.Conn, q pgx.TraceQueryStartData) context.Context {
	d.write(q.SQL)
	return ctx
}

func (d *diary) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) { d.write("queried") }
