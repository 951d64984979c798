package scenarios

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"ddtb/app/lab/scene"
)

var _ = add(scene.Scenario{
	Number: 21, Name: "prepared-under-pooler", Title: "cached statements behind a transaction pooler",
	Family: scene.TooMany, Message: `ERROR: prepared statement "stmtcache_…" does not exist`,
	Why: "The driver prepares a statement once for a connection, and refers to it by name from then on. " +
		"In transaction mode the next transaction may run on another server connection, which does not know the name, or has it from another client. " +
		"The server answers 26000 or 42P05, and the more clients share, the more often.",
	Figure: "requests failed", FixedBy: "an execution mode without named statements",
	Note: "PgBouncer 1.21 and later can follow prepared statements (max_prepared_statements, 200 by default since 1.24); here that is off, as in the versions before.",
	SQL: `SELECT name, statement, prepare_time FROM pg_prepared_statements; -- through the pooler, a few times:
-- the answers differ, because each may come from another server connection`,
	Recipe: "pooler", Threads: scene.Threads("jackc/pgx#602", "pgbouncer/pgbouncer#1118"),
	Load:  scene.Load{Requests: 150, Burst: 5, Every: 25 * time.Millisecond, Patience: 10 * time.Second},
	Value: scene.Counted, // not every failure is one of these: without the fix only those count, and with it all
	Fails: preparedUnderPoolerFails, Works: preparedUnderPoolerWorks,
})

func preparedUnderPoolerFails(s *scene.Stage) scene.Request {
	through := s.PgBouncer(3)
	pool := s.Pool(10, func(c *pgxpool.Config) {
		through(c.ConnConfig) // the default caches statements
	})
	return func(ctx context.Context, n int) error {
		err := pollAndPause(ctx, pool, n)
		if pe, is := errors.AsType[*pgconn.PgError](err); is && slices.Contains(statementLost, pe.Code) {
			s.Count(1)
		}
		return err
	}
}

func preparedUnderPoolerWorks(s *scene.Stage) scene.Request {
	through := s.PgBouncer(3)
	pool := s.Pool(10, func(c *pgxpool.Config) {
		through(c.ConnConfig)
		c.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec // unnamed statements only
	})
	return func(ctx context.Context, n int) error {
		err := pollAndPause(ctx, pool, n)
		if err != nil {
			s.Count(1)
		}
		return err
	}
}

// statementLost are the server's codes for a statement's name that it does not know, or that is taken.
var statementLost = []string{pgerrcode.InvalidSQLStatementName, pgerrcode.DuplicatePreparedStatement}

// pollAndPause reads a poll in one of several ways, so that several statements are cached.
func pollAndPause(ctx context.Context, pool *pgxpool.Pool, n int) error {
	var votes int
	sql := []string{
		"SELECT votes FROM polls WHERE id = $1", "SELECT votes + 1 FROM polls WHERE id = $1",
		"SELECT votes + 2 FROM polls WHERE id = $1", "SELECT votes FROM polls, pg_sleep(0.01) WHERE id = $1",
	}[n%4]
	return pool.QueryRow(ctx, sql, 1+n%1000).Scan(&votes)
}
