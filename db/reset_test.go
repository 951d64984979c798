package db_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

func onePool(c *config.Database) { pool(c); c.Pool.MaxSize = 1 }

func TestOnlyStatementsThatMayChangeTheSessionCostAReset(t *testing.T) {
	for _, c := range []struct {
		sql   string
		reset bool
	}{
		{"SELECT 1", false},
		{"  select id from polls_question", false},
		{"WITH a AS (SELECT 1) SELECT * FROM a", false},
		{"VALUES (1)", false},
		{"INSERT INTO polls_question (question_text, pub_date) VALUES ('a', now())", false},
		{"UPDATE polls_question SET question_text = 'b'", false},
		{"DELETE FROM polls_question", false},
		{"SELECT ';'", true}, // a literal with a semicolon: a needless reset does no harm
		{"SET work_mem = '1MB'", true},
		{"CREATE TEMP TABLE t (n int)", true},
		{"CREATE TEMP TABLE t AS SELECT 1 AS n", true},
		{"SELECT 1 AS n INTO TEMP t", true},
		{"LISTEN news", true},
		{"PREPARE p AS SELECT 1", true},
		{"SET work_mem = '1MB'; SELECT 1", true},
		{"DO $$ BEGIN PERFORM set_config('a.b', 'c', false); END $$", true},
	} {
		t.Run(c.sql, func(t *testing.T) {
			d, control, _ := open(t, onePool)
			for _, way := range []string{"Exec", "Query", "InTx"} {
				if _, err := d.Exec(t.Context(), "SELECT 'before'"); err != nil {
					t.Fatal(err)
				}
				var err error
				switch way {
				case "Exec":
					_, err = d.Exec(t.Context(), c.sql)
				case "Query":
					if c.sql == "SET work_mem = '1MB'; SELECT 1" {
						continue // the extended protocol takes one statement
					}
					rows, _ := d.Query(t.Context(), c.sql)
					rows.Close()
					err = rows.Err()
				case "InTx":
					err = d.InTx(t.Context(), func(q db.Querier) error { _, err := q.Exec(t.Context(), c.sql); return err })
				}
				if err != nil {
					t.Fatalf("%s: %v", way, err)
				}
				last := scan[string](t, control, "SELECT query FROM pg_stat_activity WHERE application_name = $1",
					d.Config().ApplicationName+"/pool")
				if got := strings.HasSuffix(last, "RESET ROLE"); got != c.reset {
					t.Errorf("by %s: the last statement of the session is %q", way, last)
				}
			}
		})
	}
}

// pgx takes its options as arguments: a statement that has some may still be several.
func TestSeveralStatementsWithOptionsOfPgxCostAReset(t *testing.T) {
	const sql = "SET work_mem = '1MB'; SELECT 1"
	exec := func(option any) func(context.Context, db.Querier) error {
		return func(ctx context.Context, q db.Querier) error { _, err := q.Exec(ctx, sql, option); return err }
	}
	for name, do := range map[string]func(context.Context, db.Querier) error{
		"Exec with a mode":        exec(pgx.QueryExecModeExec),
		"Exec with no named args": exec(pgx.NamedArgs{}),
		"Query by the simple protocol": func(ctx context.Context, q db.Querier) error {
			rows, _ := q.Query(ctx, sql, pgx.QueryExecModeSimpleProtocol)
			rows.Close()
			return rows.Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, way := range []string{"by itself", "InTx"} {
				d, _, _ := open(t, onePool)
				switch way {
				case "by itself":
					must(t, do(t.Context(), d))
				case "InTx":
					must(t, d.InTx(t.Context(), func(q db.Querier) error { return do(t.Context(), q) }))
				}
				var now string
				if err := d.QueryRow(t.Context(), "SHOW work_mem").Scan(&now); err != nil || now != "4MB" {
					t.Errorf("%s: the next holder has %q (%v)", way, now, err)
				}
			}
		})
	}
}

func TestResetAlwaysSeesWhatAFunctionChanged(t *testing.T) {
	d, _, _ := open(t, func(c *config.Database) { onePool(c); c.Reset = db.ResetAlways })
	if _, err := d.Exec(t.Context(), "SELECT set_config('a.b', 'c', false)"); err != nil {
		t.Fatal(err)
	}
	var kept *string
	if err := d.QueryRow(t.Context(), "SELECT nullif(current_setting('a.b', true), '')").Scan(&kept); err != nil || kept != nil {
		t.Errorf("the next holder finds %v (%v)", kept, err)
	}
}

func TestAResetKeepsTheRoleThatTheServerSetsAtLogin(t *testing.T) {
	d, control, _ := open(t, onePool)
	user := d.Config().User
	run(t, control, "CREATE ROLE \"role of "+d.Config().Name+"\"")
	role := "role of " + d.Config().Name
	run(t, control, "GRANT \""+role+"\" TO "+user)
	run(t, control, "ALTER ROLE "+user+" IN DATABASE \""+d.Config().Name+"\" SET role = '"+role+"'")
	t.Cleanup(func() {
		control := dbtest.Control(t, d.Config())
		_, _ = control.Exec(t.Context(), "ALTER ROLE "+user+" IN DATABASE \""+d.Config().Name+"\" RESET role")
	})
	for range 2 {
		var now string
		if err := d.QueryRow(t.Context(), "SELECT current_user").Scan(&now); err != nil || now != role {
			t.Errorf("the role is %q (%v)", now, err)
		}
		if _, err := d.Exec(t.Context(), "SET work_mem = '1MB'"); err != nil {
			t.Fatal(err)
		}
	}
}

// Each of these sessions was right when it was opened, and is not any more.
func TestASessionThatIsOutdatedCostsNoError(t *testing.T) {
	for name, c := range map[string]struct{ before, change, statement string }{
		"a widened column": {"SELECT * FROM t", "ALTER TABLE t ALTER a TYPE varchar(400)", "SELECT * FROM t"},
		"an added column":  {"SELECT * FROM t", "ALTER TABLE t ADD b int", "SELECT * FROM t"},
		"a database that was read-only": {
			"SELECT 1", "", "INSERT INTO t VALUES ('x')",
		},
		"a prepared statement that was dropped": {"SELECT * FROM t", "", "SELECT * FROM t"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, way := range []string{"Query", "Exec", "InTx"} {
				d, control, _ := open(t, func(c *config.Database) { pool(c); c.Pool.MaxSize = 2 })
				run(t, control, "CREATE TABLE IF NOT EXISTS t (a varchar(200)); GRANT ALL ON t TO PUBLIC")
				if name == "a database that was read-only" {
					run(t, control, "ALTER DATABASE \""+d.Config().Name+"\" SET default_transaction_read_only = on")
				}
				var held []*db.Lease
				for range 2 { // two sessions know the statement
					l, err := d.Acquire(t.Context())
					must(t, err)
					held = append(held, l)
				}
				for _, l := range held {
					l.Release()
				}
				for range 4 {
					if _, err := d.Exec(t.Context(), c.before); err != nil {
						t.Fatal(err)
					}
				}
				switch name {
				case "a database that was read-only":
					run(t, control, "ALTER DATABASE \""+d.Config().Name+"\" RESET default_transaction_read_only")
				case "a prepared statement that was dropped":
					if _, err := d.Exec(t.Context(), "DEALLOCATE ALL"); err != nil {
						t.Fatal(err)
					}
				default:
					run(t, control, c.change)
				}
				for range 4 {
					var err error
					switch way {
					case "Query":
						rows, _ := d.Query(t.Context(), c.statement)
						rows.Close()
						err = rows.Err()
					case "Exec":
						_, err = d.Exec(t.Context(), c.statement)
					case "InTx":
						err = d.InTx(t.Context(), func(q db.Querier) error { _, err := q.Exec(t.Context(), c.statement); return err })
					}
					if err != nil {
						t.Errorf("by %s: %v", way, err)
					}
				}
			}
		})
	}
}

// A migration of several steps makes the sessions outdated again that replaced the first ones.
func TestATableThatChangesAgainAndAgainCostsNoError(t *testing.T) {
	const sessions = 12
	d, control, _ := open(t, func(c *config.Database) { pool(c); c.Pool.MaxSize = sessions })
	run(t, control, "CREATE TABLE t (a varchar(200)); INSERT INTO t VALUES ('x'); GRANT ALL ON t TO PUBLIC")
	ask := func(sleep float64) {
		rows, _ := d.Query(t.Context(), "SELECT *, pg_sleep($1) FROM t", sleep)
		rows.Close()
		if err := rows.Err(); err != nil {
			t.Error(err)
		}
	}
	for step := range 4 {
		var all sync.WaitGroup
		for range sessions { // so that each session knows the statement
			all.Go(func() { ask(0.2) })
		}
		all.Wait()
		before := d.Stat().Connects
		run(t, control, fmt.Sprintf("ALTER TABLE t ALTER a TYPE varchar(%d)", 201+step))
		if step > 0 { // the next moment, again
			ask(0)
			for range sessions {
				all.Go(func() { ask(0.02) })
			}
			all.Wait()
			run(t, control, fmt.Sprintf("ALTER TABLE t ALTER a TYPE varchar(%d)", 301+step))
		}
		for range sessions {
			ask(0)
		}
		if opened := d.Stat().Connects - before; opened < 1 || step == 0 && opened > 3 {
			t.Errorf("step %d: %d sessions were opened", step, opened)
		}
	}
}

// What no session may do is no reason to open new ones.
func TestAMissingPrivilegeReplacesNoSessionForLong(t *testing.T) {
	d, control, _ := open(t, func(c *config.Database) { pool(c); c.Pool.MaxSize = 3; c.Reset = db.ResetAlways })
	run(t, control, "CREATE TABLE t (a int); REVOKE ALL ON t FROM PUBLIC")
	for range 100 {
		if _, err := d.Exec(t.Context(), "SELECT * FROM t"); err == nil {
			t.Fatal("the role may read the table: the test proves nothing")
		}
	}
	if n := d.Stat().Connects; n > 6 {
		t.Errorf("%d connects", n)
	}
}

// Even a new session is outdated if its statement was prepared just before the change.
func TestATableThatChangesWhileAStatementBeginsCostsNoError(t *testing.T) {
	everyStrategy(t, func(t *testing.T, set func(*config.Database)) {
		cfg := dbtest.Config(t)
		set(&cfg)
		control := dbtest.Control(t, cfg)
		run(t, control, "CREATE TABLE t (a varchar(200)); GRANT ALL ON t TO PUBLIC")
		change := &changer{change: func() { run(t, control, "ALTER TABLE t ALTER a TYPE varchar(400)") }}
		d, err := db.OpenWith(cfg, db.Options{Tracer: change})
		must(t, err)
		t.Cleanup(func() { _ = d.Close(context.Background()) })
		rows, _ := d.Query(t.Context(), "SELECT * FROM t") // Exec would not prepare it
		rows.Close()
		if err := rows.Err(); err != nil {
			t.Error(err)
		}
		if change.prepared.Load() != 2 {
			t.Errorf("prepared %d times, want 2: before the change and after it", change.prepared.Load())
		}
	})
}

// changer is a Tracer that makes its change after the first statement was prepared.
type changer struct {
	diary
	prepared atomic.Int32
	change   func()
}

func (c *changer) TracePrepareStart(ctx context.Context, _ *pgx.Conn, _ pgx.TracePrepareStartData) context.Context {
	return ctx
}

func (c *changer) TracePrepareEnd(context.Context, *pgx.Conn, pgx.TracePrepareEndData) {
	if c.prepared.Add(1) == 1 {
		c.change()
	}
}

func TestATypeThatWasMadeAgainCostsNoError(t *testing.T) {
	for way, ask := range map[string]func(context.Context, *db.DB, string, ...any) error{
		"Query": func(ctx context.Context, d *db.DB, sql string, args ...any) error {
			rows, _ := d.Query(ctx, sql, args...)
			rows.Close()
			return rows.Err()
		},
		"Exec": func(ctx context.Context, d *db.DB, sql string, args ...any) error {
			_, err := d.Exec(ctx, sql, args...)
			return err
		},
		"InTx": func(ctx context.Context, d *db.DB, sql string, args ...any) error {
			return d.InTx(ctx, func(q db.Querier) error { _, err := q.Exec(ctx, sql, args...); return err })
		},
	} {
		t.Run(way, func(t *testing.T) {
			d, control, _ := open(t, func(c *config.Database) { pool(c); c.Pool.MaxSize = 1 })
			run(t, control, "CREATE TYPE mood AS ENUM ('calm'); CREATE TABLE t (m mood); GRANT ALL ON t TO PUBLIC")
			const statement = "SELECT count(*) FROM t WHERE m = $1"
			if err := ask(t.Context(), d, statement, "calm"); err != nil {
				t.Fatal(err)
			}
			run(t, control, "ALTER TABLE t ALTER m TYPE text; DROP TYPE mood; CREATE TYPE mood AS ENUM ('calm', 'tense'); "+
				"ALTER TABLE t ALTER m TYPE mood USING m::mood")
			if err := ask(t.Context(), d, statement, "calm"); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAQueryThatTheServerNeverAnswersEndsAfterQueryTimeout(t *testing.T) {
	s := dbtest.NewServer(t, dbtest.Options{})
	cfg := s.Config(t)
	cfg.Strategy, cfg.Pool.MaxSize, cfg.QueryTimeout = db.Pool, 1, 300*time.Millisecond
	d, err := db.Open(t.Context(), cfg)
	must(t, err)
	defer func() { _ = d.Close(t.Context()) }()
	one(t, d, t.Context())
	s.Pause(t) // the kernel still acknowledges what it gets
	began := time.Now()
	_, err = d.Exec(t.Context(), "SELECT 1")
	took := time.Since(began)
	s.Resume(t)
	if !errors.Is(err, db.ErrQueryTimeout) || took > 5*time.Second {
		t.Errorf("%v after %v", err, took)
	}
	one(t, d, t.Context())
}
