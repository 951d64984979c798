package main

import (
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"ddtb/db"
	"ddtb/db/dbtest"
)

func TestAServerThatEndsWhilePgBouncerPreparesItsSessionIsUnavailable(t *testing.T) {
	t.Parallel()
	m, direct := withDatabase(t)
	b := newBouncerFor(m, direct, direct.User, "default_pool_size = 3", "default_pool_size = 1")
	first := through(t, b, "first")
	var pid int
	if err := first.QueryRow(t.Context(), "SELECT pg_backend_pid()").Scan(&pid); err != nil {
		t.Fatal(err)
	}
	second := through(t, b, "second") // for its name, PgBouncer changes a setting of the one session
	console := consoleOf(t, b)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	answer := make(chan error, 1)
	go func() {
		_, err := second.Exec(t.Context(), "SELECT 1")
		answer <- err
	}()
	dbtest.Eventually(t, "PgBouncer prepares the session", func() bool {
		rows, err := console.Query(t.Context(), "SHOW CLIENTS")
		if err != nil {
			t.Fatal(err)
		}
		clients, err := pgx.CollectRows(rows, pgx.RowToMap)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range clients {
			if c["application_name"] == "second" && c["link"] != "" {
				return true
			}
		}
		return false
	})
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGCONT} {
		if err := syscall.Kill(pid, signal); err != nil {
			t.Fatal(err)
		}
	}
	err := db.Lost(second, <-answer)
	if !strings.Contains(err.Error(), "invalid server parameter") {
		t.Fatalf("PgBouncer says: %v", err)
	}
	if cause := db.CauseOf(err); cause != db.ServerUnavailable {
		t.Errorf("the cause is %q, which does not pass by itself: %v", cause, err)
	}
	if hint := db.Hint(err); !strings.Contains(hint, "PgBouncer's log") {
		t.Errorf("the hint is %q", hint)
	}
}

// through connects through b, under that name.
func through(t *testing.T, b *bouncer, name string) *pgx.Conn {
	t.Helper()
	cc, err := db.ConnConfig(b.cfg, name)
	if err != nil {
		t.Fatal(err)
	}
	return connected(t, cc)
}

// consoleOf connects to b's own console.
func consoleOf(t *testing.T, b *bouncer) *pgx.Conn {
	t.Helper()
	cfg := b.cfg
	cfg.Name = "pgbouncer"
	cc, err := db.ConnConfig(cfg, "console")
	if err != nil {
		t.Fatal(err)
	}
	cc.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	return connected(t, cc)
}

func connected(t *testing.T, cc *pgx.ConnConfig) *pgx.Conn {
	t.Helper()
	conn, err := db.Connect(t.Context(), cc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Disconnect(conn) })
	return conn
}
