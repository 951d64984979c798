package localpg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"

	"ddtb/db/localpg/system"
)

// account is the user that runs the server: the user of this process or, for root, a user without root's rights.
type account struct {
	name     string
	uid, gid int
	root     bool // this process is root, and the account is another user
}

func serverAccount() (account, error) {
	if err := system.Supported(); err != nil {
		return account{}, err
	}
	if os.Geteuid() != 0 {
		return account{uid: os.Geteuid(), gid: os.Getegid()}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err := errors.Join(err1, err2); err != nil {
			return account{}, fmt.Errorf("user %s: %w", name, err)
		}
		return account{name: name, uid: uid, gid: gid, root: true}, nil
	}
	return account{}, errors.New("PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody: " +
		"run ddtb as an ordinary user")
}

// dirMode lets the account enter the directory, and no other user read it.
func (a account) dirMode() fs.FileMode {
	if a.root {
		return 0o711
	}
	return 0o700
}

// own makes the account the owner of our files.
func (a account) own(path string) error {
	if !a.root {
		return nil
	}
	return os.Lchown(path, a.uid, a.gid)
}

// reach reports whether the account can enter our directory at all: root's home is closed to it.
func (a account) reach(path string) error {
	if !a.root {
		return nil
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		owner, ok := system.Owner(info)
		if info.Mode().Perm()&0o001 == 0 && (!ok || owner != a.uid) {
			return fmt.Errorf("PostgreSQL does not run as root but as %s, who may not enter %s: choose a directory outside of it",
				a.name, dir)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

// as makes the command run as the account, without our environment: PGDATA, PGPORT and similar variables would affect
// the server, and the language of its messages would depend on the user who starts it.
func (a account) as(cmd *exec.Cmd) *exec.Cmd {
	cmd.Env = []string{"LC_ALL=C", "TZ=UTC", "PATH=/usr/bin:/bin"}
	system.NewGroup(cmd) // this process decides how to handle Ctrl-C on the terminal
	if a.root {
		system.RunAs(cmd, a.uid, a.gid)
	}
	return cmd
}

// mkdirAll is os.MkdirAll with a mode that the umask does not narrow, because the account must be able to enter.
func mkdirAll(dir string) error {
	if isDir(dir) {
		return nil
	}
	if err := mkdirAll(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		if errors.Is(err, fs.ErrExist) && isDir(dir) { // another process was faster
			return nil
		}
		return err
	}
	return os.Chmod(dir, 0o755)
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
