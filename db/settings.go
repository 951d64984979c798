package db

import (
	"cmp"
	"fmt"
	"math"
	"net"
	"strconv"
	"strings"
	"time"
)

// Settings describes one PostgreSQL database, and how requests get their connections to it. It is comparable: a switch
// between equal Settings does nothing. DefaultSettings has the defaults. A Settings literal must set what its strategy
// needs, or NewSource and Open return an error that names the field.
//
// Name, User, Host and Password may be empty, and then have libpq's defaults: the database has the user's name, the
// user is the account of this process, the host is the directory of the Unix socket (or localhost where there is none),
// and the password is looked up in PGPASSFILE or ~/.pgpass.
//
// The tags are for a configuration file: "toml" names the key, "allow" its bounds.
type Settings struct {
	Name             string        `toml:"name" allow:"identifier"`
	User             string        `toml:"user" allow:"identifier"`
	Password         Secret        `toml:"password"`                   // the content of PasswordFile, if that is set
	PasswordFile     string        `toml:"password_file" allow:"path"` // read again for each new connection
	Host             string        `toml:"host" allow:"host"`          // a name, an address, or the directory of a socket
	Port             int           `toml:"port" allow:"1..65535"`
	SSLMode          string        `toml:"sslmode" allow:"disable|allow|prefer|require|verify-ca|verify-full"`
	ApplicationName  string        `toml:"application_name" allow:"application"` // the strategy is appended: "ddtb/pool"
	ConnectTimeout   time.Duration `toml:"connect_timeout" allow:"100ms..5m"`
	Keepalive        Keepalive     `toml:"keepalive"`
	StatementTimeout time.Duration `toml:"statement_timeout" allow:"0|1ms..24h"` // ended by the server; 0: the server's own setting
	QueryTimeout     time.Duration `toml:"query_timeout" allow:"0|1s..24h"`      // ended by this process, with its connection; 0: never

	Hosts Hosts `toml:"hosts" allow:"hosts"` // tried in turn, instead of Host and Port

	// libpq's parameters of these names. Empty ones are left to libpq's variables and default files.
	TargetSessionAttrs string `toml:"target_session_attrs" allow:"any|read-write|read-only|primary|standby|prefer-standby"`
	SSLRootCert        string `toml:"sslrootcert" allow:"path"` // or "system"
	SSLCert            string `toml:"sslcert" allow:"path"`
	SSLKey             string `toml:"sslkey" allow:"path"`
	ChannelBinding     string `toml:"channel_binding" allow:"|disable|prefer|require"`
	Options            string `toml:"options"` // for the server's command line, for example "-c work_mem=8MB"

	// Budget is the number of connections that all processes together may have whose Pool.MaxSize is Auto. 0:
	// DefaultBudget of the server, as measured.
	Budget int `toml:"-"`

	MaxLag time.Duration `toml:"max_lag" allow:"100ms..1h"` // of a replica, behind its primary

	Strategy   string `toml:"strategy" allow:"strategy"`
	Reset      string `toml:"reset" allow:"auto|always"` // of a session, before another holder gets it: see ResetAuto
	Pooler     string `toml:"pooler" allow:"|pgbouncer"` // "" or "pgbouncer"
	DirectHost string `toml:"direct_host" allow:"host"`  // for operations that a pooler in transaction mode can't carry
	DirectPort int    `toml:"direct_port" allow:"1..65535"`

	Pool       PoolSettings       `toml:"pool"`
	Persistent PersistentSettings `toml:"persistent"`
	PerRequest PerRequestSettings `toml:"per_request"`
	Multiplex  MultiplexSettings  `toml:"multiplex"`
}

// Hosts lists servers of one database, "HOST:PORT" or "HOST", separated by commas. It is a string so that it is
// comparable.
type Hosts string

// List returns the single hosts.
func (h Hosts) List() []string {
	if h == "" {
		return nil
	}
	return strings.Split(string(h), ",")
}

// SplitHost splits "HOST:PORT". The port is "" if there is none, and an IPv6 address loses its brackets.
func SplitHost(text string) (host, port string) {
	if host, port, err := net.SplitHostPort(text); err == nil {
		return host, port
	}
	if address, is := strings.CutPrefix(text, "["); is {
		text = strings.TrimSuffix(address, "]")
	}
	return text, ""
}

// keywords returns the values of libpq's host and port: those of the list, or else the single host's. A host of the
// list without a port gets the single port.
func (h Hosts) keywords(host string, port int) (hosts, ports string) {
	single := ""
	if port != 0 {
		single = strconv.Itoa(port)
	}
	if h == "" {
		return host, single
	}
	var names, numbers []string
	for _, one := range h.List() {
		name, number := SplitHost(one)
		names, numbers = append(names, name), append(numbers, cmp.Or(number, single))
	}
	return strings.Join(names, ","), strings.Join(numbers, ",")
}

// Forever is the duration that is written "none". PersistentSettings.ConnMaxAge accepts it, for a connection that is
// kept as long as it works.
const Forever = time.Duration(-1)

// Bytes is a size. As text it has a unit: "4MiB".
type Bytes int64

var byteUnits = []struct {
	name string
	size Bytes
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// String uses the largest unit of which the size is a multiple.
func (b Bytes) String() string {
	for _, u := range byteUnits {
		if b >= u.size && b%u.size == 0 {
			return fmt.Sprintf("%d%s", b/u.size, u.name)
		}
	}
	return fmt.Sprintf("%dB", int64(b))
}

// ParseBytes parses "4MiB", "512KiB", or a number of bytes.
func ParseBytes(text string) (Bytes, error) {
	for _, u := range byteUnits {
		digits, is := strings.CutSuffix(text, u.name)
		if !is {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || Bytes(n) > math.MaxInt64/u.size {
			break
		}
		return Bytes(n) * u.size, nil
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n >= 0 {
		return Bytes(n), nil
	}
	return 0, fmt.Errorf("%q is not a size: write 4MiB, 512KiB, or a number of bytes", text)
}

// Keepalive configures TCP keepalive: after Idle a probe every Interval, Count times.
type Keepalive struct {
	Idle     time.Duration `toml:"idle" allow:"1s..2h"`
	Interval time.Duration `toml:"interval" allow:"1s..10m"`
	Count    int           `toml:"count" allow:"1..100"`
}

// DefaultSettings returns the default settings: the strategy pool, with 10 connections, a timeout of 10 s, at most 10,000
// waiting requests, and a report of leases that are held for over a minute. A connect may take 5 s, a query a minute. The
// port is 5432, TLS is preferred, and the application's name is "ddtb": set your own. Each strategy's defaults come from its
// own file.
func DefaultSettings() Settings {
	return Settings{
		Port:               5432,
		SSLMode:            "prefer",
		ApplicationName:    "ddtb",
		ConnectTimeout:     5 * time.Second,
		Keepalive:          Keepalive{Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3},
		TargetSessionAttrs: "any",
		MaxLag:             10 * time.Second,
		QueryTimeout:       time.Minute, // above any page's query; a server that takes longer does not respond at all
		Strategy:           Pool,
		Reset:              ResetAuto,
		DirectPort:         5432,
		Pool:               defaultPool,
		Persistent:         defaultPersistent,
		PerRequest:         defaultPerRequest,
		Multiplex:          defaultMultiplex,
	}
}

// SameServer reports whether both reach the same database as the same role, under the same name. A session of one then
// serves the other: their passwords, timeouts, encryption and strategies may differ.
func (s Settings) SameServer(other Settings) bool {
	session := func(x Settings) Settings {
		return Settings{
			Name: x.Name, User: x.User, Host: x.Host, Port: x.Port, Hosts: x.Hosts, TargetSessionAttrs: x.TargetSessionAttrs,
			ApplicationName: x.ApplicationName, Pooler: x.Pooler, DirectHost: x.DirectHost, DirectPort: x.DirectPort,
		}
	}
	return session(s) == session(other)
}

// Direct returns settings that bypass the pooler, if there is one and they say how. They are for operations that a pooler in
// transaction mode can't carry: session locks, session settings, LISTEN.
func Direct(s Settings) Settings {
	if s.Pooler != "" && s.DirectHost != "" {
		s.Host, s.Port, s.Hosts, s.Pooler = s.DirectHost, s.DirectPort, "", ""
	}
	return s
}
