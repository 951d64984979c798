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

// Signals that stop and continue a process, which Windows does not have: Kill refuses them.
const (
	Stop     = syscall.Signal(19)
	Continue = syscall.Signal(18)
)

// Supported returns an error if this system can't run a private PostgreSQL.
func Supported() error {
	return errors.New("ddtb starts no PostgreSQL of its own on Windows: run it with Docker (docker compose up), " +
		"or use ddtb runserver with a server that is there")
}

// Owner returns false: files on Windows have no user ID.
func Owner(fs.FileInfo) (uid int, ok bool) { return 0, false }

// OpenLock refuses, as Supported does.
func OpenLock(string) (*os.File, error) { return nil, Supported() }

// TryLock refuses, as Supported does.
func TryLock(*os.File) (held bool, err error) { return false, Supported() }

// Locked returns false: nothing was locked.
func Locked(*os.File) bool { return false }

// Unlock does nothing.
func Unlock(*os.File) {}

// Kill refuses, as Supported does.
func Kill(int, syscall.Signal) error { return Supported() }

// Exists returns false: no process was started.
func Exists(int) bool { return false }

// NewGroup does nothing.
func NewGroup(*exec.Cmd) {}

// RunAs does nothing.
func RunAs(*exec.Cmd, int, int) {}
