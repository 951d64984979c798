package db

import (
	"cmp"
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// What the tests of the multiplexer need of it: they import dbtest, which imports this package.
type Multiplexer = multiplexer

var (
	ErrUnsuitable       = errUnsuitable
	ErrMultiplexClosed  = errMultiplexClosed
	MultiplexStuckAfter = muxStuck
)

func (m *multiplexer) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	return m.query(ctx, sql, args)
}

// Freeze lets nothing proceed for a time, as when the process is stopped.
func (m *multiplexer) Freeze(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	<-time.After(d)
}

// Hold lets every call wait until release.
func (m *multiplexer) Hold() (release func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	most := m.settings.MaxInFlight
	m.settings.MaxInFlight = 0
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.settings.MaxInFlight = most
		m.dispatch()
	}
}

// SetPatience sets how long a statement may run before the calls behind it are moved.
func (m *multiplexer) SetPatience(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stuckAfter = d
}

// Offers returns how many calls can be joined.
func (m *multiplexer) Offers() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.offers)
}

// SetTimeout sets the time limit of one statement.
func (m *multiplexer) SetTimeout(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.timeout = d
}

func (m *multiplexer) Close(ctx context.Context) error { return m.close(ctx) }

func (m *multiplexer) Stat() (s Stat) {
	m.addStat(&s)
	m.mu.Lock()
	defer m.mu.Unlock()
	s.Waiting = m.waiters
	return s
}

// NewMultiplexer takes the defaults for settings that are 0.
func NewMultiplexer(s MultiplexSettings, connect func(context.Context) (*pgx.Conn, error), closeConn func(*pgx.Conn)) *Multiplexer {
	d := defaultMultiplex
	s.Connections, s.MaxInFlight = cmp.Or(s.Connections, d.Connections), cmp.Or(s.MaxInFlight, d.MaxInFlight)
	s.MaxResult = cmp.Or(s.MaxResult, d.MaxResult)
	return newMultiplexer(s, connect, closeConn)
}

func Retryable(err error) bool { return CauseOf(err) == ServerUnavailable || retryable(err) }
