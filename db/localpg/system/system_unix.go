//go:build unix

// Package system wraps the differences between Unix and Windows for programs that start a server of their own: the
// owner of a file, a lock that ends with its process, and signals. On Windows no server is started: see Supported.
package system

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
)

// Signals that stop and continue a process.
const (
	Stop     = syscall.SIGSTOP
	Continue = syscall.SIGCONT
)

// Supported returns an error if this system can't run a private PostgreSQL.
func Supported() error { return nil }

// Owner returns the user ID that owns a file; ok is false if it is not known.
func Owner(info fs.FileInfo) (uid int, ok bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(stat.Uid), true
}

// OpenLock opens a lock file, never through a symbolic link.
func OpenLock(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
}

// TryLock locks the file until this process ends, for any reason. It reports whether another process holds the lock.
func TryLock(f *os.File) (held bool, err error) {
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	return errors.Is(err, syscall.EWOULDBLOCK), err
}

// Locked reports whether a process has locked the file with TryLock. Meanwhile it takes a shared lock for a moment.
func Locked(f *os.File) bool {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	Unlock(f)
	return errors.Is(err, syscall.EWOULDBLOCK)
}

// Unlock releases the lock, even if a child that is being forked has a copy of the file.
func Unlock(f *os.File) { _ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN) }

// Kill signals a process, or its group if pid is negative. It fails when the process has ended.
func Kill(pid int, sig syscall.Signal) error { return syscall.Kill(pid, sig) }

// Exists reports whether the process runs and we may signal it.
func Exists(pid int) bool { return pid > 0 && syscall.Kill(pid, 0) == nil }

// NewGroup starts the command in a process group of its own: Ctrl-C on the terminal does not reach it.
func NewGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// RunAs makes a command of NewGroup run as another user, which only root may do.
func RunAs(cmd *exec.Cmd, uid, gid int) {
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}
