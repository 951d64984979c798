package scene

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/db/localpg/system"
)

const bouncerINI = `[databases]
* = host=127.0.0.1 port=%d
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = scram-sha-256
auth_file = %s
pool_mode = transaction
default_pool_size = %d
ignore_startup_parameters = extra_float_digits
%s`

// PgBouncer starts a real PgBouncer in transaction mode in front of the server, with size server connections and
// without support for prepared statements. through makes settings use it.
func (s *Stage) PgBouncer(size int) (through func(*pgx.ConnConfig)) {
	through = func(*pgx.ConnConfig) {}
	addr, err := s.startBouncer(size)
	if err != nil {
		s.Failed(err)
		return through
	}
	return func(cc *pgx.ConnConfig) {
		cc.Host, cc.Port = "127.0.0.1", uint16(addr.Port)
		cc.Fallbacks = nil
	}
}

func (s *Stage) startBouncer(size int) (*net.TCPAddr, error) {
	program, err := find("pgbouncer")
	if err != nil {
		return nil, err
	}
	addr, err := s.free()
	if err != nil {
		return nil, err
	}
	dir, err := s.tempDir("pgbouncer-")
	if err != nil {
		return nil, err
	}
	uid, gid, err := ordinaryUser()
	if err != nil {
		return nil, err
	}
	users := filepath.Join(dir, "users.txt")
	ini := fmt.Sprintf(bouncerINI, s.server.pg.Port(), addr.Port, users, size, noPrepared(s.ctx, program))
	for name, text := range map[string]string{users: fmt.Sprintf("%q %q\n", appRole, s.server.password), filepath.Join(dir, "pgbouncer.ini"): ini} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			return nil, err
		}
		if uid > 0 {
			if err := os.Chown(name, uid, gid); err != nil {
				return nil, err
			}
		}
	}
	if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // the other user must get to its files
		return nil, err
	}
	return addr, s.runUnderShell("PgBouncer", addr.String(), uid, gid, program, "-q", filepath.Join(dir, "pgbouncer.ini"))
}

// runUnderShell runs a program that serves on addr under a shell, which kills it when its input ends: at the end of the half,
// or with this process, however that ends.
func (s *Stage) runUnderShell(name, addr string, uid, gid int, command ...string) error {
	cmd := exec.Command("/bin/sh", append([]string{"-c", `"$@" & read _; kill -9 $!; wait`, "sh"}, command...)...) //nolint:noctx,gosec // ended below; our own paths
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	system.NewGroup(cmd) // Ctrl-C on the terminal is handled here
	if uid > 0 {
		system.RunAs(cmd, uid, gid)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }() // an error is expected: it is killed
	s.Afterwards(func() { _ = in.Close(); <-ended })
	return s.reached(name, addr, ended)
}

func (s *Stage) reached(name, addr string, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(s.ctx, 5*time.Second)
	defer cancel()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp4", addr)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ended:
			return fmt.Errorf("%s ended at once; run it by hand to see why", name)
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer on %s: %w", name, addr, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// find also looks in Debian's directory, which is not in every user's PATH.
func find(program string) (string, error) {
	for _, name := range []string{program, "/usr/sbin/" + program} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s %w: apt-get install %[1]s, dnf install %[1]s, or brew install %[1]s", program, ErrMissing)
}

// tempDir makes a directory for the half.
func (s *Stage) tempDir(prefix string) (string, error) {
	dir, err := os.MkdirTemp(s.server.dir, prefix)
	s.Afterwards(func() { _ = os.RemoveAll(dir) })
	return dir, err
}

var bouncerVersion = regexp.MustCompile(`PgBouncer (\d+)\.(\d+)`)

// noPrepared is the line that disables prepared statements. Older versions do not have the setting, and would not start
// with it.
func noPrepared(ctx context.Context, program string) string {
	out, _ := exec.CommandContext(ctx, program, "--version").Output()
	m := bouncerVersion.FindSubmatch(out)
	if m == nil {
		return ""
	}
	major, _ := strconv.Atoi(string(m[1]))
	minor, _ := strconv.Atoi(string(m[2]))
	if major > 1 || minor >= 21 {
		return "max_prepared_statements = 0\n"
	}
	return ""
}

// ordinaryUser returns the user for PgBouncer if this user is root, which PgBouncer refuses; 0 otherwise.
func ordinaryUser() (uid, gid int, err error) {
	if os.Geteuid() != 0 {
		return 0, 0, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.Atoi(u.Uid)
		if err != nil {
			return 0, 0, err
		}
		gid, err := strconv.Atoi(u.Gid)
		return uid, gid, err
	}
	return 0, 0, fmt.Errorf("PgBouncer refuses to run as root, and there is no user postgres or nobody: run ddtb as an ordinary user")
}
