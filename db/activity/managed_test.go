package activity

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"ddtb/db/localpg"
)

func TestAnIncreaseThatWaitsForARestartIsNamed(t *testing.T) {
	for _, newest := range []bool{false, true} {
		s, err := startServer(t.Context(), fmt.Sprintf("pending-%v", newest), newest) // its flag can't be taken back
		must(t, err)
		t.Run(s.name, func(t *testing.T) {
			defer func() { must(t, s.Crash(context.Background())) }()
			control, err := s.Connect(t.Context(), "postgres")
			must(t, err)
			defer func() { _ = control.Close(t.Context()) }()
			o := s.observer(t, app)
			before := snapshot(t, o)
			exec(t, control, "ALTER SYSTEM SET max_connections = 200")
			exec(t, control, "SELECT pg_reload_conf()")
			after := pollUntil(t, o, "the change waits", func(now Snapshot) bool { return now.Server.Pending })
			for want, now := range map[bool]Snapshot{false: before, true: after} {
				now.Slots.Used = now.Slots.Max
				if what := Assess(now, nil, defaults()).Findings[0].What; strings.Contains(what, "max_connections was changed") != want {
					t.Error(what)
				}
			}
		})
	}
}

func TestOnAManagedServerTheCommandsAreForARoleThatCanLogIn(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		made, err := s.Connect(t.Context(), "postgres")
		must(t, err)
		defer func() { _ = made.Close(t.Context()) }()
		exec(t, made, fmt.Sprintf("CREATE ROLE second SUPERUSER LOGIN PASSWORD '%s'; CREATE ROLE cloudsqlagent CREATEROLE LOGIN; CREATE ROLE master CREATEROLE LOGIN", testPassword))
		defer exec(t, made, "DROP ROLE master, second, cloudsqlagent")
		second, err := s.connect(t.Context(), "second", "postgres", "second")
		must(t, err)
		defer func() { _ = second.Close(t.Context()) }()
		exec(t, second, "ALTER ROLE postgres RENAME TO rdsadmin")
		defer exec(t, second, "ALTER ROLE rdsadmin RENAME TO postgres")
		now := snapshot(t, s.observer(t, app))
		if now.Server.Superuser != "master" || !now.Server.Managed {
			t.Errorf("%+v", now.Server)
		}
		if command := now.GrantReadAll(); !strings.Contains(command, "-U master ") {
			t.Error(command)
		}
		if command := now.setSystem("tcp_keepalives_idle = 60"); !strings.HasPrefix(command, "#") {
			t.Error(command)
		}
	})
}

// TestAReaderThatRefusesToTellItsReplayIsRead has functions refuse as Amazon Aurora's do.
func TestAReaderThatRefusesToTellItsReplayIsRead(t *testing.T) {
	primary := servers[0]
	made := primary.session(t, localpg.Superuser, "wall", "made")
	exec(t, made, `CREATE SCHEMA aurora; GRANT USAGE ON SCHEMA aurora TO app;
		CREATE FUNCTION aurora.pg_last_wal_receive_lsn() RETURNS pg_lsn STABLE LANGUAGE plpgsql
		AS $$ BEGIN RAISE feature_not_supported; END $$;
		ALTER ROLE app IN DATABASE wall SET search_path = aurora, pg_catalog, public`)
	defer exec(t, made, "ALTER ROLE app IN DATABASE wall RESET search_path; DROP SCHEMA aurora CASCADE")
	s := standbyOf(t, primary)
	s.streams(t)
	for name, on := range map[string]*server{"the writer": primary, "a reader": s.server} {
		if now := snapshot(t, on.observer(t, app)); now.Slots.Used == 0 || now.Tickets.Held != 0 || now.Server.ReplayLag != 0 {
			t.Errorf("%s: %+v", name, now)
		}
	}
}
