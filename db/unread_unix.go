//go:build unix

package db

import (
	"crypto/tls"
	"errors"
	"syscall"

	"github.com/jackc/pgx/v5"
)

// unread reports whether the server has sent something on an idle connection, or has closed it. The usual reason is
// that the server was stopped or has crashed. It costs one system call, and does not wait.
func unread(conn *pgx.Conn) bool {
	socket := conn.PgConn().Conn()
	if secured, ok := socket.(*tls.Conn); ok {
		socket = secured.NetConn()
	}
	s, ok := socket.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return true // it is closed
	}
	var received error
	err = raw.Control(func(fd uintptr) { // Read would wait for the driver's own reader in the background
		var first [1]byte
		_, _, received = syscall.Recvfrom(int(fd), first[:], syscall.MSG_PEEK) // does not wait: Go's sockets never do
	})
	return err != nil || !errors.Is(received, syscall.EAGAIN)
}
