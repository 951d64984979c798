package db

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// Multiplex is the name of the strategy that sends declared reads, those through DB.Read, over a few connections that
// all requests share. Each read has its own Sync, and does not wait for the answers to earlier reads. 500 readers at
// once need two slots. Reads of the same statement and arguments that wait to be sent are sent once, and share the
// answer. Transactions and all other statements use leases of a pool, by its settings.
//
// Under a budget, a shared connection gets a ticket only if another is left for leases. Until one is open, reads use the
// pool.
//
// It is not for slow statements, large results, or statements that need a session. Such a read is detected, and uses a
// lease of the pool the next time.
const Multiplex = "multiplex"

// MultiplexSettings are the settings of Multiplex. Under the other strategies, MaxResult bounds the memory that a
// DB.Read uses.
type MultiplexSettings struct {
	Connections int   `toml:"connections" allow:"1..1000"`     // shared by all reads
	MaxInFlight int   `toml:"max_in_flight" allow:"1..100000"` // statements sent and not yet answered, per connection
	MaxResult   Bytes `toml:"max_result" allow:"1KiB..1GiB"`   // a larger result is read again, with a lease of its own
}

var defaultMultiplex = MultiplexSettings{Connections: 2, MaxInFlight: 256, MaxResult: 4 << 20}

func init() {
	spec := poolSpec()
	show := spec.Show
	spec.Name, spec.Description = Multiplex, "reads of all requests share a few connections, transactions have a pool"
	spec.Backends = func(s Settings) int {
		if s.Pool.MaxSize == Auto {
			return s.Budget
		}
		return s.Pool.MaxSize + s.Multiplex.Connections
	}
	spec.Show = func(s Settings) []Setting {
		m := s.Multiplex
		return append([]Setting{
			{Key: "multiplex.connections", Title: "Shared connections", Help: "All reads share them.", Value: m.Connections},
			{Key: "multiplex.max_in_flight", Title: "In flight", Help: "Statements under way on each; more wait.", Value: m.MaxInFlight},
		}, show(s)...)
	}
	check := spec.Check
	spec.Check = func(s Settings) error {
		m := s.Multiplex
		return errors.Join(check(s), within("multiplex.connections", m.Connections, 1, 1000),
			atLeast("multiplex.max_in_flight", m.MaxInFlight, 1), atLeast("multiplex.max_result", m.MaxResult, 1024))
	}
	spec.New = func(s Settings, c *Connector) (Strategy, error) {
		p, err := newPool(s, c)
		if err != nil {
			return nil, err
		}
		m := newMultiplexer(s.Multiplex, p.connect, c.CloseConn)
		m.timeout, m.lifetime = s.QueryTimeout, s.Pool.MaxLifetime
		m.ticketed = c.tickets != nil
		return &multiplexed{pool: p, shared: m}, nil
	}
	Register(spec)
}

// multiplexed is a pool, with shared connections for reads.
type multiplexed struct {
	*pool
	shared *multiplexer
	reads  atomic.Int64
}

// connect makes a connection that reads share, within the timeout and outside of pgxpool. Under a budget, its ticket is not
// for a lease.
func (p *pool) connect(ctx context.Context) (*pgx.Conn, error) {
	began := time.Now()
	ctx = withoutLease(ctx)
	within, cancel := context.WithTimeoutCause(ctx, p.timeout, poolTimeout(p.timeout))
	defer cancel()
	conn, err := p.Connect(within)
	return conn, p.explain(ctx, within, began, err)
}

// Refresh also closes the shared connections. Running reads are sent again on new ones.
func (m *multiplexed) Refresh(ctx context.Context) {
	m.shared.refresh(func(*pgx.Conn) bool { return true })
	m.pool.Refresh(ctx)
}

// shrink also closes shared connections. Running reads are sent again.
func (m *multiplexed) shrink() {
	m.pool.shrink()
	m.shared.refresh(m.tickets.revoke)
}

// Retire waits for running reads until ctx ends.
func (m *multiplexed) Retire(ctx context.Context) {
	var both sync.WaitGroup
	both.Go(func() { m.pool.Retire(ctx) })
	_ = m.shared.close(ctx) // aborted reads are retried with a lease
	both.Wait()
}

func (m *multiplexed) addStat(s *Stat) {
	m.pool.addStat(s)
	m.shared.addStat(s)
	s.Reads = m.reads.Load()
}
