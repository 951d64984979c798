package db_test

import (
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ddtb/db"
	"ddtb/db/dbtest"
)

func TestADeadPeerIsNoticedAsKeepaliveSays(t *testing.T) {
	cfg := dbtest.Config(t)
	cfg.Keepalive = db.Keepalive{Idle: 31 * time.Second, Interval: 7 * time.Second, Count: 4}
	conn := connect(t, cfg)
	raw, err := conn.PgConn().Conn().(*net.TCPConn).SyscallConn()
	must(t, err)
	if err := raw.Control(func(fd uintptr) {
		for option, want := range map[int]int{
			syscall.TCP_KEEPIDLE: 31, syscall.TCP_KEEPINTVL: 7, syscall.TCP_KEEPCNT: 4, unix.TCP_USER_TIMEOUT: 1000 * (31 + 4*7),
		} {
			if got, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, option); err != nil || got != want {
				t.Errorf("socket option %d is %d, want %d (%v)", option, got, want, err)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
}
