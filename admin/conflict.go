package admin

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"ddtb/db"
)

// A form carries the values that it showed at first. Overwriting a newer value would be a lost update: then nothing is
// saved, and the form shows both versions.

// errConflict means that someone else has saved what this form would overwrite; the form shows both versions.
var errConflict = errors.New("changed meanwhile")

// markConflicts compares the form with the stored rows. It marks what someone else has edited too, and reports whether
// there is any.
func (f *form) markConflicts() bool {
	conflict := f.formRow.markConflicts()
	for _, in := range f.Inlines {
		conflict = in.markConflicts() || conflict
	}
	return conflict
}

func (in *formInline) markConflicts() (conflict bool) {
	rows := in.Rows
	in.Rows = nil
	for _, row := range rows {
		switch {
		case row.ID == row.stored.id:
			conflict = row.markConflicts() || conflict
		case row.Delete || !row.touched():
			continue // deleted by both
		default:
			row.ID, row.CanDelete, conflict = 0, false, true
			row.Problem = fmt.Sprintf("Someone deleted this %s meanwhile. Saving adds it again; "+
				"empty its fields to leave it out.", in.Model.Singular)
			if !in.CanAdd {
				row.Problem = fmt.Sprintf(leftOut, in.Model.Singular)
			}
		}
		in.Rows = append(in.Rows, row)
	}
	return conflict
}

const leftOut = "Someone deleted this %s meanwhile, and you may not add one: saving leaves it out."

// markConflicts compares each posted field with the stored value, and shows both on a conflict. In a row to be deleted,
// any change by someone else is a conflict, except of volatile fields.
func (row *formRow) markConflicts() (conflict bool) {
	for _, ff := range row.Inputs {
		now := row.stored.values[ff.Name]
		switch {
		case row.ID == 0 || !ff.Posted:
		case !row.Delete:
			conflict = ff.markConflict(now) || conflict
		case ff.Initial != nil && !ff.Volatile && ff.mine(now) != *ff.Initial:
			ff.takeOver(now)
			row.Problem = "Someone changed this meanwhile. Delete it all the same?"
			conflict = true
		}
	}
	return conflict
}

// markConflict detects a lost update: the database has neither the value that the form showed at first, nor the one that it
// would write. Then the field shows both. An untouched volatile field is no conflict.
func (ff *formField) markConflict(now any) (conflict bool) {
	mine, stored := ff.mine(ff.Value), ff.mine(now)
	initial := ff.Initial
	ff.Initial = &stored
	switch {
	case initial == nil || stored == *initial || mine == stored:
		return false
	case mine == *initial:
		ff.takeOver(now)
		return !ff.Volatile
	}
	ff.Theirs = cmp.Or(ff.described(now), "nothing")
	return true
}

// described returns the value as people read it.
func (ff *formField) described(value any) string {
	if ff.Kind != Many {
		return ff.text(value)
	}
	var labels []string
	for _, o := range ff.Options {
		if slices.Contains(idsOf(value), o.ID) {
			labels = append(labels, o.Label)
		}
	}
	return strings.Join(labels, ", ")
}

// takeOver gives an untouched field the value in the database.
func (ff *formField) takeOver(now any) {
	ff.set(now)
	ff.Initial = new(ff.mine(now))
}

// touched reports whether the user edited the row since the form showed it.
func (row *formRow) touched() bool {
	return slices.ContainsFunc(row.editable(), func(ff *formField) bool {
		return ff.Initial == nil || ff.mine(ff.Value) != *ff.Initial
	})
}

func (r *request) explainConflict(q db.Querier, f *form) error {
	last, err := readEntries(r.ctx, q, ofObject+` ORDER BY l.action_time DESC, l.id DESC LIMIT 1`,
		f.Model.App.Name, f.Model.Name, fmt.Sprint(f.ID))
	if err != nil {
		return err
	}
	who := ""
	if len(last) > 0 { // perhaps of long ago: not every change is in the history
		who = fmt.Sprintf(" The last change in its history is by %s (%s UTC).", last[0].User, last[0].Time.Format(momentForm))
	}
	f.Notices = []string{fmt.Sprintf("This %s was changed while you were editing it.%s Nothing of yours is saved yet: "+
		"where you changed the same field, your version is in it and the stored one is shown beside it; "+
		"everything else is as it is now. Save again to keep what you see.", f.Model.Singular, who)}
	return errConflict
}
