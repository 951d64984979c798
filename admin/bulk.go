package admin

import (
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"

	"ddtb/app/fault"
)

// maxBulk limits the rows deleted at once: their history is written row by row in one transaction.
const maxBulk = 1000

// bulk runs the changelist's chosen action on the selected rows.
func (s *Site) bulk(r *request) error {
	list := r.model.path()
	if q := r.QueryParams(); len(q) > 0 {
		list += "?" + q.Encode()
	}
	back := func(class, text string) error {
		r.tell(message{Class: class, Before: text})
		return r.to(list)
	}
	switch r.form.Get("action") {
	case "delete_selected":
	case "":
		return back("warn", "No action selected.")
	default:
		return back("warn", "There is no such action.")
	}
	if !r.can(r.model, actionDelete) {
		return fault.New(fault.Forbidden, "You don’t have permission to delete %s. Ask a superuser for it.", r.model.Plural)
	}
	ids, err := r.selected()
	if r.form.Get("select_across") == "1" {
		ids, err = r.everyMatch()
	}
	if err != nil {
		return err
	}
	if len(ids) > maxBulk {
		return back("warn", fmt.Sprintf("At most %s %s can be deleted at once. Narrow the list down by a search or a filter.",
			thousands(maxBulk), r.model.Plural))
	}
	if len(ids) == 0 {
		return back("warn", "Items must be selected in order to perform actions on them. No items have been changed.")
	}
	if r.form.Get("post") == "" {
		v, err := r.look(ids)
		if err != nil {
			return err
		}
		return r.showDelete(v, true)
	}
	v, err := r.deleteRows(ids)
	if err != nil {
		return err
	}
	what := r.model.Plural
	if len(v.ids) == 1 {
		what = r.model.Singular
	}
	return back("good", fmt.Sprintf("Successfully deleted %d %s.", len(v.ids), what))
}

func (r *request) selected() ([]int64, error) {
	var ids []int64
	for _, text := range r.form["_selected_action"] {
		id, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, fault.New(fault.Invalid, "What was selected can’t be understood. Go back to the list and select again.")
		}
		ids = append(ids, id)
	}
	return sortedIDs(ids), nil
}

// everyMatch returns the ids of all rows that match the list's address, on every page. It returns at most one more than
// can be deleted.
func (r *request) everyMatch() ([]int64, error) {
	l, understood := parseLookups(r.model, r.QueryParams())
	if !understood { // an invalid filter must not widen the deletion
		return nil, fault.New(fault.Invalid,
			"This list’s address can’t be understood in full. Go back to the list and select again.")
	}
	w := l.where.clone()
	found, err := r.site.db.Query(r.ctx, "SELECT t.id::bigint FROM "+ident(r.model.Table)+" t"+w.String()+
		" ORDER BY t.id LIMIT "+w.param(maxBulk+1), w.args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(found, pgx.RowTo[int64])
}
