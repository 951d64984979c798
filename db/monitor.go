package db

import (
	"context"
	"sync"

	"github.com/jackc/pgx/v5"
)

// monitor keeps one connection outside of the strategies. It is the Control of a Source without Options.Control.
type monitor struct {
	settings func() Settings // of the server, which may change between two calls
	name     string          // in application_name, after the settings' own
	turn     sync.Mutex
	of       Settings
	conn     *pgx.Conn
}

// do implements Control.
func (m *monitor) do(ctx context.Context, f func(*pgx.Conn) error) (err error) {
	m.turn.Lock()
	defer m.turn.Unlock()
	if now := m.settings(); now != m.of {
		m.disconnect()
		m.of = now
	}
	if m.conn == nil || m.conn.IsClosed() {
		if m.conn, err = m.connect(ctx); err != nil {
			return err
		}
	}
	return f(m.conn)
}

func (m *monitor) connect(ctx context.Context) (*pgx.Conn, error) {
	cc, err := ConnConfig(m.of, m.of.ApplicationName+"/"+m.name)
	if err != nil {
		return nil, err
	}
	return Connect(ctx, cc)
}

func (m *monitor) close() {
	m.turn.Lock()
	defer m.turn.Unlock()
	m.disconnect()
}

func (m *monitor) disconnect() {
	if m.conn != nil {
		Disconnect(m.conn)
		m.conn = nil
	}
}
