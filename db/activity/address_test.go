package activity

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"

	"ddtb/config"
	"ddtb/db"
)

// TestEachPlaceHasOneNameHoweverItIsWritten holds the two sides together: a server that reads its configuration, and
// db-connections with the same file, a URL or keywords.
func TestEachPlaceHasOneNameHoweverItIsWritten(t *testing.T) {
	sockets := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(sockets, link))
	standard, err := pgx.ParseConfig("user=www dbname=polls") // the directory of this machine's sockets, or localhost
	must(t, err)
	names := map[string]string{}
	for place, c := range map[string]struct {
		configured []config.Database
		dsn        []string
	}{
		"no host": {
			[]config.Database{{}, {Host: standard.Host}, {Host: standard.Host, Port: 5432}},
			[]string{"user=www dbname=polls", "postgres://www@/polls"},
		},
		"a socket's directory": {
			[]config.Database{{Host: sockets}, {Host: sockets + "/", Port: 5432}, {Host: link}},
			[]string{"user=www dbname=polls host=" + link},
		},
		"localhost": {
			[]config.Database{{Host: "localhost", Port: 5433}, {Host: "127.0.0.1", Port: 5433}, {Host: "LOCALHOST", Port: 5433, SSLMode: "disable"}},
			[]string{"postgres://www:secret@localhost:5433/polls?sslmode=require", "host=127.0.0.1 port=5433 user=www dbname=polls"},
		},
		"IPv6": {
			[]config.Database{{Host: "::1", Port: 5434}, {Host: "0:0:0:0:0:0:0:1", Port: 5434}, {Hosts: "[::1]:5434"}},
			[]string{"postgres://www@[::1]:5434/polls"},
		},
		"another port": {[]config.Database{{Host: "127.0.0.1", Port: 5435}}, []string{"postgres://www@127.0.0.1:5435/polls"}},
		"several hosts": {
			[]config.Database{{Hosts: "db1.example:5432,db2.example:5433"}, {Hosts: "DB1.example,db2.example:5433", SSLMode: "disable"}},
			[]string{"postgres://www@db1.example:5432,db2.example:5433/polls", "host=db1.example,db2.example port=5432,5433 user=www dbname=polls"},
		},
		"one of them":      {[]config.Database{{Host: "db1.example"}}, []string{"postgres://www@db1.example/polls"}},
		"past a pooler":    {[]config.Database{{Host: "pool.example", Port: 6432, Pooler: db.PgBouncer, DirectHost: "db3.example", DirectPort: 5432}}, []string{"postgres://www@db3.example/polls"}},
		"another database": {[]config.Database{{Host: "db1.example", Name: "shop"}}, []string{"postgres://www@db1.example/shop"}},
		"the user's own":   {[]config.Database{{Host: "db1.example", Name: "www"}}, []string{"postgres://www@db1.example"}},
	} {
		t.Run(place, func(t *testing.T) {
			name := ""
			same := func(cc *pgx.ConnConfig, err error) {
				t.Helper()
				must(t, err)
				switch a := addressOf(cc); {
				case name == "":
					name = a
				case a != name:
					t.Errorf("%s, and %s", name, a)
				}
			}
			for _, cfg := range c.configured {
				cfg.User = "www"
				if cfg.Name == "" {
					cfg.Name = "polls"
				}
				same(connConfig(cfg))
			}
			for _, dsn := range c.dsn {
				same(pgx.ParseConfig(dsn))
			}
			if other, taken := names[name]; taken {
				t.Errorf("%s has the name of %s: %s", place, other, name)
			}
			names[name] = place
		})
	}
}
