package activity

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"ddtb/db"
	"ddtb/db/localpg"
)

// The sockets of this test send nothing. Each is a process of the server, and none has a slot.
func TestAServerThatStartsNoProcessSuggestsNoSuperuserLogin(t *testing.T) {
	for _, newest := range []bool{false, true} {
		s, err := startServer(t.Context(), fmt.Sprintf("processes-%v", newest), newest)
		must(t, err)
		t.Run(s.name, func(t *testing.T) {
			t.Cleanup(func() { must(t, s.Crash(context.Background())) })
			cc, err := db.ConnConfig(s.config(localpg.Superuser, "wall"), "late")
			must(t, err)
			for range 8 * maxConnections {
				conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address(cc))
				must(t, err)
				t.Cleanup(func() { _ = conn.Close() })
			}
			eventually(t, "the server refuses a superuser", func() bool {
				var conn *pgx.Conn
				if conn, err = db.Connect(t.Context(), cc); err == nil {
					db.Disconnect(conn)
				}
				return db.CauseOf(err) == db.SlotsExhausted
			})
			ways := NoAccess(err, cc, "").Ways
			if first := ways[0].Command; !strings.HasPrefix(first, "ss ") {
				t.Errorf("the first way is %q", first)
			}
			if slices.ContainsFunc(ways, func(w Step) bool { return strings.Contains(w.Command, "psql") }) {
				t.Errorf("a way is that of a superuser: %v", ways)
			}
		})
	}
}
