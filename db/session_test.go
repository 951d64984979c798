package db

import "testing"

func TestOnlyStatementsThatMayChangeTheSessionCostAReset(t *testing.T) {
	for sql, want := range map[string]bool{
		"SELECT 1":                                 false,
		"  select id from polls_question":          false,
		"(SELECT 1) UNION (SELECT 2)":              false,
		"INSERT INTO t VALUES ($1)":                false,
		"WITH a AS (SELECT 1) SELECT * FROM a":     false,
		"UPDATE t SET a = 1":                       false,
		"DELETE FROM t;":                           false,
		"BEGIN":                                    false,
		"rollback":                                 false,
		"SET search_path = x":                      true,
		"set local work_mem = '1MB'":               true,
		"CREATE TEMP TABLE t (n int)":              true,
		"LISTEN news":                              true,
		"PREPARE p AS SELECT 1":                    true,
		"DECLARE c CURSOR WITH HOLD FOR SELECT 1":  true,
		"SELECT set_config('a.b', 'c', false)":     true,
		"SELECT pg_advisory_lock(1)":               true,
		"SELECT PG_TRY_ADVISORY_LOCK(1)":           true,
		"SELECT 1 INTO TEMP t":                     true,
		"SELECT 1; SET x = 1":                      true,
		"SELECT ';'":                               true, // a literal: a reset too many does no harm
		"DO $$ BEGIN PERFORM set_config('a') $$":   true,
		"-- a comment first\nSELECT 1":             true,
		"":                                         true,
		"VACUUM":                                   true,
		"SELECT 'é' || set_Config('a', 'b', true)": true,
	} {
		if got := changesSession(sql); got != want {
			t.Errorf("%q: %v", sql, got)
		}
	}
}
