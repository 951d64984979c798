//go:build !linux

package dbtest

import "os"

// TempDir returns the directory for the data of test servers.
func TempDir() string { return os.TempDir() }
