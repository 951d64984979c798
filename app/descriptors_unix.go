//go:build unix

package app

import "syscall"

// descriptors returns how many files the process may open; 0 if unknown.
func descriptors() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return uint64(limit.Cur) //nolint:unconvert // signed on FreeBSD
}
