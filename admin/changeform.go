package admin

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"ddtb/app/fault"
	"ddtb/app/web"
	"ddtb/db"
)

type formPage struct {
	frame
	Form      *form
	Model     *Model
	ID        int64
	Add       bool
	CanSave   bool
	CanDelete bool
	CanAdd    bool
	Preserved string
	Back      string // the changelist it came from
	Action    string
	Again     bool // the input is not saved
}

// preservedFilters is the changelist's query that came with the form, parsed and encoded again, so that a redirect
// can't contain anything else.
func (r *request) preservedFilters() url.Values {
	q, err := url.ParseQuery(r.QueryParam("_changelist_filters"))
	if err != nil {
		return nil
	}
	return q
}

// preserved is the query for links to other forms.
func (r *request) preserved() string { return preserve(r.preservedFilters()) }

// preserve returns the query that carries a changelist's query through a form, "" if that is empty.
func preserve(q url.Values) string {
	if len(q) == 0 {
		return ""
	}
	return "?" + url.Values{"_changelist_filters": {q.Encode()}}.Encode()
}

// list returns the changelist to return to, or the index if the user may not view it.
func (r *request) list() string {
	if !r.can(r.model, actionView) {
		return root
	}
	if q := r.preservedFilters(); len(q) > 0 {
		return r.model.path() + "?" + q.Encode()
	}
	return r.model.path()
}

func (s *Site) toChange(r *request) error {
	id, ok := r.id()
	if !ok {
		return r.gone()
	}
	return r.to(r.model.path(id, "change"))
}

// addForm shows the form for a new row.
func (s *Site) addForm(r *request) error {
	f := r.emptyForm(0)
	if err := r.readOptions(r.ctx, s.db, f); err != nil {
		return err
	}
	return r.showForm(http.StatusOK, f)
}

// changeForm shows a row.
func (s *Site) changeForm(r *request) error {
	id, _ := r.id()
	f := r.emptyForm(id)
	if err := r.load(f); err != nil {
		return r.orGone(err)
	}
	return r.showForm(http.StatusOK, f)
}

func (r *request) orGone(err error) error {
	if errors.Is(err, errGone) {
		return r.gone()
	}
	return err
}

// load fills the form from the database in one transaction, so that it waits for only one lease.
func (r *request) load(f *form) error {
	return r.site.db.InTx(r.ctx, func(q db.Querier) error {
		*f = *r.emptyForm(f.ID) // a rolled-back attempt has filled it
		stored, err := f.Model.find(r.ctx, q, f.Model.formFields(f.Model.Fieldsets), f.ID, "")
		if err != nil {
			return err
		}
		if stored == nil {
			return errGone
		}
		if err := r.fixUntouchable(q, f); err != nil {
			return err
		}
		if err := r.readOptions(r.ctx, q, f); err != nil {
			return err
		}
		f.show(*stored)
		for _, ff := range f.Inputs {
			ff.attach(r, ff.Options)
		}
		for _, in := range f.Inlines {
			children, err := in.children(r.ctx, q, f.ID, "")
			if err != nil {
				return err
			}
			for _, child := range children {
				r.storedRow(in, child)
			}
		}
		return nil
	})
}

// fixUntouchable makes a row read-only if this user may change others but not this one.
func (r *request) fixUntouchable(q db.Querier, f *form) error {
	err := r.heed(r.ctx, q, r.model.rules.mayTouch, f.ID)
	if fault.KindOf(err) != fault.Forbidden {
		return err
	}
	for _, ff := range f.Inputs {
		ff.Fixed, ff.May = true, false
	}
	return nil
}

// add saves a new row.
func (s *Site) add(r *request) error { return s.saveAndGo(r, r.postedForm(0)) }

// change saves an edited row.
func (s *Site) change(r *request) error {
	id, ok := r.id()
	if !ok {
		return r.gone()
	}
	return s.saveAndGo(r, r.postedForm(id))
}

func (s *Site) saveAndGo(r *request, f *form) error {
	err := errInvalid
	if f.valid() {
		err = r.save(f)
	}
	switch {
	case err == nil:
		return r.afterSave(f)
	case errors.Is(err, errInvalid):
		return r.formBack(http.StatusOK, f)
	case errors.Is(err, errConflict):
		return r.formBack(http.StatusConflict, f)
	case errors.Is(err, errGone):
		return r.rescue(f)
	case db.CauseOf(err) != "":
		return r.unsaved(f, err)
	}
	return err
}

// formBack shows the submitted form, with the database's values of its read-only fields.
func (r *request) formBack(status int, f *form) error {
	err := r.site.db.InTx(r.ctx, func(q db.Querier) error {
		if err := r.readOptions(r.ctx, q, f); err != nil || f.ID == 0 {
			return err
		}
		stored, err := f.Model.find(r.ctx, q, f.Model.formFields(f.Model.Fieldsets), f.ID, "")
		if err != nil || stored == nil {
			return err
		}
		f.Label = stored.label
		for _, ff := range f.Inputs {
			if ff.Fixed {
				ff.store(stored.values[ff.Name])
				ff.attach(r, ff.Options)
			}
		}
		return nil
	})
	if db.CauseOf(err) != "" {
		return r.unsaved(f, err)
	}
	if err != nil {
		return err
	}
	return r.showForm(status, f)
}

// rescue offers to save the input as a new row after its row was deleted.
func (r *request) rescue(f *form) error {
	if !r.can(r.model, actionAdd) || r.model.AddFieldsets != nil {
		return r.gone()
	}
	f.ID = 0
	for _, in := range f.Inlines {
		for _, row := range in.Rows {
			row.ID, row.Show, row.Delete = 0, false, false
		}
	}
	f.Notices = []string{fmt.Sprintf("Someone deleted this %s while you were editing it. What you typed is below: "+
		"saving makes a new one of it.", f.Model.Singular)}
	return r.formBack(http.StatusConflict, f)
}

// formAgain returns a form whose sender could not be checked for want of a connection.
func (r *request) formAgain(err error) error {
	id, _ := r.id()
	if db.CauseOf(err) == "" {
		return err
	}
	return r.unsaved(r.postedForm(id), err)
}

// unsaved returns the filled-in form after a missing connection. It needs no connection itself.
func (r *request) unsaved(f *form, err error) error {
	r.site.log.WarnContext(r.ctx, "a form could not be saved",
		"path", r.Request().URL.Path, "cause", db.CauseOf(err), "error", err)
	if r.site.Tell != nil {
		r.site.db.Release(r.ctx) // telling may take a while
		r.site.Tell(r.Context, err)
	}
	p := web.ProblemOf(err)
	kept := "What you typed is still here"
	if f.field(newPassword) != nil {
		kept += ", but for the password, which is never shown again"
	}
	f.Problems = append(f.Problems, "This is not saved. "+p.Detail+" "+kept+": save again in a moment.")
	r.Response().Header().Set("Retry-After", strconv.Itoa(int(max(time.Second, p.RetryAfter).Seconds())))
	return r.showForm(p.Status, f)
}

// afterSave redirects as the pressed button says.
func (r *request) afterSave(f *form) error {
	verb := "changed"
	if f.ID == 0 {
		verb = "added"
	}
	notice := message{
		Class: "good", Before: "The " + r.model.Singular + " “", Object: r.called(f.Label),
		After: "” was " + verb + " successfully.",
	}
	change := r.model.path(f.saved, "change") + r.preserved()
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
	r.tell(notice)
	return r.to(to)
}

// showForm renders the form without a query.
func (r *request) showForm(status int, f *form) error {
	m := r.model
	p := formPage{
		Form: f, Model: m, ID: f.ID, Add: f.ID == 0, CanSave: len(f.editable()) > 0,
		CanAdd: r.can(m, actionAdd), CanDelete: f.ID > 0 && r.can(m, actionDelete),
		Preserved: r.preserved(), Back: r.list(), Again: f.edited,
	}
	title, here := "Add "+m.Singular, "Add "+m.Singular
	crumbs := r.crumbs(nil, here)
	p.Action = m.path("add") + p.Preserved
	if f.ID > 0 {
		title = "View " + m.Singular
		if p.CanSave {
			title = "Change " + m.Singular
		}
		crumbs = append(r.crumbs(nil, ""), web.Link{Text: cut(r.called(f.Label), 60)})
		p.Action = m.path(f.ID, "change") + p.Preserved
	}
	for _, in := range f.Inlines {
		for _, row := range in.Rows {
			p.CanSave = p.CanSave || row.Show || row.ID == 0
		}
		p.CanSave = p.CanSave || in.CanAdd
	}
	r.addBlank(f)
	p.frame = r.frame(title, crumbs...)
	return r.show(status, "change_form.html", p)
}
