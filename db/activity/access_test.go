package activity

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

func TestEachKindOfFullServerHasWaysInThatItsVersionHas(t *testing.T) {
	cc, err := pgx.ParseConfig("host=db port=5433 user=www dbname=shop sslmode=disable")
	must(t, err)
	for name, c := range map[string]struct {
		routine, message string
		first, has       string
		lacks            string
	}{
		"until 15, only superusers have slots left": {
			routine: "InitPostgres", message: "remaining connection slots are reserved for non-replication superuser connections",
			first: "sudo -u postgres psql -h /var/run/postgresql -p 5433 ", has: "budget", lacks: "reserved_connections",
		},
		"the same in German": {
			routine: "InitPostgres", message: "die verbleibenden Verbindungen sind für Superuser auf Nicht-Replikationsverbindungen reserviert",
			first: "sudo -u postgres psql", has: "budget", lacks: "reserved_connections",
		},
		"from 16 on, only superusers have slots left": {
			routine: "InitPostgres", message: "remaining connection slots are reserved for roles with the SUPERUSER attribute",
			first: "sudo -u postgres psql", has: `GRANT pg_use_reserved_connections TO "www"`,
		},
		"from 16 on, some slots are for invited roles": {
			routine: "InitPostgres", message: `remaining connection slots are reserved for roles with privileges of the "pg_use_reserved_connections" role`,
			first: `GRANT pg_use_reserved_connections TO "www"`, has: "running ddtb server",
		},
		"nobody has a slot": {
			routine: "InitProcess", message: "sorry, too many clients already",
			first: "running ddtb server", has: "restart the server", lacks: "reserved_connections",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := NoAccess(&pgconn.PgError{Code: "53300", Routine: c.routine, Message: c.message}, cc, "")
			all := fmt.Sprint(r.Ways)
			if !strings.Contains(r.Ways[0].String(), c.first) || !strings.Contains(all, c.has) {
				t.Errorf("it lacks %q first, or %q:\n%s", c.first, c.has, all)
			}
			if c.lacks != "" && strings.Contains(all, c.lacks) || strings.Contains(all, "sudo -u postgres ddtb") {
				t.Errorf("it has %q, or runs ddtb as another user:\n%s", c.lacks, all)
			}
		})
	}
}

func TestAWayInAsSuperuserIsForItsServer(t *testing.T) {
	for name, c := range map[string]struct{ host, passFile, begins string }{
		"a server that listens on the network": {"db", "", "sudo -u postgres psql -h /var/run/postgresql -p 5433 -U postgres "},
		"a server with a socket of its own":    {"/run/pg", "", "sudo -u postgres psql -h /run/pg -p 5433 -U postgres "},
		"the login of the superuser itself":    {"/run/pg user=postgres", "", "sudo -u postgres psql -h /run/pg -p 5433 -U postgres "},
		"a private server":                     {"127.0.0.1", "/a dir/pgpass", "PGPASSFILE='/a dir/pgpass' psql -h 127.0.0.1 -p 5433 -U postgres "},
	} {
		cc, err := pgx.ParseConfig("port=5433 user=www dbname=shop sslmode=disable host=" + c.host)
		must(t, err)
		full := &pgconn.PgError{Code: "53300", Routine: "InitPostgres", Message: "remaining connection slots are reserved"}
		if got := NoAccess(full, cc, c.passFile).Ways[0].Command; !strings.HasPrefix(got, c.begins) {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestNoStepNeedsTheMachineOfAProvider(t *testing.T) {
	for _, host := range []string{"shop.abc123.eu-west-1.rds.amazonaws.com", "shop.postgres.database.azure.com"} {
		cc, err := pgx.ParseConfig("host=" + host + " port=5432 user=www dbname=shop sslmode=disable")
		must(t, err)
		for routine, first := range map[string]string{
			"InitPostgres": "some providers reserve", "InitProcess": "a running ddtb server", "BackendInitialize": "which machines",
			"CheckMyDatabase": "see who has them", "InitializeSessionUserId": "see who has them",
		} {
			t.Run(host+" "+routine, func(t *testing.T) {
				ways := NoAccess(&pgconn.PgError{Code: "53300", Routine: routine}, cc, "").Ways
				if !strings.Contains(ways[0].Do, first) {
					t.Errorf("it lacks %q: %v", first, ways[0])
				}
				for _, way := range ways {
					if strings.Contains(way.String(), "sudo") || strings.Contains(way.String(), "machine, ") || strings.Contains(way.String(), "ss -") {
						t.Error(way)
					}
					if strings.HasPrefix(way.Command, "psql") && !strings.HasPrefix(way.Command, "psql -h "+host+` -p 5432 -U "$ADMIN" -d shop `) {
						t.Error(way)
					}
				}
			})
		}
	}
}
