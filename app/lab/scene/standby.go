package scene

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/localpg"
)

// Standby is a synchronous streaming replica of the server: an acknowledged commit is on both.
type Standby struct {
	stage *Stage
	pg    *localpg.Server // nil: it did not start, which has failed the stage
}

// Standby restarts the server with a standby, until the end of the half. Call it before any connection is opened.
func (s *Stage) Standby() *Standby {
	b := &Standby{stage: s}
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	if err := b.start(s.ctx, s.server); err != nil {
		s.Failed(fmt.Errorf("the standby: %w", err))
	}
	return b
}

// start starts the standby on a copy of the server's data, and restarts the server so that a commit waits for it.
func (b *Standby) start(ctx context.Context, server *Server) error {
	b.stage.Afterwards(server.withoutStandby)
	server.options.Settings = maps.Clone(settings)
	server.options.Settings["synchronous_standby_names"] = "*"
	server.options.Settings["synchronous_commit"] = "on"
	if err := server.pg.Stop(ctx); err != nil { // in order, so that the new table is on disk
		return err
	}
	options := server.options
	options.Dir, options.Port, options.Settings, options.ReplicaOf = filepath.Join(server.dir, "standby"), 0, settings, server.pg
	b.stage.Afterwards(func() { _ = os.RemoveAll(options.Dir) })
	var err error
	if b.pg, err = localpg.Start(ctx, options); err != nil {
		return errors.Join(err, server.restart(ctx))
	}
	b.stage.Afterwards(func() { _ = b.pg.Crash(context.WithoutCancel(ctx)) })
	if err := server.restart(ctx); err != nil {
		return err
	}
	return until(ctx, "it does not follow", func(ctx context.Context) (follows bool, err error) {
		err = server.session.QueryRow(ctx, "SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'").Scan(&follows)
		return follows, err
	})
}

// withoutStandby restores the server's settings, and makes the next half restart it.
func (s *Server) withoutStandby() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.options.Settings = settings
	ctx, cancel := context.WithTimeout(context.Background(), stopPatience)
	defer cancel()
	_ = s.stop(ctx) // the failover may have stopped it
}

// Failover crashes the server and promotes the standby. From then on the lab's session is on the standby.
func (b *Standby) Failover() {
	b.stage.server.mu.Lock()
	defer b.stage.server.mu.Unlock()
	if err := b.failover(b.stage.ctx, b.stage.server); err != nil {
		b.stage.Failed(fmt.Errorf("the failover: %w", err))
	}
}

func (b *Standby) failover(ctx context.Context, server *Server) (err error) {
	if err = server.stop(ctx); err != nil {
		return err
	}
	if server.session, err = b.pg.Connect(ctx, appRole); err != nil {
		return err
	}
	_, err = server.session.Exec(ctx, "SELECT pg_promote()")
	return err
}

// Hosts makes the settings name both servers and require a writable one.
func (b *Standby) Hosts(c *config.Database) {
	if b.pg == nil {
		return
	}
	c.Hosts = db.Hosts(fmt.Sprintf("127.0.0.1:%d,127.0.0.1:%d", b.stage.server.pg.Port(), b.pg.Port()))
	c.TargetSessionAttrs = "read-write"
}
