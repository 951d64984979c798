package activity

import (
	"cmp"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// addressOf names the database that a login leads to. It uses the resolved login, so that a file without a host, a URL
// and a list of hosts that lead to the same place have the same name. Two names of one server that only DNS or the
// server can match stay different.
func addressOf(cc *pgx.ConnConfig) string {
	hosts := []string{hostAddress(cc.Host, cc.Port)}
	for _, f := range cc.Fallbacks { // one for each further host, and for each way to encrypt
		if h := hostAddress(f.Host, f.Port); !slices.Contains(hosts, h) {
			hosts = append(hosts, h)
		}
	}
	return strings.Join(hosts, ",") + "/" + cmp.Or(cc.Database, cc.User) // PostgreSQL's default is the user's name
}

// hostAddress returns HOST:PORT in one spelling. Symbolic links of a socket's directory are resolved: /var/run is one.
func hostAddress(host string, port uint16) string {
	if filepath.IsAbs(host) {
		if dir, err := filepath.EvalSymlinks(host); err == nil {
			host = dir
		}
		host = filepath.Clean(host)
	} else if host = strings.ToLower(host); host == "localhost" {
		host = "127.0.0.1"
	} else if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.Unmap().String()
	}
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}
