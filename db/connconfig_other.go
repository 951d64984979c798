//go:build !linux

package db

import (
	"syscall"
	"time"
)

// unanswered leaves it to the system: there is no such setting that the others share.
func unanswered(time.Duration) func(network, address string, c syscall.RawConn) error { return nil }
