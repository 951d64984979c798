package db_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/db"
	"ddtb/db/dbtest"
)

func TestAFailedConnectIsTheCallersErrorAsItIs(t *testing.T) {
	dbtest.NoLeaks(t)
	refused := errors.New("refused")
	m := db.NewMultiplexer(db.MultiplexSettings{}, func(context.Context) (*pgx.Conn, error) { return nil, refused }, func(*pgx.Conn) {})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := m.Query(context.Background(), `SELECT 1`); err != refused { //nolint:errorlint // as it is
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := m.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestACallerLeavesAConnectThatNeverEnds(t *testing.T) {
	dbtest.NoLeaks(t)
	m := db.NewMultiplexer(db.MultiplexSettings{}, func(ctx context.Context) (*pgx.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}, func(*pgx.Conn) {})
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := m.Query(ctx, `SELECT 1`); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if err := m.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestCallersBeyondMaxInFlightAreServedInTurnOrLeave(t *testing.T) {
	m := newMuxTest(t, db.MultiplexSettings{Connections: 1, MaxInFlight: 2})
	m.echo(0)
	for attempt := 0; !m.callerWaitsAndLeaves(attempt); attempt++ {
		if attempt == 100 {
			t.Fatal("no caller had to wait in 100 attempts")
		}
	}
	if s := m.Stat(); s.Waiting != 0 {
		t.Errorf("%+v", s)
	}
}

// callerWaitsAndLeaves fills the connection for a moment. It reports whether another caller had to wait meanwhile, and
// then left.
func (m *muxTest) callerWaitsAndLeaves(attempt int) bool {
	var all sync.WaitGroup
	defer all.Wait()
	ctx, leave := context.WithCancel(m.Context())
	defer leave()
	query := func(ctx context.Context, sql string) <-chan error {
		ended := make(chan error, 1)
		all.Go(func() {
			_, err := m.Query(ctx, sql)
			ended <- err
		})
		return ended
	}
	sleep := func(n int) string { return fmt.Sprintf(`SELECT pg_sleep(0.05) /* %d, %d */`, attempt, n) }
	first, _ := query(m.Context(), sleep(1)), query(m.Context(), sleep(2))
	if !m.seen(func(s db.Stat) bool { return s.InFlight == 2 }, first) {
		return false
	}
	third := query(ctx, `SELECT 1`)
	if !m.seen(func(s db.Stat) bool { return s.Waiting == 1 }, third) {
		return false
	}
	all.Go(func() { m.echo(2) })
	leave()
	if err := <-third; !errors.Is(err, context.Canceled) {
		m.Error(err)
	}
	return true
}

// seen waits until the figures are as is says, or the query has ended.
func (m *muxTest) seen(is func(db.Stat) bool, ended <-chan error) bool {
	for {
		if is(m.Stat()) {
			return true
		}
		select {
		case err := <-ended:
			m.Log("the machine is busy: the query ended too soon:", err)
			return false
		case <-time.After(time.Millisecond):
		}
	}
}

func TestClosingAMultiplexer(t *testing.T) {
	t.Run("waits for the queries in flight", func(t *testing.T) {
		m := newMuxTest(t, db.MultiplexSettings{})
		var answered atomic.Bool
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := m.Query(context.Background(), `SELECT pg_sleep(0.3)`)
			answered.Store(err == nil)
		})
		dbtest.Eventually(t, "it runs", func() bool { return m.count("wait_event = 'PgSleep'") == 1 })
		if err := m.Close(t.Context()); err != nil {
			t.Error(err)
		}
		wg.Wait()
		if !answered.Load() {
			t.Error("the query in flight was cut short")
		}
	})
	t.Run("cuts them short when its time is over", func(t *testing.T) {
		m := newMuxTest(t, db.MultiplexSettings{})
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := m.Query(context.Background(), `SELECT pg_sleep(3600)`); !errors.Is(err, db.ErrMultiplexClosed) {
				t.Error(err)
			}
		})
		dbtest.Eventually(t, "it runs", func() bool { return m.count("wait_event = 'PgSleep'") == 1 })
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := m.Close(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		wg.Wait()
	})
	t.Run("takes no more queries", func(t *testing.T) {
		m := newMuxTest(t, db.MultiplexSettings{})
		for range 2 {
			if err := m.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if _, err := m.Query(t.Context(), `SELECT 1`); !errors.Is(err, db.ErrMultiplexClosed) {
			t.Error(err)
		}
	})
}

func TestAServerThatHangsCostsCallersNoMoreThanTheirDeadline(t *testing.T) {
	server := dbtest.NewServer(t, dbtest.Options{})
	cfg := server.Config(t)
	cc := muxConfig(t, cfg)
	cc.ConnectTimeout = time.Second
	m := openMultiplexerWith(t, cc, db.MultiplexSettings{})
	if _, err := muxNumber(t.Context(), m, `SELECT 1`); err != nil {
		t.Fatal(err)
	}
	server.Pause(t)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			begin := time.Now()
			if _, err := m.Query(ctx, `SELECT 1`); err == nil {
				t.Error("an answer")
			}
			if took := time.Since(begin); took > 2*time.Second {
				t.Error(took)
			}
		})
	}
	wg.Wait()
	server.Resume(t)
	dbtest.Eventually(t, "it serves again", func() bool {
		_, err := muxNumber(t.Context(), m, `SELECT 1`)
		return err == nil
	})
	server.Restart(t, dbtest.Immediate)
	dbtest.Eventually(t, "it serves after a restart", func() bool {
		_, err := muxNumber(t.Context(), m, `SELECT 1`)
		return err == nil
	})
}
