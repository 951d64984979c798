package db_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"ddtb/db"
	"ddtb/db/dbtest"
)

// TestAPollThatFailsHalfwayLosesNoTicket has one statement of a poll fail at one of its rows, in a monitoring session
// that goes on: as when the poll runs out of time.
func TestAPollThatFailsHalfwayLosesNoTicket(t *testing.T) {
	const budget = 4
	for name, fault := range map[string]struct {
		function string
		class    int
		call     int // the one that fails
		after    string
		least    int // so many tickets are reserved at once
	}{
		"when it reserves tickets":     {"pg_try_advisory_lock", db.TicketClass, 3, "", budget},
		"when it gives tickets up":     {"pg_advisory_unlock_shared", db.TicketClass, 2, "", 0},
		"when it publishes its demand": {"pg_try_advisory_lock_shared", db.DemandClass, 2, "PERFORM pg_catalog.pg_try_advisory_lock_shared($1, $2);", 0},
	} {
		t.Run(name, func(t *testing.T) {
			dbtest.NoLeaks(t)
			cfg := dbtest.Config(t)
			auto(budget)(&cfg)
			cfg.Pool.MinSize = fault.least
			session := dbtest.Control(t, cfg)
			run(t, session, "CREATE SEQUENCE calls")
			run(t, session, fmt.Sprintf(`CREATE FUNCTION %[1]s(int, int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
				IF $1 = %[2]d AND nextval('calls') = %[3]d THEN %[4]s RAISE 'halfway'; END IF;
				RETURN pg_catalog.%[1]s($1, $2); END $$`, fault.function, fault.class, fault.call, fault.after))
			run(t, session, "SET search_path = public, pg_catalog")
			var turn sync.Mutex
			failed := false
			d := openAgain(t, cfg, db.Options{Control: func(_ context.Context, f func(*pgx.Conn) error) error {
				turn.Lock()
				defer turn.Unlock()
				err := f(session)
				failed = failed || err != nil
				return err
			}})
			ended := func(what string, class, locks int) {
				t.Helper()
				dbtest.Eventually(t, what, func() bool {
					turn.Lock()
					defer turn.Unlock()
					return failed && locks == scan[int](t, session, `SELECT count(*) FROM pg_locks
						WHERE locktype = 'advisory' AND classid::bigint = $1 AND pid = pg_backend_pid()`, class)
				})
			}
			held(t, d, 1)()
			held(t, d, budget)()
			if n := d.Stat().Tickets; n != budget {
				t.Errorf("%d tickets", n)
			}
			ended("the session holds no ticket that a connection has", db.TicketClass, 0)
			ended("the session publishes one demand", db.DemandClass, 1)
		})
	}
}
