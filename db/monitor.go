package db

import (
	"context"
	"sync"

	"github.com/jackc/pgx/v5"
)

// monitor is the Control of a Source without Options.Control.
type monitor struct {
	cc   *pgx.ConnConfig
	turn sync.Mutex
	conn *pgx.Conn
}

func newMonitor(s Settings) (*monitor, error) {
	cc, err := ConnConfig(s, s.ApplicationName+"/monitor")
	return &monitor{cc: cc}, err
}

// do implements Control.
func (m *monitor) do(ctx context.Context, f func(*pgx.Conn) error) (err error) {
	m.turn.Lock()
	defer m.turn.Unlock()
	if m.conn == nil || m.conn.IsClosed() {
		if m.conn, err = Connect(ctx, m.cc); err != nil {
			m.conn = nil
			return err
		}
	}
	return f(m.conn)
}

func (m *monitor) close() {
	m.turn.Lock()
	defer m.turn.Unlock()
	if m.conn != nil {
		closeConn(m.conn)
	}
}
