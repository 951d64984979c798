package migrations

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"ddtb/db"
)

// The problem that tables or columns are missing although their migrations were applied: they were dropped or renamed,
// are in a schema that the role does not search, or something that can't be changed, such as a materialized view, has
// their name. A view or a foreign table may stand in for a table.
const missing = "missing, although every migration was applied: "

// missingTables describes missing tables. path is the role's search_path; schemas are others that have tables of these
// names.
func missingTables(tables []string, role, path string, schemas []string) *Problem {
	for i, t := range tables {
		tables[i] = pgx.Identifier{t}.Sanitize()
	}
	text := missing + strings.Join(tables, ", ") + ". "
	if len(schemas) > 0 {
		schema := pgx.Identifier{schemas[0]}.Sanitize()
		text += fmt.Sprintf("The schema %s has tables of these names; to use them, type:\n    ALTER ROLE %s SET search_path = %s;\n",
			schema, pgx.Identifier{role}.Sanitize(), strings.TrimPrefix(path+", "+schema, ", "))
	}
	return &Problem{text: text + "Restore them from a backup. Or recreate them empty: type in this database\n    DELETE FROM " + migrationTable +
		" WHERE version_id != 0;\nand run `ddtb migrate`, which keeps the tables that are there."}
}

// missingColumns describes missing columns, each "table.column", as SQL. found are other columns of the first one's
// table, one of which may be it, renamed.
func missingColumns(columns, found []string) *Problem {
	text := missing + strings.Join(columns, ", ") + ". "
	table, column, _ := strings.Cut(columns[0], ".")
	if len(found) == 0 {
		return &Problem{text: text + "Restore it from a backup."}
	}
	which, name := "the column "+found[0], found[0]
	if len(found) > 1 {
		which, name = "one of the columns "+strings.Join(found, ", "), "ITS_NAME"
	}
	return &Problem{text: text + "If it was renamed, and is " + which + " now, name it back. Type in this database:\n    ALTER TABLE " +
		table + " RENAME COLUMN " + name + " TO " + column + ";\nOtherwise restore it from a backup."}
}

// columns are those that the program reads or writes, of tables that are also Django's.
var columns = map[string]string{
	"polls_question":      "id question_text pub_date",
	"polls_choice":        "id choice_text votes question_id",
	"django_content_type": "id app_label model",
	"auth_permission":     "id name content_type_id codename",
	"auth_group":          "id name",
	"auth_user":           "id password last_login is_superuser username first_name last_name email is_staff is_active date_joined",
	"django_admin_log":    "action_time object_id object_repr action_flag change_message content_type_id user_id",
}

// checkColumns returns a *Problem if a column is missing.
func checkColumns(ctx context.Context, q db.Querier) error {
	var of, names []string
	for _, table := range slices.Sorted(maps.Keys(columns)) {
		for column := range strings.FieldsSeq(columns[table]) {
			of, names = append(of, table), append(names, column)
		}
	}
	rows, err := q.Query(ctx, `
		WITH needed AS (SELECT t, c FROM unnest($1::text[], $2::text[]) n (t, c)),
		present AS (SELECT t, attname::text c FROM (SELECT DISTINCT t FROM needed) n JOIN pg_attribute ON attrelid = to_regclass(t) AND attnum > 0 AND NOT attisdropped)
		SELECT quote_ident(t) || '.' || quote_ident(c),
			ARRAY(SELECT quote_ident(p.c) FROM present p WHERE p.t = n.t AND NOT EXISTS (SELECT FROM needed m WHERE (m.t, m.c) = (p.t, p.c)) ORDER BY 1)
		FROM needed n WHERE NOT EXISTS (SELECT FROM present p WHERE (p.t, p.c) = (n.t, n.c)) ORDER BY 2`, of, names)
	if err != nil {
		return err
	}
	var column string
	var lost, found, foundFirst []string
	_, err = pgx.ForEachRow(rows, []any{&column, &found}, func() error {
		if lost = append(lost, column); len(lost) == 1 {
			foundFirst = found
		}
		return nil
	})
	if err != nil || len(lost) == 0 {
		return err
	}
	return missingColumns(lost, foundFirst)
}

// checkMissing returns a *Problem if a table or a column is missing. It is of use if every migration was applied.
func checkMissing(ctx context.Context, q db.Querier) error {
	rows, err := q.Query(ctx, `
		SELECT current_user, current_setting('search_path'), name, ARRAY(SELECT nspname::text FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
			WHERE relname = name AND relkind IN ('r', 'p') AND has_schema_privilege(relnamespace, 'USAGE') ORDER BY 1)
		FROM unnest(ARRAY[`+tables+`]) name
		WHERE NOT EXISTS (SELECT FROM pg_class WHERE oid = to_regclass(name) AND relkind IN ('r', 'p', 'v', 'f')) ORDER BY name`)
	if err != nil {
		return err
	}
	var role, path, table string
	var in, lost, schemas []string
	_, err = pgx.ForEachRow(rows, []any{&role, &path, &table, &in}, func() error {
		lost, schemas = append(lost, table), append(schemas, in...)
		return nil
	})
	switch {
	case err != nil:
		return err
	case len(lost) == 0:
		return checkColumns(ctx, q)
	}
	return missingTables(lost, role, path, schemas)
}
