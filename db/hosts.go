package db

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// hostCheck bounds the check of one host.
const hostCheck = 2 * time.Second

// CheckHosts returns an error that says what to do if Hosts names servers that can't all be one database: two that take
// writes, or servers that are no copies of each other. Hosts that don't answer count as neither. It opens one connection
// to each host in turn, and closes it. With a single host it does nothing.
func CheckHosts(ctx context.Context, s Settings) error {
	var primaries []string
	var systems []string // each with its host
	known := map[string]bool{}
	for _, one := range s.Hosts.List() {
		single := s
		single.Hosts, single.TargetSessionAttrs = Hosts(one), "any"
		seen, err := seeHost(ctx, single)
		if err != nil || seen.system == "" {
			continue
		}
		if !known[seen.system] {
			known[seen.system] = true
			systems = append(systems, fmt.Sprintf("%s (system identifier %s)", one, seen.system))
		}
		if !seen.recovers {
			primaries = append(primaries, one)
		}
	}
	switch {
	case len(systems) > 1:
		return fmt.Errorf("the hosts are no copies of each other: %s; name one server and its standbys", strings.Join(systems, ", "))
	case len(primaries) > 1:
		return fmt.Errorf("several of the hosts take writes: %s; stop all but one, and make them its standbys again (pg_rewind): "+
			"what is written to the others is lost", strings.Join(primaries, ", "))
	}
	return nil
}

func seeHost(ctx context.Context, s Settings) (seenServer, error) {
	ctx, cancel := context.WithTimeout(ctx, hostCheck)
	defer cancel()
	conn, err := followConn(ctx, s)
	if err != nil {
		return seenServer{}, err
	}
	defer closeConn(conn)
	return ask(ctx, conn, replicaSQL)
}
