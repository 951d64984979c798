package admin

import (
	"context"
	"errors"
	"fmt"

	"ddtb/db"
)

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
	byID := map[int64]row{}
	for _, s := range stored {
		byID[s.id] = s
	}
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
	for i, in := range f.inlines {
		shown := map[int64]bool{}
		for _, row := range in.Rows {
			shown[row.ID] = true
		}
		for _, child := range stored[i] {
			if !shown[child.id] {
				in.Rows = append(in.Rows, r.storedRow(in, child))
			}
		}
	}
	who := "Someone"
	last, err := readEntries(ctx, q, `WHERE ct.app_label = $1 AND ct.model = $2 AND l.object_id = $3
		ORDER BY l.action_time DESC, l.id DESC LIMIT 1`, f.model.App.Name, f.model.Name, fmt.Sprint(f.id))
	if err != nil {
		return err
	}
	if len(last) > 0 {
		who = fmt.Sprintf("%s (%s UTC)", last[0].User, last[0].Time.Format(momentForm))
	}
	f.notices = []string{fmt.Sprintf("%s changed this %s while you were editing it. Nothing of yours is saved yet: "+
		"where you both changed something, your version is in the field and theirs is shown beside it; "+
		"everything else is as it is now. Save again to keep what you see.", who, f.model.Singular)}
	return errConflict
}
