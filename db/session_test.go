package db

import "testing"

func TestOnlyStatementsThatMayChangeTheSessionCostAReset(t *testing.T) {
	for sql, want := range map[string]bool{
		"SELECT 1":                                false,
		"  select id from polls_question":         false,
		"(SELECT 1) UNION (SELECT 2)":             false,
		"INSERT INTO t VALUES ($1)":               false,
		"WITH a AS (SELECT 1) SELECT * FROM a":    false,
		"UPDATE t SET a = 1":                      false,
		"DELETE FROM t;":                          false,
		"BEGIN":                                   false,
		"rollback":                                false,
		"SET search_path = x":                     true,
		"set local work_mem = '1MB'":              true,
		"CREATE TEMP TABLE t (n int)":             true,
		"LISTEN news":                             true,
		"PREPARE p AS SELECT 1":                   true,
		"DECLARE c CURSOR WITH HOLD FOR SELECT 1": true,
		"SELECT set_config('a.b', 'c', false)":    true,
		"SELECT pg_advisory_lock(1)":              true,
		"SELECT PG_TRY_ADVISORY_LOCK(1)":          true,
		"SELECT 1 INTO TEMP t":                    true,
		"SELECT 1; SET x = 1":                     true,
		"SELECT ';'":                              true, // a literal: a reset too many does no harm
		"DO $$ BEGIN PERFORM set_config('a') $$":  true,
		"-- a comment first\nSELECT 1":            true,
		"":                                        true,
		"VACUUM":                                  true,
		"SELECT pg_advisory_xact_lock (1)":        true,
		"SELECT my_function(1)":                   true,
		"SELECT app.count(1)":                     true,
		`SELECT "count"(1)`:                       true,
		`SELECT "my count" (1)`:                   true,
		"SELECT f/* a comment */(1)":              true,
		"SELECT set_config -- why?\n('a.b', 'c')": true,
		"SELECT pg_advisory_lock -- now\n(1)":     true,
		"SELECT pg_advisory_lock\f(1)":            true,
		"SELECT * FROM mine(1)":                   true,
		"SELECT 1 INTO  LOCAL\nTEMPORARY t":       true,
		"UPDATE t SET a = shout(b)":               true,
		"SELECT count(*), Coalesce (max(n), 0)":   false,
		"INSERT INTO t (a, b) VALUES ($1, now())": false,
		`INSERT INTO "my t" ("a") VALUES ($1)`:    false,
		`INSERT INTO app."t"("a") VALUES ($1)`:    false,
		"SELECT (1 + (2)) WHERE a IN (1, 2)":      false,
		"SELECT EXISTS (SELECT FROM a)":           false,
		"WITH a AS (SELECT 1), b AS (SELECT 2) DELETE FROM t USING (SELECT 1) x": false,
		"SELECT 'é' || set_Config('a', 'b', true)":                               true,
	} {
		if got := changesSession(sql); got != want {
			t.Errorf("%q: %v", sql, got)
		}
	}
}

func BenchmarkChangesSession(b *testing.B) {
	const sql = `SELECT q.id, q.question_text, q.pub_date, c.id, c.choice_text, c.votes FROM polls_question q
		LEFT JOIN polls_choice c ON c.question_id = q.id WHERE q.id = $1 AND q.pub_date <= $2 AND EXISTS (SELECT FROM x)`
	for b.Loop() {
		if changesSession(sql) {
			b.Fatal("it does not")
		}
	}
}
