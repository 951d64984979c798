package admin

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/db"
)

// The date hierarchy of a changelist: years that lead to months and days.

// dateUnits are the levels of the date hierarchy.
var dateUnits = []string{"year", "month", "day"}

func (m *Model) dateParams() []string {
	var params []string
	for _, unit := range dateUnits {
		params = append(params, m.Hierarchy+"__"+unit)
	}
	return params
}

// parseDate converts a year, with an optional month and day, to a range that can use an index. Without a year, month and
// day are ordinary lookups. It reports whether the date exists.
func (l *changelist) parseDate(query url.Values) bool {
	params := l.Model.dateParams()
	if l.Model.Hierarchy == "" || query.Get(params[0]) == "" {
		return true
	}
	parts := [3]int{1, 1, 1}
	for i, param := range params {
		text := query.Get(param)
		if text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 9999 || l.depth < i {
			return false
		}
		parts[i], l.depth = n, i+1
	}
	l.date = time.Date(parts[0], time.Month(parts[1]), parts[2], 0, 0, 0, 0, time.UTC)
	column := "t." + ident(l.Model.Hierarchy)
	l.where.and(fmt.Sprintf("%s >= %s::timestamptz", column, l.where.param(l.date)))
	to := []time.Time{l.date.AddDate(1, 0, 0), l.date.AddDate(0, 1, 0), l.date.AddDate(0, 0, 1)}[l.depth-1]
	l.where.and(fmt.Sprintf("%s < %s::timestamptz", column, l.where.param(to)))
	return int(l.date.Month()) == parts[1] && l.date.Day() == parts[2]
}

// dates is the row of links of the date hierarchy.
type dates struct {
	Up   *choiceLink
	Here string
	Down []choiceLink
}

// The formats of the date hierarchy, by depth: of what is chosen, and of the links to the next level.
var (
	hereForms = []string{"", "2006", "January 2006", "2 January 2006"}
	downForms = []string{"2006", "January", "2 January"}
)

// Dates returns the links of the date hierarchy: up to the year or to all dates, and down to dates that have rows.
func (l *changelist) Dates() *dates {
	if len(l.steps) == 0 && l.depth == 0 {
		return nil
	}
	d := &dates{}
	if l.depth > 0 {
		d.Here = l.date.Format(hereForms[l.depth])
		d.Up = &choiceLink{Text: "All dates", Link: l.dateLink(l.date, l.depth-1)}
	}
	if l.depth > 1 {
		d.Up.Text = l.date.Format(hereForms[l.depth-1])
	}
	for _, s := range l.steps {
		d.Down = append(d.Down, choiceLink{Text: s.Format(downForms[l.depth]), Link: l.dateLink(s, l.depth+1)})
	}
	return d
}

// dateLink returns the query that opens the hierarchy at a date to a depth.
func (l *changelist) dateLink(t time.Time, depth int) string {
	var changes []string
	for i, part := range []int{t.Year(), int(t.Month()), t.Day()} {
		value := ""
		if i < depth {
			value = strconv.Itoa(part)
		}
		changes = append(changes, l.Model.dateParams()[i], value)
	}
	return l.with(changes...)
}

// stepsOf returns the years, months or days of rows: the links below the chosen date.
func (l *changelist) stepsOf(rows []row) []time.Time {
	if l.depth == len(dateUnits) {
		return nil
	}
	var steps []time.Time
	for _, row := range rows {
		t, ok := row.values[l.Model.Hierarchy].(time.Time)
		if !ok {
			continue
		}
		year, month, day := t.UTC().Date()
		month, day = []time.Month{1, month, month}[l.depth], []int{1, 1, day}[l.depth]
		steps = append(steps, time.Date(year, month, day, 0, 0, 0, 0, time.UTC))
	}
	slices.SortFunc(steps, time.Time.Compare)
	return slices.Compact(steps)
}

// readSteps finds the years, months or days that have rows. It jumps through the index from one to the next, so that
// its cost depends on the steps, not on the rows.
func (l *changelist) readSteps(ctx context.Context, q db.Querier) ([]time.Time, error) {
	if l.Model.Hierarchy == "" || l.depth == len(dateUnits) {
		return nil, nil
	}
	w, column := l.where.clone(), "t."+ident(l.Model.Hierarchy)
	u := w.param(dateUnits[l.depth])
	step := fmt.Sprintf("date_trunc(%s::text, %s AT TIME ZONE 'UTC')", u, column)
	from := " FROM " + ident(l.Model.Table) + " t"
	first := w.clone()
	first.and(column + " IS NOT NULL")
	next := w.clone()
	next.and(fmt.Sprintf("%s >= (d.step + ('1 ' || %s::text)::interval) AT TIME ZONE 'UTC'", column, u))
	sql := "WITH RECURSIVE d (step) AS ((SELECT " + step + from + first.String() + " ORDER BY " + column + " LIMIT 1)" +
		" UNION ALL SELECT (SELECT " + step + from + next.String() + " ORDER BY " + column + " LIMIT 1)" +
		" FROM d WHERE d.step IS NOT NULL) SELECT step FROM d WHERE step IS NOT NULL LIMIT 100"
	found, err := q.Query(ctx, sql, w.args...)
	if err != nil {
		return nil, fmt.Errorf("dates of %s: %w", l.Model.Plural, err)
	}
	return pgx.CollectRows(found, pgx.RowTo[time.Time])
}
