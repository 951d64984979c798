package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/db"
)

// listing is the data of a changelist from the database.
type listing struct {
	rows    []row
	matches count // rows that match
	total   count // all rows
	steps   []time.Time
	options map[string][]option // of filters by a relation
}

// count is a number of rows: exact, or the planner's estimate if counting would take long.
type count struct {
	n       int64
	guessed bool
}

func (c count) String() string {
	if c.guessed {
		return "about " + thousands(c.n)
	}
	return thousands(c.n)
}

func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// countedUpTo is the number of rows that are counted exactly: about 2 ms.
const countedUpTo = 10_000

// list reads one page of the changelist in one transaction, so that it waits for only one lease.
func (l *lookups) list(ctx context.Context, d *db.DB) (*listing, error) {
	got := &listing{options: map[string][]option{}}
	err := d.InTx(ctx, func(q db.Querier) error {
		var err error
		if got.rows, err = l.readPage(ctx, q); err != nil {
			return fmt.Errorf("list %s: %w", l.model.Plural, err)
		}
		if got.total, err = countRows(ctx, q, l.model, &where{}); err != nil {
			return fmt.Errorf("count %s: %w", l.model.Plural, err)
		}
		if l.complete(got) {
			got.matches, got.steps = count{n: int64(len(got.rows))}, l.stepsOf(got.rows)
			return l.readOptions(ctx, q, got.options)
		}
		got.matches = got.total
		if len(l.where.conditions) > 0 {
			if got.matches, err = countRows(ctx, q, l.model, &l.where); err != nil {
				return fmt.Errorf("count %s: %w", l.model.Plural, err)
			}
		}
		if l.model.Hierarchy != "" {
			if got.steps, err = l.readSteps(ctx, q); err != nil {
				return fmt.Errorf("dates of %s: %w", l.model.Plural, err)
			}
		}
		return l.readOptions(ctx, q, got.options)
	})
	return got, err
}

// complete reports whether the page has every matching row, with its date. Then a search without an index has read the
// table once, and need not read it again to count.
func (l *lookups) complete(got *listing) bool {
	if l.page > 1 || len(got.rows) >= pageSize {
		return false
	}
	dated := func(c Column) bool { return c.Field == l.model.Hierarchy }
	return l.model.Hierarchy == "" || slices.ContainsFunc(l.model.Columns, dated)
}

// unit is the date hierarchy's next level; "" if there is none.
func (l *lookups) unit() string {
	switch {
	case l.model.Hierarchy == "" || l.level.day > 0:
		return ""
	case l.level.year == 0:
		return "year"
	case l.level.month == 0:
		return "month"
	}
	return "day"
}

// stepsOf returns the years, months or days of rows.
func (l *lookups) stepsOf(rows []row) []time.Time {
	var steps []time.Time
	for _, row := range rows {
		t, ok := row.values[l.model.Hierarchy].(time.Time)
		if !ok {
			continue
		}
		year, month, day := t.UTC().Date()
		switch l.unit() {
		case "":
			return nil
		case "year":
			month, day = 1, 1
		case "month":
			day = 1
		}
		steps = append(steps, time.Date(year, month, day, 0, 0, 0, 0, time.UTC))
	}
	slices.SortFunc(steps, time.Time.Compare)
	return slices.Compact(steps)
}

func (l *lookups) columnFields() []*Field {
	var fields []*Field
	for _, c := range l.model.Columns {
		fields = append(fields, l.model.field(c.Field))
	}
	return fields
}

func (l *lookups) readPage(ctx context.Context, q db.Querier) ([]row, error) {
	fields, w := l.columnFields(), l.where.clone()
	limit, offset := pageSize, (l.page-1)*pageSize
	if l.all {
		limit, offset = showAllMax, 0
	}
	sql := l.model.selection(fields, "") + w.String() + l.orderBy() +
		fmt.Sprintf(" LIMIT %s OFFSET %s", w.param(limit), w.param(offset))
	return readRows(ctx, q, fields, sql, w.args...)
}

// countRows counts up to countedUpTo rows. Beyond that it uses the planner's estimate: counting a million rows takes
// longer than showing a hundred.
func countRows(ctx context.Context, q db.Querier, m *Model, w *where) (count, error) {
	w = w.clone()
	from := " FROM " + ident(m.Table) + " t" + w.String()
	var n int64
	counted := "SELECT count(*) FROM (SELECT" + from + " LIMIT " + w.param(countedUpTo+1) + ") counted"
	err := q.QueryRow(ctx, counted, w.args...).Scan(&n)
	if err != nil || n <= countedUpTo {
		return count{n: n}, err
	}
	var plan []byte
	args := w.args[:len(w.args)-1]
	if err := q.QueryRow(ctx, "EXPLAIN (FORMAT JSON) SELECT"+from, args...).Scan(&plan); err != nil {
		return count{}, err
	}
	var explained []struct {
		Plan struct {
			Rows float64 `json:"Plan Rows"`
		}
	}
	if err := json.Unmarshal(plan, &explained); err != nil || len(explained) == 0 {
		return count{}, fmt.Errorf("read a plan: %w", err)
	}
	return count{n: max(int64(explained[0].Plan.Rows), n), guessed: true}, nil
}

// readSteps finds the years, months or days that have rows. It jumps through the index from one to the next, so that
// its cost depends on the steps, not on the rows.
func (l *lookups) readSteps(ctx context.Context, q db.Querier) ([]time.Time, error) {
	unit := l.unit()
	if unit == "" {
		return nil, nil
	}
	w, column := l.where.clone(), "t."+ident(l.model.Hierarchy)
	u := w.param(unit)
	step := fmt.Sprintf("date_trunc(%s::text, %s AT TIME ZONE 'UTC')", u, column)
	from := " FROM " + ident(l.model.Table) + " t"
	first := w.clone()
	first.and(column + " IS NOT NULL")
	next := w.clone()
	next.and(fmt.Sprintf("%s >= (d.step + ('1 ' || %s::text)::interval) AT TIME ZONE 'UTC'", column, u))
	sql := "WITH RECURSIVE d (step) AS ((SELECT " + step + from + first.String() + " ORDER BY " + column + " LIMIT 1)" +
		" UNION ALL SELECT (SELECT " + step + from + next.String() + " ORDER BY " + column + " LIMIT 1)" +
		" FROM d WHERE d.step IS NOT NULL) SELECT step FROM d WHERE step IS NOT NULL LIMIT 100"
	found, err := q.Query(ctx, sql, w.args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(found, pgx.RowTo[time.Time])
}

// maxOptions limits the links of a filter by a relation.
const maxOptions = 50

func (l *lookups) readOptions(ctx context.Context, q db.Querier, into map[string][]option) error {
	for _, name := range l.model.Filters {
		var err error
		switch k := l.model.field(name).Kind.(type) {
		case *Many:
			into[name], err = k.options(ctx, q)
		case Reference:
			into[name], err = k.choices(ctx, q)
		}
		if err != nil {
			return fmt.Errorf("choices of %s: %w", name, err)
		}
		into[name] = into[name][:min(len(into[name]), maxOptions)]
	}
	return nil
}

// choices returns the rows that a reference may have.
func (k Reference) choices(ctx context.Context, q db.Querier) ([]option, error) {
	found, err := q.Query(ctx, fmt.Sprintf("SELECT id::bigint, %s::text FROM %s ORDER BY 2, 1 LIMIT $1",
		ident(k.Label), ident(k.Table)), maxOptions)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(found, func(r pgx.CollectableRow) (o option, err error) {
		return o, r.Scan(&o.ID, &o.Label)
	})
}
