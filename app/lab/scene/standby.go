package scene

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/localpg"
)

// Standby is a synchronous streaming replica of the server: an acknowledged commit is on both.
type Standby struct {
	stage   *Stage
	pg      *localpg.Server // nil: it did not start, which has failed the stage
	primary int             // the server's port
}

var (
	// forReplication are the settings of the standby, and of the server while it has one.
	forReplication = map[string]string{"wal_level": "replica", "max_wal_senders": "4"}
	// synchronous are additional settings of the server: a commit waits for the standby.
	synchronous = map[string]string{"synchronous_standby_names": "*", "synchronous_commit": "on"}
)

// Standby restarts the server with a standby, until the end of the half. Call it before any connection is opened.
func (s *Stage) Standby() *Standby {
	b := &Standby{stage: s}
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	if err := b.start(s.ctx); err != nil {
		s.Failed(fmt.Errorf("the standby: %w", err))
	}
	return b
}

// start restarts the server for replication, and starts the standby on a copy of its data.
func (b *Standby) start(ctx context.Context) error {
	server := b.stage.server
	options := server.options
	options.Dir, options.Port = filepath.Join(server.dir, "standby"), 0
	b.stage.Afterwards(server.withoutStandby(options.Settings))
	b.stage.Afterwards(func() { _ = os.RemoveAll(options.Dir) })
	server.options.Settings = with(options.Settings, forReplication, synchronous)
	if err := server.pg.Stop(ctx); err != nil {
		return err
	}
	if err := server.start(ctx); err != nil {
		return err
	}
	b.primary = server.pg.Port()
	options.Settings, options.ReplicaOf = with(options.Settings, forReplication), server.pg
	var err error
	if b.pg, err = localpg.Start(ctx, options); err != nil {
		return err
	}
	b.stage.Afterwards(func() { _ = b.pg.Crash(context.WithoutCancel(ctx)) })
	return until(ctx, server.operator, "SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'")
}

// with returns the settings merged with others.
func with(settings map[string]string, others ...map[string]string) map[string]string {
	settings = maps.Clone(settings)
	for _, o := range others {
		maps.Copy(settings, o)
	}
	return settings
}

// until polls until the statement returns true.
func until(ctx context.Context, conn *pgx.Conn, sql string) error {
	for {
		var done bool
		if err := conn.QueryRow(ctx, sql).Scan(&done); err != nil || done {
			return err
		}
		if err := Sleep(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

// withoutStandby restores the server's settings, and makes the next half restart it.
func (s *Server) withoutStandby(settings map[string]string) func() {
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.options.Settings = settings
		ctx, cancel := context.WithTimeout(context.Background(), stopPatience)
		defer cancel()
		_ = s.stop(ctx) // the failover may have stopped it
	}
}

// Failover crashes the server and promotes the standby.
func (b *Standby) Failover() {
	if b.pg == nil {
		return
	}
	b.stage.server.mu.Lock()
	defer b.stage.server.mu.Unlock()
	err := b.stage.server.stop(b.stage.ctx)
	if err == nil {
		_, err = b.Int("SELECT count(pg_promote())")
	}
	if err != nil && b.stage.ctx.Err() == nil {
		b.stage.Failed(fmt.Errorf("the failover: %w", err))
	}
}

// Int returns the result of a superuser's statement on the standby.
func (b *Standby) Int(sql string) (n int, err error) {
	if b.pg == nil {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(b.stage.ctx, stopPatience)
	defer cancel()
	conn, err := b.pg.Connect(ctx, database)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close(ctx) }()
	return n, conn.QueryRow(ctx, sql).Scan(&n)
}

// Hosts makes the settings name both servers and require a writable one.
func (b *Standby) Hosts(c *config.Database) {
	if b.pg == nil {
		return
	}
	c.Hosts = db.Hosts(fmt.Sprintf("127.0.0.1:%d,127.0.0.1:%d", b.primary, b.pg.Port()))
	c.TargetSessionAttrs = "read-write"
}
