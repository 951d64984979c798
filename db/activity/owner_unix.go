//go:build unix

package activity

import (
	"io/fs"
	"os"
	"syscall"
)

// mine reports whether a file belongs to this user, and no other user has access.
func mine(info fs.FileInfo) bool {
	owner, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.Mode().Perm()&0o077 == 0 && int(owner.Uid) == os.Getuid()
}
