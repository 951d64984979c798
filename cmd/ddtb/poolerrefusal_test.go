package main

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/app/web"
	"ddtb/config"
	"ddtb/db"
	"ddtb/db/activity"
	"ddtb/db/dbtest"
)

// TestEachRefusalOfARealPgBouncerHasItsCauseItsSentenceAndItsHint makes each of them happen.
func TestEachRefusalOfARealPgBouncerHasItsCauseItsSentenceAndItsHint(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, old, line string // of PgBouncer's configuration
		change          func(*config.Database)
		first           string // what a client that is in has done before; "": there is none
		cause           db.Cause
		hint, sentence  string
	}{
		{
			"no room for another client", "pool_mode", "max_client_conn = 1\npool_mode", nil, "SELECT 1",
			db.PoolerFull, "raise it", "pooler in front of the database is full",
		},
		{
			"every server connection busy", "default_pool_size = 3", "default_pool_size = 1\nquery_wait_timeout = 1", nil, "BEGIN",
			db.PoolerFull, "raise default_pool_size", "pooler in front of the database is full",
		},
		{
			"a database that it does not have", "* = ", "another = ", func(s *config.Database) { s.Name = "nothing" }, "",
			db.LoginRejected, "[databases] lacks this database", "check the pooler's databases and users",
		},
		{
			"a user whom it does not know", "pool_mode", "pool_mode", func(s *config.Database) { s.User = "stranger" }, "",
			db.LoginRejected, "auth_file", "check the pooler's databases and users",
		},
		{
			"a wrong password", "pool_mode", "pool_mode", func(s *config.Database) { s.Password = "wrong" }, "",
			db.LoginRejected, "auth_file", "check the pooler's databases and users",
		},
		{
			"a setting that it does not take", "pool_mode", "pool_mode",
			func(s *config.Database) { s.Pooler, s.StatementTimeout = "", time.Second }, "",
			db.SettingRefused, `pooler = "pgbouncer"`, "the configuration does not say so",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m, direct := withDatabase(t)
			b := newBouncerFor(m, direct, direct.User, c.old, c.line)
			if c.first != "" {
				cc, err := db.ConnConfig(b.cfg, "first")
				if err != nil {
					t.Fatal(err)
				}
				var first *pgx.Conn
				dbtest.Eventually(t, "the first client is in", func() bool { // the harness's own has to be out
					first, err = db.Connect(t.Context(), cc)
					return err == nil
				})
				defer db.Disconnect(first)
				run(t, first, c.first)
			}
			cfg := b.cfg
			if c.change != nil {
				c.change(&cfg)
			}
			var err error
			dbtest.Eventually(t, "PgBouncer refuses", func() bool {
				err = asked(t, cfg)
				return db.ByPooler(err)
			})
			if db.CauseOf(err) != c.cause || !strings.Contains(db.Hint(err), c.hint) {
				t.Errorf("cause %q, hint %q: %v", db.CauseOf(err), db.Hint(err), err)
			}
			if advice := adviceOn(err); advice != db.Hint(err) {
				t.Errorf("a command advises %q, and the message %q", advice, db.Hint(err))
			}
			if do := activity.Unreachable(err).Findings[0].Do; c.cause == db.SettingRefused && do != db.Hint(err) {
				t.Errorf("the monitor advises %q, and the message %q", do, db.Hint(err))
			}
			if p := web.ProblemOf(err); !strings.Contains(p.Detail, c.sentence) || (p.RetryAfter > 0) != c.cause.Passes() {
				t.Errorf("%+v", p)
			}
		})
	}
}

// ask makes one query as the application does.
func asked(t *testing.T, cfg config.Database) error {
	t.Helper()
	d, err := db.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close(t.Context()) }()
	_, err = d.Exec(t.Context(), "SELECT 1")
	return err
}
