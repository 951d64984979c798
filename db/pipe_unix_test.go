//go:build unix

package db_test

import "syscall"

func makePipe(path string) error { return syscall.Mkfifo(path, 0o600) }
