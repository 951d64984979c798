package migrations

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"ddtb/db"
)

// MissingError means that tables are missing although their migrations were applied: they were dropped or renamed, are
// in a schema that the role does not search, or something that can't be changed, such as a materialized view, has their
// name. A view or a foreign table may stand in for a table.
type MissingError struct {
	Role    string
	Tables  []string // sorted
	Path    string   // the role's search_path
	Schemas []string // others that have tables of these names
}

func (e *MissingError) Error() string {
	names := pgx.Identifier{e.Tables[0]}.Sanitize()
	for _, t := range e.Tables[1:] {
		names += ", " + pgx.Identifier{t}.Sanitize()
	}
	text := "missing, although every migration was applied: " + names + ". "
	if len(e.Schemas) > 0 {
		schema := pgx.Identifier{e.Schemas[0]}.Sanitize()
		text += fmt.Sprintf("The schema %s has tables of these names; to use them, type:\n    ALTER ROLE %s SET search_path = %s;\n",
			schema, pgx.Identifier{e.Role}.Sanitize(), strings.TrimPrefix(e.Path+", "+schema, ", "))
	}
	return text + "Restore them from a backup. Or make them anew, empty: type in this database\n    DELETE FROM " + migrationTable +
		" WHERE version_id != 0;\nand run `ddtb migrate`, which keeps the tables that are there."
}

// checkMissing returns a *MissingError if a table is missing. It is of use if every migration was applied.
func checkMissing(ctx context.Context, q db.Querier) error {
	rows, err := q.Query(ctx, `
		SELECT current_user, current_setting('search_path'), name, ARRAY(SELECT nspname::text FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
			WHERE relname = name AND relkind IN ('r', 'p') AND has_schema_privilege(relnamespace, 'USAGE') ORDER BY 1)
		FROM unnest(ARRAY[`+tables+`]) name
		WHERE NOT EXISTS (SELECT FROM pg_class WHERE oid = to_regclass(name) AND relkind IN ('r', 'p', 'v', 'f')) ORDER BY name`)
	if err != nil {
		return err
	}
	e := &MissingError{}
	var table string
	var schemas []string
	_, err = pgx.ForEachRow(rows, []any{&e.Role, &e.Path, &table, &schemas}, func() error {
		e.Tables = append(e.Tables, table)
		e.Schemas = append(e.Schemas, schemas...)
		return nil
	})
	if err != nil || len(e.Tables) == 0 {
		return err
	}
	return e
}
