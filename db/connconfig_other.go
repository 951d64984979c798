//go:build !linux

package db

import (
	"syscall"
	"time"
)

// unanswered does nothing: other systems have no common setting for it.
func unanswered(time.Duration) func(network, address string, c syscall.RawConn) error { return nil }
