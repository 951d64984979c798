package admin

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	"github.com/jackc/pgx/v5"

	"ddtb/app/fault"
	"ddtb/db"
)

// victims are the rows that a deletion removes, as its confirmation lists them.
type victims struct {
	Objects  []victim
	Counts   []victimCount
	Missing  []string // models whose rows the user may not delete
	Kept     string   // why a rule protects an object
	More     int64    // the number not listed
	ids      []int64
	relation []Relation
}

type victim struct {
	Kind, Label, Path string
	With              []victim
	id                int64
}

type victimCount struct {
	Name string
	N    int64
}

// maxListed limits the related rows in a confirmation; all are counted.
const maxListed = 200

// collect finds the rows and those deleted with them. Rows that no longer exist are left out.
func (r *request) collect(ctx context.Context, q db.Querier, m *Model, ids []int64, lock string) (*victims, error) {
	v := &victims{relation: m.relations()}
	rows, err := readRows(ctx, q, nil, m.selection(nil, "")+" WHERE t.id = ANY($1::bigint[]) ORDER BY t.id "+lock, ids)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", m.Plural, err)
	}
	at := map[int64]int{}
	for i, row := range rows {
		at[row.id] = i
		v.ids = append(v.ids, row.id)
		v.Objects = append(v.Objects, victim{
			Kind: capitalized(m.Singular), Label: row.label, Path: m.path(row.id, "change"), id: row.id,
		})
	}
	v.Counts = append(v.Counts, victimCount{plural(m, int64(len(rows))), int64(len(rows))})
	r.demand(v, m)
	for _, rel := range v.relation {
		if rel.Model == nil {
			continue
		}
		n, err := r.collectRelated(ctx, q, v, rel, at)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", rel.Model.Plural, err)
		}
		if n > 0 {
			v.Counts = append(v.Counts, victimCount{plural(rel.Model, n), n})
			r.demand(v, rel.Model)
		}
	}
	return v, nil
}

func plural(m *Model, n int64) string {
	if n == 1 {
		return capitalized(m.Singular)
	}
	return capitalized(m.Plural)
}

// demand records that the deletion requires permission to delete rows of m. A user's history is deleted with the user:
// it is read-only for everyone, so only the permission counts.
func (r *request) demand(v *victims, m *Model) {
	if !r.user.Can(m.permission(actionDelete)) {
		v.Missing = append(v.Missing, m.Singular)
	}
}

// collectRelated lists and counts the rows of a relation under the objects that they are deleted with.
func (r *request) collectRelated(
	ctx context.Context, q db.Querier, v *victims, rel Relation, at map[int64]int,
) (n int64, err error) {
	condition := fmt.Sprintf(" WHERE t.%s = ANY($1::bigint[])", ident(rel.Column))
	err = q.QueryRow(ctx, "SELECT count(*) FROM "+ident(rel.Table)+" t"+condition, v.ids).Scan(&n)
	if err != nil {
		return 0, err
	}
	sql := rel.Model.selection(nil, rel.Column) + condition + " ORDER BY t.id LIMIT $2"
	rows, err := readRows(ctx, q, nil, sql, v.ids, maxListed)
	if err != nil {
		return 0, err
	}
	for _, row := range rows {
		o := &v.Objects[at[row.parent]]
		o.With = append(o.With, victim{Kind: capitalized(rel.Model.Singular), Label: row.label})
	}
	v.More += n - int64(len(rows))
	return n, nil
}

type deletePage struct {
	frame
	Victims  *victims
	Model    *Model
	Several  bool
	Selected []int64
	Action   string
	Back     string
	Possible bool
}

// confirmDelete lists what a deletion would remove. It deletes nothing.
func (s *Site) confirmDelete(r *request) error {
	id, _ := r.id()
	v, err := r.look([]int64{id})
	if err != nil {
		return err
	}
	if len(v.ids) == 0 {
		return r.gone()
	}
	return r.showDelete(v, false)
}

// look collects what would be deleted, and the reasons against it.
func (r *request) look(ids []int64) (v *victims, err error) {
	err = r.site.db.InTx(r.ctx, func(q db.Querier) error {
		v, err = r.collect(r.ctx, q, r.model, ids, "")
		if err != nil {
			return err
		}
		v.Kept, err = r.kept(q, v.ids)
		return err
	})
	return v, err
}

// kept returns why a rule protects one of the rows, or "".
func (r *request) kept(q db.Querier, ids []int64) (string, error) {
	err := r.heed(r.ctx, q, r.model.rules.mayDelete, ids...)
	if fault.KindOf(err) == fault.Forbidden {
		return err.Error(), nil
	}
	return "", err
}

func (r *request) showDelete(v *victims, several bool) error {
	m := r.model
	p := deletePage{Victims: v, Model: m, Several: several, Back: r.list(), Possible: len(v.Missing) == 0 && v.Kept == ""}
	p.Action = m.path() + "?" + r.QueryParams().Encode()
	p.Selected = v.ids
	crumbs, title := r.crumbs(nil, "Delete multiple objects"), "Are you sure?"
	if !several {
		first := v.Objects[0]
		p.Action = m.path(first.id, "delete") + r.preserved()
		p.Back = m.path(first.id, "change") + r.preserved()
		crumbs = r.crumbs(&row{id: first.id, label: first.Label}, "Delete")
	} else if q := r.QueryParams(); len(q) > 0 {
		p.Back = m.path() + "?" + q.Encode()
	} else {
		p.Back = m.path()
	}
	if !p.Possible {
		title = "Cannot delete " + m.Plural
	}
	p.frame = r.frame(title, crumbs...)
	return r.show(http.StatusOK, "delete.html", p)
}

// delete deletes one row and its dependents.
func (s *Site) delete(r *request) error {
	id, _ := r.id()
	v, err := r.deleteRows([]int64{id})
	if err != nil {
		return err
	}
	if len(v.ids) == 0 {
		return r.gone()
	}
	r.tell(message{
		Class: "good", Before: "The " + r.model.Singular + " “", Object: r.called(v.Objects[0].Label),
		After: "” was deleted successfully.",
	})
	return r.to(r.list())
}

// deleteRows deletes rows and their dependents, in one transaction with the history. Dependents are collected again
// with the rows locked: there may be more of them than at the confirmation.
func (r *request) deleteRows(ids []int64) (v *victims, err error) {
	err = r.site.db.InTx(r.ctx, func(q db.Querier) error {
		if v, err = r.collect(r.ctx, q, r.model, ids, "FOR UPDATE"); err != nil {
			return err
		}
		kept, err := r.kept(q, v.ids)
		if err != nil {
			return err
		}
		if kept != "" {
			return fault.New(fault.Forbidden, "%s", kept)
		}
		if len(v.Missing) > 0 {
			return fault.New(fault.Forbidden,
				"Deleting this would take objects along that you may not delete: %s.", enumerate(v.Missing))
		}
		return r.deleteAll(q, v)
	})
	if err == nil && r.model.rules.saved != nil {
		r.model.rules.saved(r.site)
	}
	return v, err
}

func (r *request) deleteAll(q db.Querier, v *victims) error {
	for _, o := range v.Objects {
		if err := r.note(r.ctx, q, flagDeletion, r.model, o.id, o.Label, nil); err != nil {
			return err
		}
	}
	for _, rel := range v.relation {
		if err := remove(r.ctx, q, rel.Table, rel.Column, v.ids); err != nil {
			return err
		}
	}
	return remove(r.ctx, q, r.model.Table, "id", v.ids)
}

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
	l, understood := parseChangelist(r.model, r.QueryParams(), r.site.now())
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
