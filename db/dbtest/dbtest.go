// Package dbtest TEMP
package dbtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"ddtb/config"
	"ddtb/db"
)

func Run(m *testing.M) {
	sh := `set -e; rm -rf /tmp/dbt; mkdir -p /tmp/dbt; chown postgres /tmp/dbt; cd /tmp/dbt; echo pw > pw; chmod 644 pw
setpriv --reuid=postgres --regid=postgres --clear-groups /usr/lib/postgresql/15/bin/initdb -D /tmp/dbt/d -A scram-sha-256 --pwfile=/tmp/dbt/pw -U postgres --no-sync >/dev/null
setpriv --reuid=postgres --regid=postgres --clear-groups /usr/lib/postgresql/15/bin/pg_ctl -D /tmp/dbt/d -w -o "-p 54329 -k /tmp/dbt -c fsync=off -c max_connections=100" -l /tmp/dbt/log start >/dev/null`
	if out, err := exec.Command("bash", "-c", sh).CombinedOutput(); err != nil {
		fmt.Println(string(out))
		panic(err)
	}
	code := m.Run()
	exec.Command("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "/usr/lib/postgresql/15/bin/pg_ctl", "-D", "/tmp/dbt/d", "-m", "immediate", "stop").Run()
	os.Exit(code)
}

var n atomic.Int64

func super(t testing.TB, name string) *pgx.Conn {
	c, err := pgx.Connect(context.Background(), "postgres://postgres:pw@127.0.0.1:54329/"+name+"?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

func Config(t testing.TB) config.Database {
	name := fmt.Sprintf("t%d", n.Add(1))
	c := super(t, "postgres")
	for _, sql := range []string{"CREATE ROLE " + name + " LOGIN PASSWORD 'pw'", "CREATE DATABASE " + name + " OWNER " + name} {
		if _, err := c.Exec(context.Background(), sql); err != nil {
			t.Fatal(err)
		}
	}
	return config.Database{Name: name, User: name, Password: "pw", Host: "127.0.0.1", Port: 54329, SSLMode: "disable", ApplicationName: "ddtb",
		ConnectTimeout: 5e9, Strategy: "pool", Pool: config.Pool{MaxSize: 10, Timeout: 10e9, MaxWaiting: 100, MaxLifetime: 3600e9, MaxIdle: 1800e9, HealthCheckPeriod: 60e9, Hold: "query"},
		Persistent: config.Persistent{ConnMaxAge: 600e9}, PerRequest: config.PerRequest{Timeout: 10e9}}
}

func Open(t testing.TB) *db.DB {
	d, err := db.Open(context.Background(), Config(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close(context.Background()) })
	return d
}

func Control(t testing.TB, cfg config.Database) *pgx.Conn { return super(t, cfg.Name) }

func Backends(t testing.TB, c *pgx.Conn, app string) (n int) {
	if err := c.QueryRow(context.Background(), "select count(*) from pg_stat_activity where application_name=$1", app).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
