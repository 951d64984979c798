package admin

import (
	"context"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/db"
)

// PlanOfQuestions is PostgreSQL's plan of the query for one page of the list of questions, run.
func PlanOfQuestions(ctx context.Context, d *db.DB, query string) (string, error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return "", err
	}
	var plan []string
	l, _ := parseChangelist(question, values, time.Now())
	_, err = l.readPage(ctx, explainer{d, &plan})
	return strings.Join(plan, "\n"), err
}

// explainer runs EXPLAIN of a query instead, and finds no rows.
type explainer struct {
	db.Querier
	plan *[]string
}

func (e explainer) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	found, err := e.Querier.Query(ctx, "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF, BUFFERS) "+sql, args...)
	if err != nil {
		return nil, err
	}
	*e.plan, err = pgx.CollectRows(found, pgx.RowTo[string])
	return found, err
}
