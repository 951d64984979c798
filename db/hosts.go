package db

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"
)

// hostCheck bounds the check of one host.
const hostCheck = 2 * time.Second

// CheckHosts returns an error that says what to do if Hosts names servers that can't all be one database: two that take
// writes, or servers that are not copies of each other. Hosts that don't answer count as neither. It opens one connection
// to each host, to all at once, and closes it: silent hosts delay it by two seconds. With a single host it does nothing.
//
// all reports whether every host answered.
func CheckHosts(ctx context.Context, s Settings) (all bool, err error) {
	hosts := s.Hosts.List()
	seen := seeHosts(ctx, s, hosts)
	var primaries []string
	var systems []string // each with its host
	known := map[string]bool{}
	first := func(what string) bool {
		was := known[what]
		known[what] = true
		return !was
	}
	all = true
	for i, one := range hosts {
		if seen[i].system == "" {
			all = false
			continue
		}
		if first(seen[i].system) {
			systems = append(systems, fmt.Sprintf("%s (system identifier %s)", one, seen[i].system))
		}
		if !seen[i].recovers && first(seen[i].started) { // two names may be one server
			primaries = append(primaries, one)
		}
	}
	switch {
	case len(systems) > 1:
		return all, fmt.Errorf("the hosts are not copies of each other: %s; name one server and its standbys", strings.Join(systems, ", "))
	case len(primaries) > 1:
		return all, fmt.Errorf("several of the hosts take writes: %s; stop all but one, and make them its standbys again (pg_rewind): "+
			"what is written to the others is lost", strings.Join(primaries, ", "))
	}
	return all, nil
}

// seeHosts asks each host what it is. One that does not answer is the zero value.
func seeHosts(ctx context.Context, s Settings, hosts []string) []seenServer {
	ctx, cancel := context.WithTimeout(ctx, hostCheck)
	defer cancel()
	seen := make([]seenServer, len(hosts))
	var all sync.WaitGroup
	for i, one := range hosts {
		single := s
		single.Hosts, single.TargetSessionAttrs = Hosts(one), "any"
		all.Go(func() {
			m := newPollConn(func() Settings { return single })
			defer m.close()
			if got, err := ask(ctx, m, replicaSQL); err == nil {
				seen[i] = got
			}
		})
	}
	all.Wait()
	return seen
}
