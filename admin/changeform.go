package admin

import (
	"errors"
	"fmt"
	"net/http"
	"slices"

	"ddtb/app/fault"
	"ddtb/app/web"
	"ddtb/db"
)

// The pages with a change form.

type formPage struct {
	frame
	Form      *form
	Model     *Model
	CanSave   bool
	CanDelete bool
	CanAdd    bool
	Preserved string
	Back      string // the changelist it came from
	Action    string
}

func (s *Site) toChange(r *request) error { return r.to(r.model.path(r.id, "change")) }

func (s *Site) addForm(r *request) error {
	f := r.newForm(0)
	if err := r.readOptions(s.DB.Read(), f); err != nil {
		return err
	}
	return r.showForm(http.StatusOK, f)
}

// changeForm shows a row. It is read-only if this user may change others but not this one.
func (s *Site) changeForm(r *request) error {
	f := r.newForm(r.id)
	err := r.load(s.DB.Read(), f, "")
	if fault.KindOf(err) == fault.Forbidden {
		for _, ff := range f.Inputs {
			ff.Fixed, ff.May = true, false
		}
	} else if err != nil {
		return err
	}
	return r.showForm(http.StatusOK, f)
}

// load reads what the form needs: the choices of its fields and, of an existing row and its inlines, the values of the
// fields that were not posted. The rows are locked if lock is "FOR NO KEY UPDATE" or similar. If a rule protects the row
// from this user, load returns Forbidden after it has read all.
func (r *request) load(q db.Querier, f *form, lock string) error {
	if err := r.readOptions(q, f); err != nil || f.ID == 0 {
		return err
	}
	stored, err := f.Model.find(r.ctx, q, f.Model.formFields(), f.ID, lock)
	if err != nil {
		return err
	}
	f.fill(stored)
	for _, in := range f.Inlines {
		if err := r.loadInline(q, in, f.ID, lock); err != nil {
			return err
		}
	}
	return r.allowedRows(q, actionChange, f.ID)
}

func (r *request) readOptions(q db.Querier, f *form) error {
	for _, ff := range f.Inputs {
		if ff.Kind != Many {
			continue
		}
		options, err := ff.options(r.ctx, q)
		if err != nil {
			return fmt.Errorf("choices of %s: %w", ff.Name, err)
		}
		ff.attach(r, options)
	}
	return nil
}

// loadInline fills the rows of an inline, and adds those that are missing in the form, if the user may view them.
func (r *request) loadInline(q db.Querier, in *formInline, parent int64, lock string) error {
	if !in.canView {
		return nil
	}
	children, err := in.Model.read(r.ctx, q, in.Model.formFields(), in.ForeignKey,
		fmt.Sprintf("WHERE t.%s = $1::bigint ORDER BY t.id %s", ident(in.ForeignKey), lock), parent)
	if err != nil {
		return err
	}
	rows := map[int64]*formRow{}
	for _, row := range in.Rows {
		rows[row.ID] = row
	}
	for _, child := range children {
		row := rows[child.id]
		if row == nil {
			row = r.inlineRow(in, child.id)
			in.Rows = append(in.Rows, row)
		}
		row.fill(child)
	}
	return nil
}

// saveForm saves a new or an edited row, and redirects, or returns the form.
func (s *Site) saveForm(r *request) error {
	f, err := r.store()
	switch {
	case err == nil:
		return r.afterSave(f)
	case errors.Is(err, errInvalid):
		return r.showForm(http.StatusOK, f)
	case errors.Is(err, errConflict):
		return r.showForm(http.StatusConflict, f)
	case errors.Is(err, errGone):
		return r.rescue(f)
	case db.CauseOf(err) != "":
		return r.unsaved(f, err)
	}
	return err
}

// rescue offers to save the input as a new row after its row was deleted.
func (r *request) rescue(f *form) error {
	if !r.can(r.model, actionAdd) || r.model.AddFieldsets != nil {
		return r.gone()
	}
	f.ID = 0
	for _, in := range f.Inlines {
		in.Rows = slices.DeleteFunc(in.Rows, func(row *formRow) bool {
			return row.Delete || len(row.editable()) == 0 || !in.CanAdd && !row.touched()
		})
		for _, row := range in.Rows {
			row.ID, row.CanDelete = 0, false
			if !in.CanAdd {
				row.Problem = fmt.Sprintf(leftOut, in.Model.Singular)
			}
		}
	}
	f.Notices = []string{fmt.Sprintf("Someone deleted this %s while you were editing it. What you typed is below: "+
		"saving makes a new one of it.", f.Model.Singular)}
	return r.showForm(http.StatusConflict, f)
}

// unsaved returns the filled-in form after a missing connection. It needs no connection itself.
func (r *request) unsaved(f *form, err error) error {
	r.site.Log.WarnContext(r.ctx, "a form could not be saved",
		"path", r.Request().URL.Path, "cause", db.CauseOf(err), "error", err)
	r.site.DB.Release(r.ctx) // the report may take a while
	r.site.Report(r.Context, err)
	p := web.ProblemOf(err)
	kept := "What you typed is still here"
	if f.field(newPassword) != nil {
		kept += ", but for the password, which is never shown again"
	}
	if ce, ok := errors.AsType[*db.ConnError](err); ok && ce.Sent {
		f.Problems = append(f.Problems, "This may or may not have been saved: the connection to the database was lost meanwhile. "+kept+
			": check the list before you save it again.")
	} else {
		f.Problems = append(f.Problems, "This is not saved. "+p.Detail+" "+kept+": save again in a moment.")
	}
	web.SetRetryAfter(r.Context, p.RetryAfter)
	return r.showForm(p.Status, f)
}

// afterSave redirects as the pressed button says.
func (r *request) afterSave(f *form) error {
	verb := "changed"
	if f.ID == 0 {
		verb = "added"
	}
	notice := message{
		Class: "good", Before: "The " + r.model.Singular + " “", Object: r.called(f.typedLabel()),
		After: "” was " + verb + " successfully.",
	}
	change := r.model.path(f.stored.id, "change") + r.preserved()
	if r.can(r.model, actionView) {
		notice.Path = change
	}
	to := r.list()
	half := f.ID == 0 && r.model.AddFieldsets != nil // a new row with more fields to fill in
	switch {
	case notice.Path != "" && (r.form.Has("_continue") || (half && !r.form.Has("_addanother"))):
		notice.After += " You may edit it again below."
		to = change
	case r.form.Has("_addanother") && r.can(r.model, actionAdd):
		notice.After += " You may add another " + r.model.Singular + " below."
		to = r.model.path("add") + r.preserved()
	}
	r.notify(notice)
	return r.to(to)
}

// showForm renders the form without a query.
func (r *request) showForm(status int, f *form) error {
	m := r.model
	p := formPage{
		Form: f, Model: m, CanSave: len(f.editable()) > 0,
		CanAdd: r.can(m, actionAdd), CanDelete: f.ID > 0 && r.can(m, actionDelete),
		Preserved: r.preserved(), Back: r.list(),
	}
	for _, in := range f.Inlines {
		p.CanSave = p.CanSave || in.CanAdd || slices.ContainsFunc(in.Rows, func(row *formRow) bool { return row.CanDelete })
	}
	r.addBlank(f)
	title := "Add " + m.Singular
	crumbs := r.crumbs(nil, title)
	p.Action = m.path("add") + p.Preserved
	if f.ID > 0 {
		title = "View " + m.Singular
		if p.CanSave {
			title = "Change " + m.Singular
		}
		crumbs = r.crumbs(nil, cut(r.called(f.Label), 60))
		p.Action = m.path(f.ID, "change") + p.Preserved
	}
	p.frame = r.frame(title, crumbs...)
	return r.show(status, "change_form.html", p)
}
