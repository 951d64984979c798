package scene

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"

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
`

// PgBouncer starts a real PgBouncer in transaction mode in front of the server, with size server connections and
// without support for prepared statements. through makes settings use it.
func (s *Stage) PgBouncer(size int) (through func(*pgx.ConnConfig)) {
	addr, err := s.free()
	if err == nil {
		err = s.startBouncer(addr, size)
	}
	if err != nil {
		s.Failed(err)
		return func(*pgx.ConnConfig) {}
	}
	return func(cc *pgx.ConnConfig) { cc.Host, cc.Port = "127.0.0.1", uint16(addr.Port) }
}

func (s *Stage) startBouncer(addr *net.TCPAddr, size int) error {
	command, err := find("pgbouncer")
	if err != nil {
		return err
	}
	login := s.server.logins[appRole]
	users := filepath.Join(s.server.dir, "PgBouncer.users")
	if err := os.WriteFile(users, fmt.Appendf(nil, "%q %q\n", login.User, login.Password.Reveal()), 0o600); err != nil {
		return err
	}
	ini := fmt.Sprintf(bouncerINI, login.Port, addr.Port, users, size)
	var major, minor int
	version, _ := exec.CommandContext(s.ctx, command, "--version").Output() //nolint:gosec // the command that find returned
	if _, err := fmt.Sscanf(string(version), "PgBouncer %d.%d", &major, &minor); err == nil && (major > 1 || minor >= 21) {
		ini += "max_prepared_statements = 0\n" // older versions don't know the setting, and would not start
	}
	if os.Geteuid() == 0 {
		ini += "user = nobody\n" // PgBouncer refuses to run as root
		if err := giveToNobody(users); err != nil {
			return err
		}
	}
	return s.runUnderShell("PgBouncer", addr.String(), ini, command, "-q")
}

// giveToNobody lets the user nobody read a file.
func giveToNobody(file string) error {
	nobody, err := user.Lookup("nobody")
	if err != nil {
		return err
	}
	uid, err := strconv.Atoi(nobody.Uid)
	if err != nil {
		return err
	}
	return os.Chown(file, uid, -1)
}

// runUnderShell runs a program that serves on addr, with a configuration file as its last argument. A shell kills it when
// the shell's input ends: at the end of the half, or with this process, however that ends.
func (s *Stage) runUnderShell(name, addr, config string, command ...string) error {
	file := filepath.Join(s.server.dir, name+".conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return err
	}
	args := append([]string{"-c", `"$@" & read _; kill -9 $!; wait`, "sh"}, append(command, file)...)
	cmd := exec.Command("/bin/sh", args...) //nolint:noctx,gosec // ended below; our own paths
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	system.NewGroup(cmd) // Ctrl-C on the terminal is handled here
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
	return until(s.ctx, name+" does not answer on "+addr+"; run it by hand to see why", func(ctx context.Context) (bool, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp4", addr)
		if err != nil {
			return false, nil //nolint:nilerr // not yet
		}
		return true, conn.Close()
	})
}

// find also searches Debian's directory, which is not in every user's PATH.
func find(program string) (string, error) {
	for _, name := range []string{program, "/usr/sbin/" + program} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed: apt-get install %[1]s, dnf install %[1]s, or brew install %[1]s", program)
}
