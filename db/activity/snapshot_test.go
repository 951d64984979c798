package activity

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"ddtb/config"
	"ddtb/db/localpg"
)

func TestASnapshotShowsSessionsInEveryState(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		owner := s.session(t, app, "wall", "shop/owner")
		exec(t, owner, "CREATE TABLE IF NOT EXISTS stock (n int)")
		exec(t, owner, "BEGIN; LOCK TABLE stock")
		exec(t, s.session(t, app, "wall", "shop/rests"), "SELECT 'rests'")
		broken := s.session(t, app, "wall", "shop/broken")
		if _, err := broken.Exec(t.Context(), "BEGIN; SELECT 1/0"); err == nil {
			t.Fatal("1/0 has a value")
		}
		runs(t, s.session(t, app, "wall", "shop/sleeps"), "SELECT pg_sleep(60)")
		runs(t, s.session(t, app, "wall", "shop/waits"), "SELECT * FROM stock")

		o := s.observer(t, app)
		now := pollUntil(t, o, "the states are there", func(now Snapshot) bool {
			return find(t, now, "shop/waits").Waits && find(t, now, "shop/sleeps").Wait == "Timeout/PgSleep"
		})
		for name, state := range map[string]string{
			"shop/owner": IdleInTransaction, "shop/rests": Idle, "shop/broken": IdleInTransactionEr,
			"shop/sleeps": Active, "shop/waits": Active, "shop/monitor": Active,
		} {
			x := find(t, now, name)
			if x.State != state || x.User != app || x.Database != "wall" || x.Address != "127.0.0.1" || x.Kind != ClientBackend ||
				x.Started.IsZero() || x.Hidden || x.Self != (name == "shop/monitor") {
				t.Errorf("%s: %+v", name, x)
			}
		}
		if x := find(t, now, "shop/waits"); len(x.BlockedBy) != 1 || x.BlockedBy[0] != pidOf(owner) || x.Query != "SELECT * FROM stock" {
			t.Errorf("the one that waits: %+v", x)
		}
		if roots := now.Roots(); len(roots) != 1 || roots[0].PID != pidOf(owner) {
			t.Errorf("the root of the queue: %+v", roots)
		}
		if x := find(t, now, "shop/owner"); x.InTransaction == 0 || x.InTransaction > x.Age {
			t.Errorf("the one in a transaction: %+v", x)
		}
		if now.Slots.Used != 6 || now.Slots.Usable() != s.usable() || now.Server.Version != s.Version() || now.Database != "wall" {
			t.Errorf("%+v %+v", now.Slots, now.Server)
		}
		st := Summarise(now)
		if st.LongestQuery == nil || st.OldestTransaction.Application != "shop/owner" || len(st.WaitingOnLocks) != 1 {
			t.Errorf("%+v", st)
		}
	})
}

func TestARoleSeesOfOtherRolesWhatItMay(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		exec(t, s.session(t, other, "wall", "theirs"), "SELECT 'their query'")
		exec(t, s.session(t, localpg.Superuser, "wall", "super"), "SELECT 'super query'")
		plain := snapshot(t, s.observer(t, app))
		for _, name := range []string{"theirs", "super"} {
			x := find(t, plain, name)
			if !x.Hidden || x.Query != "" || x.State != "" || x.Address != "" || x.User == "" || x.Superuser != (name == "super") {
				t.Errorf("an ordinary role sees %+v", x)
			}
		}
		if h := Assess(plain, nil, defaults()); h.Unseen != 2 || plain.Slots.Used != 3 {
			t.Errorf("%d unseen, %d used", h.Unseen, plain.Slots.Used)
		}
		seen := snapshot(t, s.observer(t, reader))
		if x := find(t, seen, "theirs"); x.Hidden || x.Query != "SELECT 'their query'" || x.State != Idle {
			t.Errorf("a role with pg_read_all_stats sees %+v", x)
		}
		if !seen.Role.ReadsAll || seen.Role.Superuser || seen.Role.Signals || plain.Role.ReadsAll {
			t.Errorf("%+v, %+v", seen.Role, plain.Role)
		}
	})
}

func TestTheObserverCountsSlotsAsTheServerDoes(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		for _, role := range []string{app, reader} {
			o := s.observer(t, role)
			want := pollUntil(t, o, "it is alone", func(now Snapshot) bool { return now.Slots.Used == 1 }).Slots
			if got, err := o.Slots(t.Context()); err != nil || got != want {
				t.Errorf("as %s: Slots says %+v (%v), Snapshot %+v", role, got, err, want)
			}
			o.Close()
		}
		o := s.observer(t, app)
		snapshot(t, o)
		n := s.fill(t, other, "crowd")
		eventually(t, "the refused login has ended", func() bool {
			slots, err := o.Slots(t.Context())
			must(t, err)
			return slots.Free() == 0 && slots.Used == n+1 && slots.Used == s.usable()
		})
	})
}

func TestTheKeptConnectionSeesAFullServerAndOutlivesARestart(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		o := s.observer(t, app)
		snapshot(t, o)
		s.fill(t, other, "crowd")
		if now := snapshot(t, o); now.AccessPath() != "an ordinary slot, taken before they ran out" {
			t.Errorf("the access is %q", now.AccessPath())
		}
		superuser := s.session(t, localpg.Superuser, "postgres", "control")
		exec(t, superuser, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name IN ('crowd', 'shop/monitor')")
		pollUntil(t, o, "it looks again", func(now Snapshot) bool { return now.Slots.Used == 2 })
	})
}

func TestAFullServerNamesTheWaysToConnect(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.fill(t, other, "crowd")
		o := s.observer(t, app)
		_, err := o.Snapshot(t.Context())
		left := "those left are reserved for superusers"
		if s.reserved {
			left = "reserved for roles with pg_use_reserved_connections"
		}
		if r := NoAccess(err, nil, ""); !strings.Contains(r.Means, left) || len(r.Ways) == 0 {
			t.Errorf("an ordinary role is told %+v (%v)", r, err)
		}
		if h := CheckHealth(WithObserver(t.Context(), o)); h.Level != Critical {
			t.Errorf("the verdict without access is %v", h.Level)
		}
		if s.reserved {
			if r := fmt.Sprint(NoAccess(err, nil, "")); !strings.Contains(r, "GRANT pg_use_reserved_connections") || strings.Contains(r, "SET reserved_connections") {
				t.Errorf("what is reserved is to be reserved: %s", r)
			}
			if now := snapshot(t, s.observer(t, invited)); !strings.Contains(now.AccessPath(), "pg_use_reserved_connections") {
				t.Errorf("the access is %q", now.AccessPath())
			}
		}
		if now := snapshot(t, s.observer(t, localpg.Superuser)); !strings.Contains(now.AccessPath(), "superuser") {
			t.Errorf("the access is %q", now.AccessPath())
		}
		s.fill(t, localpg.Superuser, "more")
		_, err = s.observer(t, localpg.Superuser).Snapshot(t.Context())
		if r := NoAccess(err, nil, ""); !strings.Contains(r.Means, "the reserved ones too") {
			t.Errorf("a superuser is told %+v (%v)", r, err)
		}
	})
}

func TestLimitsOfADatabaseAndARoleAreNotTakenForAFullServer(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		control := s.session(t, localpg.Superuser, "postgres", "control")
		for limited, want := range map[string]string{"DATABASE wall": "this database", "ROLE app": "this role"} {
			exec(t, control, "ALTER "+limited+" CONNECTION LIMIT 1")
			first := s.session(t, app, "wall", "shop")
			_, err := s.observer(t, app).Snapshot(t.Context())
			if r := NoAccess(err, nil, ""); !strings.Contains(r.Means, want) {
				t.Errorf("%s: %+v (%v)", limited, r, err)
			}
			o, err := NewObserver(s.config(localpg.Superuser, "wall"))
			must(t, err)
			h := Assess(snapshot(t, o), nil, defaults())
			if i := slices.IndexFunc(h.Findings, func(f Finding) bool { return f.Code == "limit" }); i < 0 || h.Level != Critical {
				t.Errorf("%s: %+v", limited, h)
			}
			o.Close()
			exec(t, control, "ALTER "+limited+" CONNECTION LIMIT -1")
			must(t, first.Close(t.Context()))
			eventually(t, "nobody is in the database", func() bool {
				var n int
				must(t, control.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE datname = 'wall'").Scan(&n))
				return n == 0
			})
		}
	})
}

func TestPasswordsInQueriesAreNotShown(t *testing.T) {
	for query, want := range map[string]string{
		"SELECT 1": "SELECT 1",
		"ALTER ROLE a PASSWORD 'it''s'; SELECT 1":       "ALTER ROLE a PASSWORD ***; SELECT 1",
		"alter role a encrypted password E'x' login":    "alter role a encrypted password *** login",
		"ALTER ROLE a PASSWORD 'cut off in the mid":     "ALTER ROLE a PASSWORD ***",
		"SELECT dblink('host=a password=x dbname=b')":   "SELECT dblink('host=a password=*** dbname=b')",
		"CREATE USER MAPPING OPTIONS (password 'x', u)": "CREATE USER MAPPING OPTIONS (password ***, u)",
		"DO $$ALTER ROLE a PASSWORD $x$secret$x$ $$":    "DO $$ALTER ROLE a PASSWORD ***",
		"ALTER ROLE a PASSWORD $$two\nlines$$":          "ALTER ROLE a PASSWORD ***",
		"ALTER ROLE a PASSWORD U&'secret' LOGIN":        "ALTER ROLE a PASSWORD *** LOGIN",
		`ALTER ROLE a PASSWORD E'a\'secret' LOGIN`:      "ALTER ROLE a PASSWORD *** LOGIN",
		`ALTER ROLE a PASSWORD E'cut off after a \`:     "ALTER ROLE a PASSWORD ***",
		`ALTER ROLE a PASSWORD 'a\' LOGIN`:              "ALTER ROLE a PASSWORD *** LOGIN",

		"SELECT dblink_connect('password=''a secret''')":                                 "SELECT dblink_connect('password=***')",
		"SELECT dblink_connect('postgresql://repl:se@cr:et@h/db')":                       "SELECT dblink_connect('postgresql://repl:***@h/db')",
		"CREATE SUBSCRIPTION s CONNECTION 'postgres://repl:secret@h/db' PUBLICATION p":   "CREATE SUBSCRIPTION s CONNECTION 'postgres://repl:***@h/db' PUBLICATION p",
		"CREATE SUBSCRIPTION s CONNECTION 'postgres://repl:pa''s\"s@h/db' PUBLICATION p": "CREATE SUBSCRIPTION s CONNECTION 'postgres://repl:***@h/db' PUBLICATION p",
		"CREATE SUBSCRIPTION s CONNECTION 'postgres://repl:cut":                          "CREATE SUBSCRIPTION s CONNECTION 'postgres://repl:***",
		"SELECT * FROM links WHERE url = 'https://example.org:8443/a' OR url LIKE '%@b'": "SELECT * FROM links WHERE url = 'https://example.org:8443/a' OR url LIKE '%@b'",
	} {
		if got := withoutPasswords(query); got != want {
			t.Errorf("%s\n got %s\nwant %s", query, got, want)
		}
	}
}

func TestChurnCountsSessionsThatAreGoneAgain(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		o := s.observer(t, app)
		before := snapshot(t, o)
		const n = 8
		for range n {
			conn := s.session(t, app, "wall", "brief")
			if before.Server.VersionNum >= 140000 { // before, only those that stay are counted
				must(t, conn.Close(t.Context()))
			}
		}
		pollUntil(t, o, "the statistics have them", func(now Snapshot) bool {
			return now.EverConnects-before.EverConnects >= n || before.Server.VersionNum < 140000
		})
		now := snapshot(t, o)
		if began := math.Round(Churn(now, before) * now.At.Sub(before.At).Seconds()); began < n {
			t.Errorf("%v sessions began, want %d at least", began, n)
		}
	})
}

func TestAnAgeIsWrittenWithThreeDecimalsAtMost(t *testing.T) {
	for milli := range 10_000 {
		body, err := Age(time.Duration(milli) * time.Millisecond).MarshalJSON()
		if err != nil || len(body) > len("1.234") {
			t.Fatalf("%d ms is %s, %v", milli, body, err)
		}
	}
}

func defaults() Thresholds { return ThresholdsOf(config.Monitor{}) }
