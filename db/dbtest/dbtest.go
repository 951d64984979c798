// Package dbtest gives a test a PostgreSQL of its own: one private server for the test binary, and for each
// test a database cloned from a migrated template.
package dbtest

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"ddtb/config"
	"ddtb/db"
)

// Run starts the private server, runs the tests, and stops it. A TestMain calls it:
//
//	func TestMain(m *testing.M) { dbtest.Run(m) }
func Run(m *testing.M) { panic("skeleton") }

// Config is the configuration of a new, migrated, empty database, which goes with the test. Strategy and the
// rest are the defaults; the test may change them before db.Open.
func Config(t testing.TB) config.Database { t.Helper(); panic("skeleton") }

// Open is db.Open on Config(t), closed with the test.
func Open(t testing.TB) *db.DB { t.Helper(); panic("skeleton") }

// Control is a superuser's connection to that database which does not go through package db: it looks at
// pg_stat_activity, and kills.
func Control(t testing.TB, cfg config.Database) *pgx.Conn {
	t.Helper()
	_ = context.Background
	panic("skeleton")
}
