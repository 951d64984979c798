package admin

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/app/fault"
	"ddtb/app/web"
	"ddtb/db"
)

// deletion is what the deletion of some rows of a model removes, as its confirmation lists it.
type deletion struct {
	Objects []object
	Counts  []objectCount
	Missing []string // models whose rows the user may not delete
	Kept    string   // why the model protects an object
	More    int64    // the number not listed
	ids     []int64
}

// object is a row that is deleted, with those that are deleted with it.
type object struct {
	Kind, Label, Path string
	With              []object
	ID                int64
}

type objectCount struct {
	Name string
	N    int64
}

// maxListed limits the related rows in a confirmation; all are counted.
const maxListed = 200

// collect finds the rows and those deleted with them. Rows that no longer exist are left out.
func (r *request) collect(q db.Querier, ids []int64, lock string) (*deletion, error) {
	m := r.model
	rows, err := m.read(r.ctx, q, nil, "id", "WHERE t.id = ANY($1::bigint[]) ORDER BY t.id "+lock, ids)
	if err != nil {
		return nil, err
	}
	d := &deletion{}
	for _, row := range rows {
		d.ids = append(d.ids, row.id)
		d.Objects = append(d.Objects, object{
			Kind: web.Capitalized(m.Singular), Label: row.label, Path: m.path(row.id, "change"), ID: row.id,
		})
	}
	r.count(d, m, int64(len(rows)))
	for _, rel := range m.relations() {
		if rel.Model == nil {
			continue
		}
		if err := r.collectRelated(q, d, rel); err != nil {
			return nil, err
		}
	}
	err = r.allowedRows(q, actionDelete, d.ids...)
	if fault.KindOf(err) == fault.Forbidden {
		d.Kept, err = err.Error(), nil
	}
	return d, err
}

// count adds n rows of a model. They require permission to delete them. A user's history is deleted with the user: it is
// read-only for everyone, so only the permission counts.
func (r *request) count(d *deletion, m *Model, n int64) {
	d.Counts = append(d.Counts, objectCount{web.Capitalized(m.noun(n)), n})
	if !r.user.Can(m.permission(actionDelete)) {
		d.Missing = append(d.Missing, m.Singular)
	}
}

// collectRelated counts the rows of a relation, and lists them under the objects that they are deleted with.
func (r *request) collectRelated(q db.Querier, d *deletion, rel Relation) error {
	var n int64
	condition := fmt.Sprintf("WHERE t.%s = ANY($1::bigint[])", ident(rel.Column))
	err := q.QueryRow(r.ctx, "SELECT count(*) FROM "+ident(rel.Table)+" t "+condition, d.ids).Scan(&n)
	if err != nil {
		return fmt.Errorf("count %s: %w", rel.Model.Plural, err)
	}
	if n == 0 {
		return nil
	}
	r.count(d, rel.Model, n)
	rows, err := rel.Model.read(r.ctx, q, nil, rel.Column, condition+" ORDER BY t.id LIMIT $2", d.ids, maxListed)
	for _, row := range rows {
		i := slices.Index(d.ids, row.parent)
		d.Objects[i].With = append(d.Objects[i].With, object{Kind: web.Capitalized(rel.Model.Singular), Label: row.label})
	}
	d.More += n - int64(len(rows))
	return err
}

type deletePage struct {
	frame
	*deletion
	Model    *Model
	Several  bool
	Back     string
	Possible bool
}

// confirmDelete lists what a deletion of one row would remove. It deletes nothing.
func (s *Site) confirmDelete(r *request) error {
	return r.confirm([]int64{r.id}, deletePage{Back: r.model.path(r.id, "change") + r.preserved()})
}

func (r *request) confirm(ids []int64, p deletePage) error {
	collect := func(q db.Querier) (err error) {
		p.deletion, err = r.collect(q, ids, "")
		return err
	}
	var err error
	if r.isPost() { // there may be many rows, each of which is checked: by one lease
		err = r.site.DB.InTx(r.ctx, collect)
	} else {
		err = collect(r.site.DB.Read())
	}
	if err != nil {
		return err
	}
	crumbs := r.crumbs(nil, "Delete multiple objects")
	if !p.Several {
		if len(p.Objects) == 0 {
			return r.gone()
		}
		crumbs = r.crumbs(&row{id: p.Objects[0].ID, label: p.Objects[0].Label}, "Delete")
	}
	p.Model, p.Possible = r.model, len(p.Missing) == 0 && p.Kept == ""
	title := "Are you sure?"
	if !p.Possible {
		title = "Cannot delete " + r.model.noun(int64(len(ids)))
	}
	p.frame = r.frame(title, crumbs...)
	return r.show(http.StatusOK, "delete.html", p)
}

func (s *Site) delete(r *request) error {
	d, err := r.deleteRows([]int64{r.id})
	if err != nil {
		return err
	}
	if len(d.Objects) == 0 {
		return r.gone()
	}
	r.notify(message{
		Class: "good", Before: "The " + r.model.Singular + " “", Object: r.called(d.Objects[0].Label),
		After: "” was deleted successfully.",
	})
	return r.to(r.list())
}

// deleteRows deletes rows and their dependents, in one transaction with the history. Dependents are collected again
// with the rows locked: there may be more of them than at the confirmation.
func (r *request) deleteRows(ids []int64) (d *deletion, err error) {
	err = r.site.DB.InTx(r.ctx, func(q db.Querier) error {
		if d, err = r.collect(q, ids, "FOR UPDATE"); err != nil {
			return err
		}
		if d.Kept != "" {
			return fault.New(fault.Forbidden, "%s", d.Kept)
		}
		if len(d.Missing) > 0 {
			return fault.New(fault.Forbidden,
				"Deleting this would take objects along that you may not delete: %s.", enumerate(d.Missing))
		}
		for _, o := range d.Objects {
			if err := r.note(q, flagDeletion, o.ID, o.Label, nil); err != nil {
				return err
			}
		}
		for _, rel := range r.model.relations() {
			if err := remove(r.ctx, q, rel.Table, rel.Column, d.ids); err != nil {
				return err
			}
		}
		return remove(r.ctx, q, r.model.Table, "id", d.ids)
	})
	if err == nil {
		r.site.forgetUsers(r.model)
	}
	return d, err
}

// maxBulk limits the rows deleted at once: their history is written row by row in one transaction.
const maxBulk = 1000

// bulk runs the changelist's chosen action on the selected rows: it deletes them after a confirmation.
func (s *Site) bulk(r *request) error {
	list := r.model.list(r.QueryParams())
	ids, why, err := r.chosen()
	if err != nil {
		return err
	}
	if why != "" {
		r.notify(message{Class: "warn", Before: why})
		return r.to(list)
	}
	if r.form.Get("post") == "" {
		return r.confirm(ids, deletePage{Several: true, Back: list})
	}
	d, err := r.deleteRows(ids)
	if err != nil {
		return err
	}
	n := int64(len(d.ids))
	r.notify(message{Class: "good", Before: fmt.Sprintf("Successfully deleted %d %s.", n, r.model.noun(n))})
	return r.to(list)
}

// chosen returns the ids of the rows to delete, or why there are none.
func (r *request) chosen() (ids []int64, why string, err error) {
	switch r.form.Get("action") {
	case "delete_selected":
	case "":
		return nil, "No action selected.", nil
	default:
		return nil, "There is no such action.", nil
	}
	if err := r.allowed(actionDelete); err != nil {
		return nil, "", err
	}
	if r.form.Get("select_across") == "1" {
		ids, err = r.everyMatch()
	} else {
		ids, err = r.selected()
	}
	switch {
	case len(ids) > maxBulk:
		why = fmt.Sprintf("At most %s %s can be deleted at once. Narrow the list down by a search or a filter.",
			thousands(maxBulk), r.model.Plural)
	case len(ids) == 0:
		why = "Items must be selected in order to perform actions on them. No items have been changed."
	}
	return ids, why, err
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
	l, ok := parseChangelist(r.model, r.QueryParams(), time.Now())
	if !ok { // an invalid filter must not widen the deletion
		return nil, fault.New(fault.Invalid,
			"This list’s address can’t be understood in full. Go back to the list and select again.")
	}
	w := l.where.clone()
	found, err := r.site.DB.Query(r.ctx, "SELECT t.id::bigint FROM "+ident(r.model.Table)+" t"+w.String()+
		" ORDER BY t.id LIMIT "+w.param(maxBulk+1), w.args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(found, pgx.RowTo[int64])
}
