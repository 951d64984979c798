// Package activity looks at a server's sessions from outside: how many slots there are, and who has them. It
// promises to need one connection at most, opened early and kept, so that it still sees when no slot is left.
// It must not know strategies, requests or pages.
package activity

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/config"
	"ddtb/db"
)

// Slots is how the server's slots stand.
type Slots struct {
	Max      int `json:"max_connections"`
	Reserved int `json:"reserved"` // for superusers and for roles with pg_use_reserved_connections
	Used     int `json:"used"`     // by client backends, our own among them
}

// Usable slots are those that an ordinary role can get.
func (s Slots) Usable() int { return s.Max - s.Reserved }

// Free is how many an ordinary role could still get.
func (s Slots) Free() int { return max(0, s.Usable()-s.Used) }

// Utilisation is the share of the usable slots that are used, in percent; over 100 when reserved ones are too.
func (s Slots) Utilisation() float64 { return 100 * float64(s.Used) / float64(max(1, s.Usable())) }

// retryAfter is how long a failed attempt to connect is answered from memory: looking must not add to a crowd.
const retryAfter = time.Second

// Observer keeps one connection open to look at the server. It is safe for concurrent use; queries take turns.
type Observer struct {
	cc     *pgx.ConnConfig
	turn   chan struct{} // holds a token when nobody queries
	conn   *pgx.Conn
	failed time.Time // when connecting failed last
	why    error
}

// NewObserver makes an Observer of cfg's server. It connects at the first query: ask early.
func NewObserver(cfg config.Database) (*Observer, error) {
	cc, err := db.ConnConfig(cfg, cfg.ApplicationName+"/monitor")
	if err != nil {
		return nil, err
	}
	o := &Observer{cc: cc, turn: make(chan struct{}, 1)}
	o.turn <- struct{}{}
	return o, nil
}

// Do runs f with the connection. A connection that turns out to be dead, after a restart of the server say, is
// replaced once.
func (o *Observer) Do(ctx context.Context, f func(*pgx.Conn) error) error {
	select {
	case <-o.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { o.turn <- struct{}{} }()
	kept := o.conn != nil
	if err := o.connect(ctx); err != nil {
		return err
	}
	err := f(o.conn)
	if err == nil || !o.conn.IsClosed() {
		return err
	}
	o.conn = nil
	if !kept || ctx.Err() != nil {
		return err
	}
	if err := o.connect(ctx); err != nil {
		return err
	}
	return f(o.conn)
}

func (o *Observer) connect(ctx context.Context) error {
	if o.conn != nil && !o.conn.IsClosed() {
		return nil
	}
	if time.Since(o.failed) < retryAfter {
		return o.why
	}
	conn, err := db.Connect(ctx, o.cc)
	if err != nil {
		if ctx.Err() == nil {
			o.failed, o.why = time.Now(), err
		}
		return err
	}
	o.conn, o.why = conn, nil
	return nil
}

// slotsSQL counts as the server does: what has a database and a user is a client's backend, also where our role
// may not see its type.
const slotsSQL = `
SELECT current_setting('max_connections')::int,
       current_setting('superuser_reserved_connections')::int
         + coalesce(current_setting('reserved_connections', true)::int, 0),
       (SELECT count(*) FROM pg_stat_activity
        WHERE backend_type = 'client backend' OR backend_type IS NULL AND datid IS NOT NULL AND usesysid IS NOT NULL)`

// Slots counts the server's slots.
func (o *Observer) Slots(ctx context.Context) (Slots, error) {
	var s Slots
	err := o.Do(ctx, func(c *pgx.Conn) error {
		return c.QueryRow(ctx, slotsSQL).Scan(&s.Max, &s.Reserved, &s.Used)
	})
	if err != nil {
		return Slots{}, fmt.Errorf("count the slots: %w", err)
	}
	return s, nil
}

// Backends counts the backends of one application_name.
func (o *Observer) Backends(ctx context.Context, application string) (n int, err error) {
	err = o.Do(ctx, func(c *pgx.Conn) error {
		return c.QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity WHERE application_name = $1`, application).Scan(&n)
	})
	if err != nil {
		return 0, fmt.Errorf("count the backends of %s: %w", application, err)
	}
	return n, nil
}

// Close gives the slot back.
func (o *Observer) Close() {
	<-o.turn
	defer func() { o.turn <- struct{}{} }()
	if o.conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = o.conn.Close(ctx)
		o.conn = nil
	}
}
