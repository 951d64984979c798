package admin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

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
	extra := f.extra
	err := r.site.db.InTx(r.ctx, func(q db.Querier) error {
		*f = *r.postedForm(f.ID) // a rolled-back attempt has changed it
		f.extra = extra
		if err := r.readOptions(r.ctx, q, f); err != nil {
			return err
		}
		if !f.valid() {
			return errInvalid
		}
		if f.ID == 0 {
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
		f.Problems = append(f.Problems, "There is such a "+f.Model.Singular+" already.")
	case pgerrcode.IsDataException(pe.Code), pgerrcode.IsIntegrityConstraintViolation(pe.Code):
		f.Problems = append(f.Problems, "The database refuses this: "+pe.Message+".")
	default:
		return err
	}
	return errInvalid
}

// create inserts the row and its inline rows.
func (r *request) create(ctx context.Context, q db.Querier, f *form) (err error) {
	if f.saved, err = f.insert(ctx, q, f.extra); err != nil {
		return err
	}
	changes := []change{{Added: &changed{}}}
	for _, in := range f.Inlines {
		more, err := r.saveRows(ctx, q, in, f.saved, nil)
		if err != nil {
			return err
		}
		changes = append(changes, more...)
	}
	return r.note(ctx, q, flagAddition, f.Model, f.saved, f.Label, changes)
}

// insert adds the row with the extra columns, and returns its id. Columns that are not in the form get their defaults.
func (row *formRow) insert(ctx context.Context, q db.Querier, extra map[string]any) (id int64, err error) {
	values := maps.Clone(extra)
	for i := range row.Model.Fields {
		field := &row.Model.Fields[i]
		value := initialValue(field)
		if ff := row.field(field.Name); ff != nil && !ff.Fixed {
			value = ff.Value
		}
		_, many := field.Kind.(*Many)
		if _, set := extra[field.Name]; !set && !many && value != nil && field.Name != newPassword {
			values[field.Name] = value
		}
	}
	if id, err = insert(ctx, q, row.Model.Table, values); err != nil {
		return 0, fmt.Errorf("insert a %s: %w", row.Model.Singular, err)
	}
	for _, ff := range row.editable() {
		if many, ok := ff.Kind.(*Many); ok {
			if err := many.store(ctx, q, id, nil, ff.unlocked(idsOf(ff.Value))); err != nil {
				return 0, fmt.Errorf("store %s: %w", ff.Name, err)
			}
		}
	}
	row.Label = row.typedLabel()
	return id, nil
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
func (row *formRow) typedLabel() string {
	if ff := row.field(row.Model.Label); ff != nil && !ff.Fixed {
		return ff.Kind.text(ff.Value)
	}
	return row.Label
}

// overwrite locks the row and its inline rows, compares them with the form's first values, and writes the edits, unless
// someone else has edited the same values since.
func (r *request) overwrite(ctx context.Context, q db.Querier, f *form) error {
	if err := r.heed(ctx, q, r.model.rules.mayTouch, f.ID); err != nil {
		return err
	}
	now, err := f.Model.find(ctx, q, f.Model.formFields(f.Model.Fieldsets), f.ID, "FOR NO KEY UPDATE")
	if err != nil {
		return err
	}
	if now == nil {
		return errGone
	}
	f.saved, f.Label = f.ID, now.label
	conflict := f.compare(*now)
	stored := make([][]row, len(f.Inlines))
	for i, in := range f.Inlines {
		if stored[i], err = in.children(ctx, q, f.ID, "FOR NO KEY UPDATE"); err != nil {
			return err
		}
		conflict = r.compareRows(in, stored[i]) || conflict
	}
	if conflict {
		return r.tellConflict(ctx, q, f, stored)
	}
	titles, err := f.update(ctx, q, *now)
	if err != nil {
		return err
	}
	var changes []change
	if len(titles) > 0 {
		changes = append(changes, change{Changed: &changed{Fields: titles}})
	}
	for i, in := range f.Inlines {
		more, err := r.saveRows(ctx, q, in, f.ID, stored[i])
		if err != nil {
			return err
		}
		changes = append(changes, more...)
	}
	return r.note(ctx, q, flagChange, f.Model, f.ID, f.Label, changes)
}

// update writes the edited fields, and returns their titles.
func (row *formRow) update(ctx context.Context, q db.Querier, now row) (titles []string, err error) {
	values := map[string]any{}
	for _, ff := range row.editable() {
		before := now.values[ff.Name]
		if !ff.touched(before) {
			continue
		}
		titles = append(titles, ff.Title())
		many, ok := ff.Kind.(*Many)
		if !ok {
			values[ff.Name] = ff.Value
		} else if err := many.store(ctx, q, row.ID, ff.unlocked(idsOf(before)), ff.unlocked(idsOf(ff.Value))); err != nil {
			return nil, fmt.Errorf("store %s: %w", ff.Name, err)
		}
	}
	if err := update(ctx, q, row.Model.Table, row.ID, values); err != nil {
		return nil, fmt.Errorf("update a %s: %w", row.Model.Singular, err)
	}
	row.Label = row.typedLabel()
	return titles, nil
}

// saveRows inserts, updates and deletes the rows of an inline.
func (r *request) saveRows(
	ctx context.Context, q db.Querier, in *formInline, parent int64, stored []row,
) ([]change, error) {
	byID := rowsByID(stored)
	name := in.Model.Singular
	var added, edited, deleted []change
	var gone []int64
	for _, posted := range in.Rows {
		now := byID[posted.ID]
		switch {
		case posted.blank():
		case posted.ID == 0:
			if _, err := posted.insert(ctx, q, map[string]any{in.ForeignKey: parent}); err != nil {
				return nil, err
			}
			added = append(added, change{Added: &changed{Name: name, Object: posted.Label}})
		case posted.Delete:
			gone = append(gone, posted.ID)
			deleted = append(deleted, change{Deleted: &changed{Name: name, Object: now.label}})
		default:
			titles, err := posted.update(ctx, q, now)
			if err != nil {
				return nil, err
			}
			if len(titles) > 0 {
				edited = append(edited, change{Changed: &changed{Name: name, Object: posted.Label, Fields: titles}})
			}
		}
	}
	if len(gone) > 0 {
		if err := remove(ctx, q, in.Model.Table, "id", gone); err != nil {
			return nil, err
		}
	}
	return slices.Concat(added, edited, deleted), nil
}

// A form carries the values that it showed at first. Overwriting a newer value would be a lost update: then nothing is
// saved, and the form shows both versions.

// errConflict means that someone else has saved what this form would overwrite; the form shows both versions.
var errConflict = errors.New("changed meanwhile")

// touched reports whether the user edited the field, given the value in the database.
func (ff *formField) touched(now any) bool {
	mine, stored := ff.text(ff.Value), ff.text(now)
	return mine != stored && (ff.Initial == nil || mine != *ff.Initial)
}

// compare detects a lost update: the database has neither the value that the form showed at first, nor the one that it
// would write. Then the field shows both. An untouched volatile field is no conflict.
func (ff *formField) compare(now any) (conflict bool) {
	mine, stored := ff.text(ff.Value), ff.text(now)
	if ff.Initial == nil || stored == *ff.Initial || mine == stored {
		ff.Initial = &stored
		return false
	}
	touched := mine != *ff.Initial
	if ff.Initial = &stored; !touched {
		ff.Value, ff.Raw = now, ff.Kind.raw(now) // a returned form has the current value
		return !ff.Volatile
	}
	ff.Theirs, ff.Conflict = ff.Kind.text(now), true
	if ff.Theirs == "" {
		ff.Theirs = "nothing"
	}
	return true
}

// compareRows compares each row of an inline with the stored one.
func (r *request) compareRows(in *formInline, stored []row) (conflict bool) {
	byID := rowsByID(stored)
	kept := in.Rows[:0]
	for _, posted := range in.Rows {
		now, there := byID[posted.ID]
		switch {
		case posted.ID == 0:
		case there:
			posted.Label = now.label
			conflict = posted.compare(now) || conflict
		case posted.Delete || !posted.touched():
			continue // deleted by both
		default:
			posted.ID, posted.Show = 0, false
			posted.Problem = fmt.Sprintf("Someone deleted this %s meanwhile. Saving adds it again; "+
				"empty its fields to leave it out.", in.Model.Singular)
			conflict = true
		}
		kept = append(kept, posted)
	}
	in.Rows = kept
	return conflict
}

func rowsByID(rows []row) map[int64]row {
	byID := map[int64]row{}
	for _, row := range rows {
		byID[row.id] = row
	}
	return byID
}

// touched reports whether the user edited the row since the form showed it.
func (row *formRow) touched() bool {
	for _, ff := range row.Inputs {
		if !ff.Fixed && (ff.Initial == nil || ff.text(ff.Value) != *ff.Initial) {
			return true
		}
	}
	return false
}

// compare treats every edit of a row to be deleted as a conflict, except of volatile fields.
func (row *formRow) compare(now row) (conflict bool) {
	for _, ff := range row.Inputs {
		switch {
		case ff.Fixed:
			ff.store(now.values[ff.Name])
		case !row.Delete:
			conflict = ff.compare(now.values[ff.Name]) || conflict
		case ff.Initial != nil && !ff.Volatile && ff.text(now.values[ff.Name]) != *ff.Initial:
			ff.store(now.values[ff.Name])
			row.Problem = "Someone changed this meanwhile. Delete it all the same?"
			conflict = true
		}
	}
	return conflict
}

// tellConflict prepares the form to show the other change and its author.
func (r *request) tellConflict(ctx context.Context, q db.Querier, f *form, stored [][]row) error {
	for i, in := range f.Inlines {
		shown := map[int64]bool{}
		for _, row := range in.Rows {
			shown[row.ID] = true
		}
		for _, child := range stored[i] {
			if !shown[child.id] {
				r.storedRow(in, child)
			}
		}
	}
	who := "Someone"
	last, err := readEntries(ctx, q, `WHERE ct.app_label = $1 AND ct.model = $2 AND l.object_id = $3
		ORDER BY l.action_time DESC, l.id DESC LIMIT 1`, f.Model.App.Name, f.Model.Name, fmt.Sprint(f.ID))
	if err != nil {
		return err
	}
	if len(last) > 0 {
		who = fmt.Sprintf("%s (%s UTC)", last[0].User, last[0].Time.Format(momentForm))
	}
	f.Notices = []string{fmt.Sprintf("%s changed this %s while you were editing it. Nothing of yours is saved yet: "+
		"where you both changed something, your version is in the field and theirs is shown beside it; "+
		"everything else is as it is now. Save again to keep what you see.", who, f.Model.Singular)}
	return errConflict
}
