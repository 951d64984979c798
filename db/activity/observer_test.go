package activity

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/localpg"
)

func TestAnObserverMovesToAnotherServerAndKeepsItsConnectionOnTheSame(t *testing.T) {
	first, second := servers[0], servers[1]
	o := first.observer(t, app)
	before := snapshot(t, o)

	first.fill(t, other, "crowd") // so that a connection which is closed has no successor
	for what, change := range map[string]func(*config.Database){
		"strategy":          func(c *config.Database) { c.Strategy, c.Pool.MaxSize = db.Persistent, 7 },
		"statement timeout": func(c *config.Database) { c.StatementTimeout = 7 * time.Second },
		"connect timeout":   func(c *config.Database) { c.ConnectTimeout = 7 * time.Second },
		"password":          func(c *config.Database) { c.Password = "rotated" },
		"application name":  func(c *config.Database) { c.ApplicationName = "shop-2" },
	} {
		cfg := first.config(app, "wall")
		change(&cfg)
		must(t, o.Use(t.Context(), cfg))
		now, err := o.Snapshot(t.Context())
		if err != nil {
			t.Fatalf("another %s: %v", what, err)
		}
		if monitorPID(now) != monitorPID(before) {
			t.Errorf("another %s: backend %d, before %d", what, monitorPID(now), monitorPID(before))
		}
	}

	last := first.config(app, "wall")
	last.ApplicationName = "shop-3"
	must(t, o.Use(t.Context(), last))
	exec(t, first.session(t, localpg.Superuser, "postgres", "closer"), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'crowd'")
	eventually(t, "the monitoring connection is one of the last settings", func() bool {
		return monitorPID(snapshot(t, o)) != monitorPID(before)
	})

	cfg := second.config(reader, "wall")
	cfg.ApplicationName = "kiosk"
	must(t, o.Use(t.Context(), cfg))
	now := snapshot(t, o)
	if now.Server.Version != second.Version() || now.Role.Name != reader || now.Application != "kiosk" || now.Server.Address == before.Server.Address {
		t.Errorf("after the move: %s at %s as %s for %s", now.Server.Version, now.Server.Address, now.Role.Name, now.Application)
	}

	cfg.SSLMode = "no such mode"
	if err := o.Use(t.Context(), cfg); err == nil {
		t.Error("settings that can't be used were taken")
	}
	if again := snapshot(t, o); monitorPID(again) != monitorPID(now) {
		t.Error("settings that can't be used cost the connection")
	}
}

func TestAnObserverRunsAgainOnlyWhatReads(t *testing.T) {
	o := servers[0].observer(t, app)
	ctx := context.Background()
	must(t, o.Do(ctx, func(c *pgx.Conn) error {
		_, err := c.Exec(ctx, "CREATE TEMPORARY TABLE notes (n int); SET statement_timeout = '50ms'", pgx.QueryExecModeSimpleProtocol)
		return err
	}))
	runs := 0
	note := func(c *pgx.Conn) error {
		runs++
		if _, err := c.Exec(ctx, "INSERT INTO notes VALUES (1)"); err != nil {
			return err
		}
		_, err := c.Exec(ctx, "SELECT pg_sleep(0.2)")
		return err
	}
	if err := o.Do(ctx, note); err == nil || runs != 1 {
		t.Errorf("after %d runs: %v", runs, err) // a second run would be rolled back
	}
	runs = 0
	if err := o.Read(ctx, note); err != nil || runs != 2 {
		t.Errorf("as a read, after %d runs: %v", runs, err)
	}
}

func TestAConnectionThatIsLostSoonAfterAFailureIsOpenedAgain(t *testing.T) {
	o := servers[0].observer(t, app)
	o.failed, o.why = time.Now().Add(-retryLost), &db.ConnError{Cause: db.ServerUnavailable}
	snapshot(t, o)
	must(t, o.conn.Close(t.Context()))
	snapshot(t, o)
}
