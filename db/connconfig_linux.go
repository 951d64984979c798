package db

import (
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// unanswered makes the kernel drop a connection whose data has not been acknowledged for that time. Keepalive only
// covers silence: a query sent into a dead network would wait for the retransmissions, a quarter of an hour.
func unanswered(limit time.Duration) func(network, address string, c syscall.RawConn) error {
	return func(network, _ string, c syscall.RawConn) error {
		if limit <= 0 || !strings.HasPrefix(network, "tcp") {
			return nil
		}
		var err error
		if e := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(limit.Milliseconds()))
		}); e != nil {
			return e
		}
		return err
	}
}
