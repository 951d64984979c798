package db_test

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/db"
)

// stack is a custom strategy. It keeps idle connections, and reuses the last released one.
type stack struct {
	*db.Connector

	mu      sync.Mutex
	idle    []*pgx.Conn
	epoch   int // connections of an earlier epoch are not reused
	retired bool
}

// stacked is a connection with the epoch in which it was made.
type stacked struct {
	conn  *pgx.Conn
	epoch int
}

func init() {
	db.Register(db.Spec{
		Name:            "stack",
		Description:     "the connection that came back last is used first",
		Size:            func(s db.Settings) int { return s.Pool.MaxSize }, // this enables the queue
		SizeKey:         "pool.max_size",
		Backends:        func(s db.Settings) int { return s.Pool.MaxSize },
		Timeout:         func(s db.Settings) time.Duration { return s.Pool.Timeout },
		HoldsForRequest: func(db.Settings) bool { return false },
		Show: func(s db.Settings) []db.Setting {
			return []db.Setting{
				{Key: "pool.max_size", Title: "Size", Help: "At most so many connections.", Value: s.Pool.MaxSize},
				{Key: "pool.timeout", Title: "Timeout", Help: "How long a request waits, as 10s.", Value: s.Pool.Timeout},
			}
		},
		New: func(_ db.Settings, c *db.Connector) (db.Strategy, error) { return &stack{Connector: c}, nil },
	})
}

func (s *stack) Acquire(ctx context.Context, l *db.Lease) error {
	conn, epoch := s.pop()
	for conn != nil && conn.Ping(ctx) != nil {
		s.CloseConn(conn)
		conn, epoch = s.pop()
	}
	if conn == nil {
		var err error
		if conn, err = s.Connect(ctx); err != nil {
			return err
		}
	}
	l.Attach(conn, stacked{conn, epoch})
	return nil
}

func (s *stack) pop() (*pgx.Conn, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := len(s.idle) - 1
	if last < 0 {
		return nil, s.epoch
	}
	conn := s.idle[last]
	s.idle = s.idle[:last]
	return conn, s.epoch
}

func (s *stack) Release(l *db.Lease) {
	k := l.Owner().(stacked)
	if !l.Reusable() || !s.push(k) {
		s.CloseConn(k.conn)
	}
}

func (s *stack) push(k stacked) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.retired || k.epoch != s.epoch {
		return false
	}
	s.idle = append(s.idle, k.conn)
	return true
}

func (s *stack) Idle() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.idle)
}

func (s *stack) Refresh(context.Context) { s.drop(false) }
func (s *stack) Retire(context.Context)  { s.drop(true) }

func (s *stack) drop(retire bool) {
	s.mu.Lock()
	idle := s.idle
	s.idle, s.retired = nil, s.retired || retire
	s.epoch++
	s.mu.Unlock()
	for _, conn := range idle {
		s.CloseConn(conn)
	}
}

func (*stack) Forget(*db.Lease) {} // its connection was closed elsewhere
func (*stack) Close()           {}

// A custom strategy is one file: it decides where a lease's connection comes from. Its registration adds the queue, the
// leak detection, the reset of sessions, the breaker and the live switch.
func ExampleRegister() {
	d, end := exampleDB(func(s *db.Settings) { s.Strategy = "stack" })
	defer end()
	ctx := context.Background()
	var n int
	for range 3 {
		if err := d.QueryRow(ctx, "SELECT 1").Scan(&n); err != nil {
			fmt.Println(err)
		}
	}
	s := d.Stat()
	fmt.Println(s.Strategy, s.Acquired, s.Connected, s.Idle, s.Size)
	// Output: stack 3 1 1 10
}
