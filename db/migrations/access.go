package migrations

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"ddtb/db"
)

// noAccess returns the problem of a role that lacks privileges. what it can't access is a clause. The owner or a
// superuser has to type the statements. err is the server's error, or nil.
func noAccess(role, what string, statements []string, err error) *Problem {
	text := fmt.Sprintf("the role %q can't work here: %s. As a superuser, in this database, type:", role, what)
	for _, s := range statements {
		text += "\n    " + s
	}
	if err != nil {
		text += "\nThe server said: " + err.Error()
	}
	return &Problem{text, statements, err}
}

// tables lists the tables that the program reads and writes, in SQL.
const tables = `'polls_question', 'polls_choice', 'django_content_type', 'auth_permission', 'auth_group',
	'auth_group_permissions', 'auth_user', 'auth_user_groups', 'auth_user_user_permissions', 'django_admin_log',
	'ddtb_session', 'ddtb_vote', '` + migrationTable + `'`

// closedSQL finds the tables on which the role lacks one of the privileges. An INSERT also needs the sequence if an id
// is a serial column.
const closedSQL = `
SELECT current_user, relname, (
	SELECT s.oid::regclass::text FROM pg_depend JOIN pg_class s ON s.oid = objid AND s.relkind = 'S'
	WHERE classid = 'pg_class'::regclass AND refobjid = c.oid AND deptype IN ('a', 'i') LIMIT 1)
FROM pg_class c
WHERE c.oid IN (SELECT to_regclass(name) FROM unnest(ARRAY[` + tables + `]) name)
	AND EXISTS (SELECT FROM unnest($1::text[]) privilege WHERE NOT has_table_privilege(c.oid, privilege))
ORDER BY relname`

// reading lists the privileges without which no page works; working lists those that all pages together need.
var (
	reading = []string{"SELECT"}
	working = []string{"SELECT", "INSERT", "UPDATE", "DELETE"}
)

// checkAccess returns a *Problem if the role lacks one of the privileges on a table that this program needs.
func checkAccess(ctx context.Context, q db.Querier, privileges []string) error {
	rows, err := q.Query(ctx, closedSQL, privileges)
	if err != nil {
		return err
	}
	var (
		closed, with []string
		role, table  string
		sequence     *string
	)
	if _, err = pgx.ForEachRow(rows, []any{&role, &table, &sequence}, func() error {
		closed = append(closed, pgx.Identifier{table}.Sanitize())
		if sequence != nil {
			with = append(with, *sequence)
		}
		return nil
	}); err != nil || len(closed) == 0 {
		return err
	}
	to := " TO " + pgx.Identifier{role}.Sanitize() + ";"
	statements := []string{"GRANT SELECT, INSERT, UPDATE, DELETE ON " + strings.Join(closed, ", ") + to}
	if len(with) > 0 {
		statements = append(statements, "GRANT USAGE ON SEQUENCE "+strings.Join(with, ", ")+to)
	}
	return noAccess(role, "it may not read, or not change, "+strings.Join(closed, ", "), statements, nil)
}

// mayWork checks that all tables are there and that the role may do everything that the program does.
func mayWork(ctx context.Context, conn *pgx.Conn) error {
	if err := checkMissing(ctx, conn); err != nil {
		return err
	}
	return checkAccess(ctx, conn, working)
}

// withoutSchema explains that no schema of the search_path exists, as after DROP SCHEMA public.
func withoutSchema(role, path string, err error) error {
	schema := "public"
	for one := range strings.SplitSeq(path, ",") {
		if one = strings.Trim(one, ` "`); one != "" && one != "$user" {
			schema = one
		}
	}
	return noAccess(role, fmt.Sprintf("no schema of its search_path (%s) exists to create tables in", path),
		[]string{"CREATE SCHEMA " + pgx.Identifier{schema}.Sanitize() + " AUTHORIZATION " + pgx.Identifier{role}.Sanitize() + ";"}, err)
}

// explain turns the server's refusal of a migration into the statements to run.
func explain(ctx context.Context, cfg db.Settings, err error) error {
	pe, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case !ok || db.CauseOf(err) != "":
		return err
	case pe.Code != pgerrcode.InsufficientPrivilege && pe.Code != pgerrcode.InvalidSchemaName && pe.Code != pgerrcode.UndefinedTable:
		return err
	}
	var name, schema, path string // schema is "" if no schema of the path exists
	var owners []string
	var mayCreate bool
	failed := connected(ctx, cfg, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, `SELECT current_user, current_setting('search_path'), coalesce(current_schema(), ''),
			coalesce(has_schema_privilege(current_schema(), 'CREATE'), true),
			ARRAY(SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class
				WHERE oid IN (SELECT to_regclass(name) FROM unnest(ARRAY[`+tables+`]) name)
				AND NOT pg_has_role(relowner, 'USAGE'))::text[]`).Scan(&name, &path, &schema, &mayCreate, &owners)
	})
	switch {
	case failed != nil:
		return err
	case schema == "":
		return withoutSchema(name, path, err)
	}
	role := pgx.Identifier{name}.Sanitize()
	var what, statements []string
	if !mayCreate {
		what = append(what, fmt.Sprintf("it may not create tables in the schema %q (since PostgreSQL 15 only the database's owner may)", schema))
		statements = append(statements, "GRANT CREATE ON SCHEMA "+pgx.Identifier{schema}.Sanitize()+" TO "+role+";")
	}
	for _, owner := range owners {
		what = append(what, fmt.Sprintf("tables that it has to add an index to belong to %q", owner))
		statements = append(statements, "GRANT "+pgx.Identifier{owner}.Sanitize()+" TO "+role+";")
	}
	if len(what) == 0 {
		return err
	}
	return noAccess(name, strings.Join(what, ", and "), statements, err)
}
