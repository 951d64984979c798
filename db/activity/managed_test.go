package activity

import (
	"context"
	"fmt"
	"strings"
	"testing"
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
