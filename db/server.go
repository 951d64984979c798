package db

import (
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// ServerOf returns HOST:PORT of the server that conn is connected to. With several hosts in the configuration, it is
// the one that answered: by its configured name if only one host has that port, else by its IP address.
func ServerOf(conn *pgx.Conn) string {
	return serverAt(hostsOf(&conn.Config().Config), conn.PgConn().Conn().RemoteAddr().String())
}

// hostsOf returns HOST:PORT of each configured host, once.
func hostsOf(c *pgconn.Config) []string {
	hosts := []string{hostPort(c.Host, c.Port)}
	for _, f := range c.Fallbacks { // one for each further host, and for each way to encrypt
		if h := hostPort(f.Host, f.Port); !slices.Contains(hosts, h) {
			hosts = append(hosts, h)
		}
	}
	return hosts
}

func hostPort(host string, port uint16) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// serverAt returns which of the hosts has a remote address, which is IP:PORT or a socket's path.
func serverAt(hosts []string, remote string) string {
	if dir, port, ok := strings.Cut(remote, "/.s.PGSQL."); ok {
		remote = net.JoinHostPort(filepath.Clean("/"+dir), port)
	}
	if len(hosts) > 1 && !slices.Contains(hosts, remote) {
		_, port, _ := net.SplitHostPort(remote)
		hosts = slices.DeleteFunc(hosts, func(h string) bool { return !strings.HasSuffix(h, ":"+port) })
	}
	if len(hosts) == 1 {
		return hosts[0]
	}
	return remote
}

// serverOfAttempt returns HOST:PORT of the server whose answer is why connecting failed, or "" if none answered. The
// driver has it only in its text, "ADDRESS (HOST): …".
func serverOfAttempt(err error) string {
	ce, ok := errors.AsType[*pgconn.ConnectError](err)
	answer, answered := refusalOf(err)
	if !ok || !answered {
		return ""
	}
	for _, attempt := range attempts(err) {
		if errors.Is(attempt, answer) {
			remote, _, _ := strings.Cut(attempt.Error(), " (")
			return serverAt(hostsOf(ce.Config), remote)
		}
	}
	return ""
}
