// Package system holds what differs between Unix and Windows for programs that start a server of their own: the owner of a
// file, a lock that ends with its process, and signals. On Windows nothing is started: see Supported.
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

// Supported is an error where this system can't run a private PostgreSQL.
func Supported() error {
	return errors.New("ddtb starts no PostgreSQL of its own on Windows: run it with Docker (docker compose up), " +
		"or use ddtb runserver with a server that is there")
}

// Owner is not known: files of Windows have no user id.
func Owner(fs.FileInfo) (uid int, ok bool) { return 0, false }

// OpenLock refuses, as Supported does.
func OpenLock(string) (*os.File, error) { return nil, Supported() }

// TryLock refuses, as Supported does.
func TryLock(*os.File) (held bool, err error) { return false, Supported() }

// Unlock has nothing to give back.
func Unlock(*os.File) {}

// Kill refuses, as Supported does.
func Kill(int, syscall.Signal) error { return Supported() }

// Exists is false: nothing was started.
func Exists(int) bool { return false }

// NewGroup changes nothing.
func NewGroup(*exec.Cmd) {}

// RunAs changes nothing.
func RunAs(*exec.Cmd, int, int) {}
