package db_test

import (
	"context"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

// pathTracer records the functions of this package on the way to pgxpool's Acquire.
type pathTracer struct {
	diary

	path []string
}

func (p *pathTracer) TraceAcquireStart(ctx context.Context, _ *pgxpool.Pool, _ pgxpool.TraceAcquireStartData) context.Context {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs)])
	p.path = nil
	for f, more := frames.Next(); more; f, more = frames.Next() {
		if name, is := strings.CutPrefix(f.Function, "ddtb/db."); is {
			p.path = append(p.path, name)
		}
	}
	slices.Reverse(p.path)
	return ctx
}

func (p *pathTracer) TraceAcquireEnd(context.Context, *pgxpool.Pool, pgxpool.TraceAcquireEndData) {}

func TestFourFramesLieBetweenAQueryAndTheDriver(t *testing.T) {
	want := []string{"(*DB).Query", "(*DB).onLease", "(*DB).lease", "(*Source).acquire", "(*pool).Acquire"}
	for name, set := range map[string]func(*config.Database){"pool": pool, "pool, for the request": poolRequest} {
		t.Run(name, func(t *testing.T) {
			cfg := dbtest.Config(t)
			set(&cfg)
			tracer := &pathTracer{}
			d, err := db.OpenWith(cfg, db.Options{Tracer: tracer})
			must(t, err)
			defer func() { _ = d.Close(context.Background()) }()
			request, end := d.Begin(t.Context())
			defer end()
			for _, ctx := range []context.Context{request, t.Context()} {
				rows, err := d.Query(ctx, "SELECT 1")
				must(t, err)
				rows.Close()
				if !slices.Equal(tracer.path, want) {
					t.Errorf("%q\nwant %q", tracer.path, want)
				}
			}
		})
	}
}
