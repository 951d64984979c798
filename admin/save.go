package admin

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"

	"ddtb/app/auth"
	"ddtb/db"
)

// rules are a model's requirements beyond its declaration.
type rules struct {
	prepare   func(*request, *form) error // before the transaction: slow work
	mayTouch  rule                        // before a row is changed
	mayDelete rule
	saved     func(*Site) // after the commit
}

// rule returns why a user may not act on the row with that id, or "".
type rule func(context.Context, db.Querier, *auth.User, int64) (why string, err error)

// errInvalid means that the database, or a check in it, found a mistake. The form describes it.
var errInvalid = errors.New("invalid")

// save writes the form, its inlines and the history in one transaction. After errConflict, errGone and errInvalid
// nothing was written, and the form describes the problem.
func (r *request) save(f *form) error {
	if prepare := r.model.rules.prepare; prepare != nil {
		if err := prepare(r, f); err != nil {
			return err
		}
	}
	posted := f.copy()
	err := r.site.db.InTx(r.ctx, func(q db.Querier) error {
		*f = *posted.copy() // a rolled-back attempt has changed it
		if err := r.readOptions(r.ctx, q, f); err != nil {
			return err
		}
		if !f.valid() {
			return errInvalid
		}
		if f.id == 0 {
			return r.create(r.ctx, q, f)
		}
		return r.overwrite(r.ctx, q, f)
	})
	if err == nil && r.model.rules.saved != nil {
		r.model.rules.saved(r.site)
	}
	return f.explain(err)
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
		f.problems = append(f.problems, "There is such a "+f.model.Singular+" already.")
	case pgerrcode.IsDataException(pe.Code), pgerrcode.IsIntegrityConstraintViolation(pe.Code):
		f.problems = append(f.problems, "The database refuses this: "+pe.Message+".")
	default:
		return err
	}
	return errInvalid
}

// create inserts the row. Columns that are not in the form get their defaults.
func (r *request) create(ctx context.Context, q db.Querier, f *form) error {
	columns, values := []string{}, []any{}
	for i := range f.model.Fields {
		field := &f.model.Fields[i]
		value := initialValue(field)
		if ff := f.field(field.Name); ff != nil && !ff.Fixed {
			value = ff.Value
		}
		if extra, ok := f.extra[field.Name]; ok {
			value = extra
		}
		if _, many := field.Kind.(*Many); !many && value != nil && field.Name != newPassword {
			columns, values = append(columns, field.Name), append(values, value)
		}
	}
	id, err := insert(ctx, q, f.model.Table, columns, values)
	if err != nil {
		return fmt.Errorf("insert a %s: %w", f.model.Singular, err)
	}
	if _, err := r.storeMany(ctx, q, f, id, nil); err != nil {
		return err
	}
	f.saved, f.label = id, f.typedLabel()
	changes := []change{{Added: &changed{}}}
	for _, in := range f.inlines {
		more, err := r.saveRows(ctx, q, in, id, nil)
		if err != nil {
			return err
		}
		changes = append(changes, more...)
	}
	return r.note(ctx, q, flagAddition, f.model, id, f.label, changes)
}

// initialValue returns a new row's value of a field that is not in the form.
func initialValue(f *Field) any {
	if f.Default != nil {
		return f.Default()
	}
	switch f.Kind.(type) {
	case Text, Boolean:
		value, _ := f.Kind.parse([]string{""})
		return value
	}
	return nil
}

// typedLabel returns the row's name after the save.
func (f *form) typedLabel() string {
	if ff := f.field(f.model.Label); ff != nil && !ff.Fixed {
		return ff.Kind.text(ff.Value)
	}
	return f.label
}

// overwrite locks the row and its inline rows, compares them with the form's first values, and writes the edits, unless
// someone else has edited the same values since.
func (r *request) overwrite(ctx context.Context, q db.Querier, f *form) error {
	if err := r.heed(ctx, q, r.model.rules.mayTouch, f.id); err != nil {
		return err
	}
	now, err := f.model.find(ctx, q, f.model.formFields(f.model.Fieldsets), f.id, "FOR NO KEY UPDATE")
	if err != nil {
		return err
	}
	if now == nil {
		return errGone
	}
	f.saved, f.label = f.id, now.label
	conflict := false
	for _, ff := range f.editable() {
		conflict = ff.compare(now.values[ff.Name]) || conflict
	}
	stored := make([][]row, len(f.inlines))
	for i, in := range f.inlines {
		if stored[i], err = in.children(ctx, q, f.id, "FOR NO KEY UPDATE"); err != nil {
			return err
		}
		conflict = r.compareRows(in, stored[i]) || conflict
	}
	if conflict {
		return r.tellConflict(ctx, q, f, stored)
	}
	return r.write(ctx, q, f, now, stored)
}

func (r *request) write(ctx context.Context, q db.Querier, f *form, now *row, stored [][]row) error {
	var columns, titles []string
	var values []any
	for _, ff := range f.editable() {
		if _, many := ff.Kind.(*Many); !many && ff.touched(now.values[ff.Name]) {
			columns, values, titles = append(columns, ff.Name), append(values, ff.Value), append(titles, ff.Title())
		}
	}
	if err := update(ctx, q, f.model.Table, f.id, columns, values); err != nil {
		return fmt.Errorf("update a %s: %w", f.model.Singular, err)
	}
	more, err := r.storeMany(ctx, q, f, f.id, now)
	if err != nil {
		return err
	}
	f.label = f.typedLabel()
	var changes []change
	if titles = append(titles, more...); len(titles) > 0 {
		changes = append(changes, change{Changed: &changed{Fields: titles}})
	}
	for i, in := range f.inlines {
		more, err := r.saveRows(ctx, q, in, f.id, stored[i])
		if err != nil {
			return err
		}
		changes = append(changes, more...)
	}
	return r.note(ctx, q, flagChange, f.model, f.id, f.label, changes)
}

// storeMany writes the edited relations, and returns their titles.
func (r *request) storeMany(ctx context.Context, q db.Querier, f *form, id int64, now *row) (titles []string, err error) {
	for _, ff := range f.editable() {
		many, ok := ff.Kind.(*Many)
		if !ok {
			continue
		}
		var before []int64
		if now != nil {
			before = ff.unlocked(idsOf(now.values[ff.Name]))
			if !ff.touched(now.values[ff.Name]) {
				continue
			}
		}
		if err := many.store(ctx, q, id, before, ff.unlocked(idsOf(ff.Value))); err != nil {
			return nil, fmt.Errorf("store %s: %w", ff.Name, err)
		}
		titles = append(titles, ff.Title())
	}
	return titles, nil
}

// saveRows inserts, updates and deletes the rows of an inline.
func (r *request) saveRows(
	ctx context.Context, q db.Querier, in *formInline, parent int64, stored []row,
) ([]change, error) {
	byID := map[int64]row{}
	for _, s := range stored {
		byID[s.id] = s
	}
	var added, edited, deleted []change
	var gone []int64
	for _, posted := range in.Rows {
		now := byID[posted.ID]
		switch {
		case posted.blank():
		case posted.ID == 0:
			label, err := posted.insert(ctx, q, in, parent)
			if err != nil {
				return nil, err
			}
			added = append(added, change{Added: &changed{Name: in.Model.Singular, Object: label}})
		case posted.Delete:
			gone = append(gone, posted.ID)
			deleted = append(deleted, change{Deleted: &changed{Name: in.Model.Singular, Object: now.label}})
		default:
			label, titles, err := posted.update(ctx, q, in, now)
			if err != nil {
				return nil, err
			}
			if len(titles) > 0 {
				edited = append(edited, change{Changed: &changed{Name: in.Model.Singular, Object: label, Fields: titles}})
			}
		}
	}
	if len(gone) > 0 {
		if err := remove(ctx, q, in.Model.Table, "id", gone); err != nil {
			return nil, err
		}
	}
	return append(append(added, edited...), deleted...), nil
}

func (row *formRow) insert(ctx context.Context, q db.Querier, in *formInline, parent int64) (label string, err error) {
	columns, values := []string{in.ForeignKey}, []any{parent}
	for _, ff := range row.Inputs {
		columns, values = append(columns, ff.Name), append(values, ff.Value)
		if ff.Name == in.Model.Label {
			label = ff.text(ff.Value)
		}
	}
	if _, err := insert(ctx, q, in.Model.Table, columns, values); err != nil {
		return "", fmt.Errorf("insert a %s: %w", in.Model.Singular, err)
	}
	return label, nil
}

func (row *formRow) update(
	ctx context.Context, q db.Querier, in *formInline, now row,
) (label string, titles []string, err error) {
	var columns []string
	var values []any
	label = now.label
	for _, ff := range row.Inputs {
		if ff.Fixed || !ff.touched(now.values[ff.Name]) {
			continue
		}
		columns, values = append(columns, ff.Name), append(values, ff.Value)
		titles = append(titles, ff.Title())
		if ff.Name == in.Model.Label {
			label = ff.text(ff.Value)
		}
	}
	if err := update(ctx, q, in.Model.Table, row.ID, columns, values); err != nil {
		return "", nil, fmt.Errorf("update a %s: %w", in.Model.Singular, err)
	}
	return strings.TrimSpace(label), titles, nil
}
