package db

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// The queries of pollServer. The timeline distinguishes servers that were one server before a failover. The WAL receiver's
// timeline is current, and visible to members of pg_monitor. Otherwise the timeline of the last restart point is used,
// which is at most checkpoint_timeout old.
const (
	primarySQL = `SELECT pg_is_in_recovery(), pg_current_wal_insert_lsn()::text, (SELECT system_identifier::text FROM pg_control_system()),
		current_database(), pg_postmaster_start_time()::text, ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int`
	replicaSQL = `SELECT pg_is_in_recovery(), coalesce(pg_last_wal_replay_lsn(), '0/0')::text, (SELECT system_identifier::text FROM pg_control_system()),
		current_database(), pg_postmaster_start_time()::text, coalesce((SELECT received_tli FROM pg_stat_wal_receiver), (SELECT timeline_id FROM pg_control_checkpoint()))`
)

// seenServer is the result of primarySQL or replicaSQL.
type seenServer struct {
	recovers bool
	position Position
	started  string // when: it distinguishes servers with the same identity
	identity
}

// identity is common to a primary and its replicas.
type identity struct {
	system   string // pg_control_system
	database string
	timeline uint32
}

// pollServer polls a server over a connection of its own, until ctx ends. rush requests the next poll early.
func pollServer(ctx context.Context, settings func() Settings, sql string, rush <-chan struct{}, saw func(seenServer, error)) {
	m := newPollConn(settings)
	defer m.close()
	for {
		got, err := ask(ctx, m, sql)
		if ctx.Err() != nil {
			return
		}
		saw(got, err)
		if err != nil { // with another connection it may reach another server
			m.close()
		}
		if !pauseFor(ctx, replicaRush, nil) || !pauseFor(ctx, replicaPoll-replicaRush, rush) {
			return
		}
	}
}

// newPollConn returns the connection by which a server is polled.
func newPollConn(settings func() Settings) *monitor {
	return &monitor{name: "replication", settings: func() Settings {
		s := settings()
		s.ConnectTimeout = min(s.ConnectTimeout, replicaSilence)
		return s
	}}
}

// pauseFor waits for d, or until rush receives. It reports false if ctx ends.
func pauseFor(ctx context.Context, d time.Duration, rush <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-rush:
	case <-ctx.Done():
		return false
	}
	return true
}

// ask queries the server's position. The simple protocol also works through a pooler.
func ask(ctx context.Context, m *monitor, sql string) (got seenServer, err error) {
	err = m.do(ctx, func(conn *pgx.Conn) error {
		ctx, cancel := context.WithTimeout(ctx, replicaSilence)
		defer cancel()
		var text string
		var timeline pgtype.Int8
		err := conn.QueryRow(ctx, sql, pgx.QueryExecModeSimpleProtocol).
			Scan(&got.recovers, &text, &got.system, &got.database, &got.started, &timeline)
		got.timeline = uint32(timeline.Int64)
		got.position, _ = ParsePosition(text)
		return err
	})
	return got, err
}
