package admin

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"

	"ddtb/db"
)

// Saving a posted form.

// errInvalid means that the input has a mistake. The form describes it.
var errInvalid = errors.New("invalid")

// store writes a posted form, its inlines and the history in one transaction. After errConflict, errGone and errInvalid
// nothing was written, and the form describes the problem.
func (r *request) store() (*form, error) {
	f := r.postedForm(r.id)
	if r.model.prepare != nil && f.valid() {
		if err := r.model.prepare(r, f); err != nil {
			return f, err
		}
	}
	extra := f.extra
	err := r.site.DB.InTx(r.ctx, func(q db.Querier) error {
		f = r.postedForm(r.id) // a rolled-back attempt has changed it
		f.extra = extra
		if err := r.load(q, f, "FOR NO KEY UPDATE"); err != nil {
			return err
		}
		if !f.valid() {
			return errInvalid
		}
		if f.markConflicts() {
			return r.explainConflict(q, f)
		}
		return r.write(q, f)
	})
	if err == nil {
		r.site.forgetUsers(r.model)
	}
	return f, f.explain(err)
}

// forgetUsers makes a change of users, groups or permissions effective at once on this process: see package auth.
func (s *Site) forgetUsers(m *Model) {
	if m.App == authApp {
		s.Users.Forget()
	}
}

// explain converts a database error to a problem of the form.
func (f *form) explain(err error) error {
	pe, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || db.CauseOf(err) != "" {
		return err
	}
	switch {
	case pe.Code == pgerrcode.UniqueViolation:
		for _, ff := range f.editable() {
			if ff.Taken != "" {
				ff.Problem = ff.Taken
				return errInvalid
			}
		}
		f.Problems = append(f.Problems, "There is such a "+f.Model.Singular+" already.")
	case pgerrcode.IsDataException(pe.Code), pgerrcode.IsIntegrityConstraintViolation(pe.Code):
		f.Problems = append(f.Problems, "The database refuses this: "+pe.Message+".")
	default:
		return err
	}
	return errInvalid
}

// write inserts or updates the form's row, then the rows of its inlines, and writes the history. It sets f.stored.id.
func (r *request) write(q db.Querier, f *form) (err error) {
	var changes []change
	flag := flagChange
	if f.ID == 0 {
		flag, changes = flagAddition, []change{{added: {}}}
		f.stored.id, err = r.insert(q, &f.formRow, f.extra)
	} else {
		var titles []string
		if titles, err = r.update(q, &f.formRow); len(titles) > 0 {
			changes = []change{{edited: {Fields: titles}}}
		}
	}
	if err != nil {
		return err
	}
	for _, in := range f.Inlines {
		more, err := r.writeRows(q, in, f.stored.id)
		if err != nil {
			return err
		}
		changes = append(changes, more...)
	}
	return r.note(q, flag, f.stored.id, f.typedLabel(), changes)
}

func (r *request) writeRows(q db.Querier, in *formInline, parent int64) ([]change, error) {
	name := in.Model.Singular
	var inserts, updates, deletes []change
	var gone []int64
	for _, row := range in.Rows {
		switch {
		case row.blank():
		case row.ID == 0:
			if _, err := r.insert(q, row, map[string]any{in.ForeignKey: parent}); err != nil {
				return nil, err
			}
			inserts = append(inserts, change{added: {Name: name, Object: row.typedLabel()}})
		case row.Delete:
			gone = append(gone, row.ID)
			deletes = append(deletes, change{deleted: {Name: name, Object: row.Label}})
		default:
			titles, err := r.update(q, row)
			if err != nil {
				return nil, err
			}
			if len(titles) > 0 {
				updates = append(updates, change{edited: {Name: name, Object: row.typedLabel(), Fields: titles}})
			}
		}
	}
	if err := remove(r.ctx, q, in.Model.Table, "id", gone); err != nil {
		return nil, err
	}
	return slices.Concat(inserts, updates, deletes), nil
}

// insert adds a row with the extra columns, and returns its id. Columns that are not in the form get their defaults.
func (r *request) insert(q db.Querier, row *formRow, extra map[string]any) (id int64, err error) {
	values := map[string]any{}
	for _, f := range row.Model.Fields {
		value := f.initialValue()
		if ff := row.field(f.Name); ff != nil && ff.Posted {
			value = ff.Value
		}
		if f.isColumn() && value != nil {
			values[f.Name] = value
		}
	}
	maps.Copy(values, extra)
	if id, err = insert(r.ctx, q, row.Model.Table, values); err != nil {
		return 0, fmt.Errorf("insert a %s: %w", row.Model.Singular, err)
	}
	for _, ff := range row.editable() {
		if err := r.storeMany(q, ff, id, nil); err != nil {
			return 0, err
		}
	}
	return id, nil
}

// update writes the edited fields, and returns their titles.
func (r *request) update(q db.Querier, row *formRow) (titles []string, err error) {
	values := map[string]any{}
	for _, ff := range row.editable() {
		before := row.stored.values[ff.Name]
		if ff.mine(ff.Value) == ff.mine(before) {
			continue
		}
		titles = append(titles, ff.Title())
		if ff.isColumn() {
			values[ff.Name] = ff.Value
		}
		if err := r.storeMany(q, ff, row.ID, before); err != nil {
			return nil, err
		}
	}
	if err := update(r.ctx, q, row.Model.Table, row.ID, values); err != nil {
		return nil, fmt.Errorf("update a %s: %w", row.Model.Singular, err)
	}
	return titles, nil
}

// storeMany stores what the user may add and remove of a Many. It does nothing for another kind.
func (r *request) storeMany(q db.Querier, ff *formField, id int64, before any) error {
	if ff.Kind != Many {
		return nil
	}
	if err := ff.Pairs.store(r.ctx, q, id, ff.unlocked(before), ff.unlocked(ff.Value)); err != nil {
		return fmt.Errorf("store %s: %w", ff.Name, err)
	}
	return nil
}
