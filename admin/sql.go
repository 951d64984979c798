package admin

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"ddtb/db"
)

// All SQL consists of constants, of identifiers from the declarations, quoted with ident, and of parameters.

func ident(name string) string { return pgx.Identifier{name}.Sanitize() }

// where collects conditions on the table with alias t, and their parameters.
type where struct {
	conditions []string
	args       []any
}

// param returns the placeholder of a new parameter. Its use has a cast: otherwise PostgreSQL would use the column's
// type, and a number too large for it would be an error instead of no match.
func (w *where) param(value any) string {
	w.args = append(w.args, value)
	return fmt.Sprintf("$%d", len(w.args))
}

func (w *where) and(condition string) { w.conditions = append(w.conditions, condition) }

func (w *where) String() string {
	if len(w.conditions) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(w.conditions, " AND ")
}

func (w *where) clone() *where {
	return &where{append([]string{}, w.conditions...), append([]any{}, w.args...)}
}

// expression returns the SQL expression of a field of table t.
func (f *Field) expression() string {
	switch f.Kind {
	case Many:
		return fmt.Sprintf("ARRAY(SELECT p.%s::bigint FROM %s p WHERE p.%s = t.id ORDER BY 1)",
			ident(f.Pairs.Other), ident(f.Pairs.Table), ident(f.Pairs.Own))
	case Reference:
		return fmt.Sprintf("(SELECT r.%s FROM %s r WHERE r.id = t.%s)", ident(f.Target.Label), ident(f.Target.Table), ident(f.Name))
	case Choice:
		return "t." + ident(f.Name) + "::bigint"
	case NewPassword:
		return "NULL"
	}
	return "t." + ident(f.Name)
}

// row is one row of a model: its id, its name, and some of its fields.
type row struct {
	id     int64
	label  string
	parent int64 // of an inline's row
	values map[string]any
}

// read selects rows with these fields, and with the id in the column parent. rest is the query from WHERE on.
func (m *Model) read(
	ctx context.Context, q db.Querier, fields []*Field, parent, rest string, args ...any,
) ([]row, error) {
	columns := []string{"t.id::bigint", "t." + ident(m.Label) + "::text", "t." + ident(parent) + "::bigint"}
	for _, f := range fields {
		columns = append(columns, f.expression())
	}
	sql := fmt.Sprintf("SELECT %s FROM %s t %s", strings.Join(columns, ", "), ident(m.Table), rest)
	found, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", m.Plural, err)
	}
	return pgx.CollectRows(found, func(r pgx.CollectableRow) (row, error) {
		values, err := r.Values()
		if err != nil {
			return row{}, fmt.Errorf("read %s: %w", m.Plural, err)
		}
		got := row{values: make(map[string]any, len(fields))}
		got.id, _ = values[0].(int64)
		got.label, _ = values[1].(string)
		got.parent, _ = values[2].(int64)
		for i, f := range fields {
			got.values[f.Name] = values[3+i]
		}
		return got, nil
	})
}

// find reads one row by id, locked if lock is "FOR NO KEY UPDATE" or similar. It returns errGone if there is none.
func (m *Model) find(ctx context.Context, q db.Querier, fields []*Field, id int64, lock string) (row, error) {
	if lock != "" { // by itself: a statement that waited for a lock sees other tables as they were before
		if _, err := q.Exec(ctx, "SELECT FROM "+ident(m.Table)+" t WHERE t.id = $1::bigint "+lock, id); err != nil {
			return row{}, fmt.Errorf("lock a %s: %w", m.Singular, err)
		}
	}
	rows, err := m.read(ctx, q, fields, "id", "WHERE t.id = $1::bigint", id)
	if err != nil {
		return row{}, err
	}
	if len(rows) == 0 {
		return row{}, errGone
	}
	return rows[0], nil
}

// insert adds a row with these columns, and returns its id.
func insert(ctx context.Context, q db.Querier, table string, values map[string]any) (id int64, err error) {
	var columns, places []string
	var args []any
	for _, column := range slices.Sorted(maps.Keys(values)) {
		args = append(args, values[column])
		columns, places = append(columns, ident(column)), append(places, fmt.Sprintf("$%d", len(args)))
	}
	err = q.QueryRow(ctx, fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s) RETURNING id::bigint",
		ident(table), strings.Join(columns, ", "), strings.Join(places, ", ")), args...).Scan(&id)
	return id, err
}

// update changes columns of one row. Without columns it does nothing.
func update(ctx context.Context, q db.Querier, table string, id int64, values map[string]any) error {
	if len(values) == 0 {
		return nil
	}
	args, sets := []any{id}, []string{}
	for _, column := range slices.Sorted(maps.Keys(values)) {
		args = append(args, values[column])
		sets = append(sets, fmt.Sprintf("%s = $%d", ident(column), len(args)))
	}
	_, err := q.Exec(ctx, fmt.Sprintf("UPDATE %s SET %s WHERE id = $1::bigint", ident(table), strings.Join(sets, ", ")), args...)
	return err
}

// remove deletes the rows whose column has one of the ids.
func remove(ctx context.Context, q db.Querier, table, column string, ids []int64) error {
	if len(ids) == 0 {
		return nil
	}
	_, err := q.Exec(ctx, fmt.Sprintf("DELETE FROM %s WHERE %s = ANY($1::bigint[])", ident(table), ident(column)), ids)
	if err != nil {
		return fmt.Errorf("delete from %s: %w", table, err)
	}
	return nil
}

// store changes the pairs of one row from before to after. Pairs in neither stay.
func (p *Pairs) store(ctx context.Context, q db.Querier, own int64, before, after []int64) error {
	table, ownColumn, other := ident(p.Table), ident(p.Own), ident(p.Other)
	_, err := q.Exec(ctx, fmt.Sprintf("DELETE FROM %s WHERE %s = $1::bigint AND %s = ANY($2::bigint[]) AND %s <> ALL($3::bigint[])",
		table, ownColumn, other, other), own, before, after)
	if err != nil {
		return err
	}
	_, err = q.Exec(ctx, fmt.Sprintf("INSERT INTO %s (%s, %s) SELECT $1::bigint, unnest($2::bigint[]) ON CONFLICT DO NOTHING",
		table, ownColumn, other), own, after)
	return err
}
