package db_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/jackc/pgx/v5"

	"ddtb/config"
	"ddtb/db/dbtest"
	"ddtb/db/localpg/system"
)

// throughPgBouncer starts a real PgBouncer in transaction mode, with three connections for all its clients. The
// configuration it returns leads through it, without prepared statements.
func throughPgBouncer(t *testing.T, cfg config.Database) *pgx.ConnConfig {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		program = "/usr/sbin/pgbouncer"
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	dir, err := os.MkdirTemp("", "multiplex-pgbouncer-")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	files := map[string]string{
		"users.txt": fmt.Sprintf("%q %q\n", cfg.User, cfg.Password.Reveal()),
		"pgbouncer.ini": fmt.Sprintf("[databases]\n* = host=%s port=%d\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %d\nunix_socket_dir =\n"+
			"auth_type = scram-sha-256\nauth_file = %s/users.txt\npool_mode = transaction\ndefault_pool_size = 3\n", cfg.Host, cfg.Port, port, dir),
	}
	for name, text := range files {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	cmd := exec.Command(program, filepath.Join(dir, "pgbouncer.ini")) //nolint:noctx // it is stopped below
	asPostgres(t, cmd, dir, files)
	if err := cmd.Start(); err != nil {
		t.Fatal("PgBouncer is missing: apt-get install pgbouncer, or brew install pgbouncer: ", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	cfg.Host, cfg.Port = "127.0.0.1", port
	cc := muxConfig(t, cfg)
	cc.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	dbtest.Eventually(t, "PgBouncer answers", func() bool {
		conn, err := pgx.ConnectConfig(t.Context(), cc.Copy())
		if err == nil {
			_ = conn.Close(t.Context())
		}
		return err == nil
	})
	return cc
}

// asPostgres lets root, as whom PgBouncer doesn't run, start it as another user who owns its files.
func asPostgres(t *testing.T, cmd *exec.Cmd, dir string, files map[string]string) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		if u, err = user.Lookup("nobody"); err != nil {
			t.Fatal(err)
		}
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	for name := range files {
		must(t, os.Chown(filepath.Join(dir, name), uid, gid))
	}
	must(t, os.Chown(dir, uid, gid))
	system.NewGroup(cmd)
	system.RunAs(cmd, uid, gid)
}
