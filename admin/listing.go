package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"ddtb/db"
)

// What a changelist reads from the database.

// count is a number of rows: exact, or the planner's estimate if counting would take long.
type count struct {
	N       int64
	guessed bool
}

func (c count) String() string {
	if c.guessed {
		return "about " + thousands(c.N)
	}
	return thousands(c.N)
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

// read reads one page of the list, and what surrounds it. A list that fits a page needs no other query: its rows give
// their number and dates. q is for declared reads.
func (l *changelist) read(ctx context.Context, q db.Querier) (err error) {
	if l.rows, err = l.readPage(ctx, q); err != nil {
		return err
	}
	complete := l.page == 1 && len(l.rows) < pageSize
	if complete {
		l.Matches = count{N: int64(len(l.rows))}
		l.Total, l.steps = l.Matches, l.stepsOf(l.rows)
	}
	if err = l.readOptions(ctx, q); err != nil || complete && !l.Filtered() {
		return err
	}
	if l.Total, err = countRows(ctx, q, l.Model, &where{}); err != nil || complete {
		return err
	}
	if l.Matches = l.Total; l.Filtered() {
		if l.Matches, err = countRows(ctx, q, l.Model, &l.where); err != nil {
			return err
		}
	}
	if l.all && (l.Matches.guessed || l.Matches.N > showAllMax) { // too many by now: pages, as in Django
		l.all, l.page, l.rows = false, 1, l.rows[:min(len(l.rows), pageSize)]
		l.params.Del("all")
	}
	l.steps, err = l.readSteps(ctx, q)
	return err
}

func (l *changelist) readPage(ctx context.Context, q db.Querier) ([]row, error) {
	var fields []*Field
	for _, c := range l.Model.Columns {
		fields = append(fields, l.Model.field(c.Field))
	}
	w, limit, offset := l.where.clone(), pageSize, (l.page-1)*pageSize
	if l.all {
		limit, offset = showAllMax, 0
	}
	rest := fmt.Sprintf("%s%s LIMIT %s OFFSET %s", w, l.orderBy(), w.param(limit), w.param(offset))
	return l.Model.read(ctx, q, fields, "id", rest, w.args...)
}

// countRows counts up to countedUpTo rows. Beyond that it uses the planner's estimate: counting a million rows takes
// longer than showing a hundred.
func countRows(ctx context.Context, q db.Querier, m *Model, w *where) (count, error) {
	w = w.clone()
	from := " FROM " + ident(m.Table) + " t" + w.String()
	var n int64
	counted := "SELECT count(*) FROM (SELECT" + from + " LIMIT " + w.param(countedUpTo+1) + ") counted"
	err := q.QueryRow(ctx, counted, w.args...).Scan(&n)
	if err != nil {
		return count{}, fmt.Errorf("count %s: %w", m.Plural, err)
	}
	if n <= countedUpTo {
		return count{N: n}, nil
	}
	var plan []byte
	args := w.args[:len(w.args)-1]
	if err := q.QueryRow(ctx, "EXPLAIN (FORMAT JSON) SELECT"+from, args...).Scan(&plan); err != nil {
		return count{}, fmt.Errorf("estimate %s: %w", m.Plural, err)
	}
	var explained []struct {
		Plan struct {
			Rows float64 `json:"Plan Rows"`
		}
	}
	if err := json.Unmarshal(plan, &explained); err != nil || len(explained) == 0 {
		return count{}, fmt.Errorf("read a plan: %w", err)
	}
	return count{N: max(int64(explained[0].Plan.Rows), n), guessed: true}, nil
}

// maxOptions limits the links of a filter by a relation.
const maxOptions = 50

// readOptions reads the choices of the filters that are rows of another table.
func (l *changelist) readOptions(ctx context.Context, q db.Querier) error {
	l.options = map[string][]option{}
	for _, name := range l.Model.Filters {
		f := l.Model.field(name)
		if f.Kind != Many && f.Kind != Reference {
			continue
		}
		options, err := f.options(ctx, q)
		if err != nil {
			return fmt.Errorf("choices of %s: %w", f.Name, err)
		}
		l.options[f.Name] = options[:min(len(options), maxOptions)]
	}
	return nil
}

// options returns the rows that a Many or a Reference may have; of a Reference, the first maxOptions.
func (f *Field) options(ctx context.Context, q db.Querier) ([]option, error) {
	if f.Kind == Many {
		return collectOptions(q.Query(ctx, f.Pairs.SQL))
	}
	return collectOptions(q.Query(ctx, fmt.Sprintf("SELECT id::bigint, '', %s::text, NULL FROM %s ORDER BY 3, 1 LIMIT $1",
		ident(f.Target.Label), ident(f.Target.Table)), maxOptions))
}
