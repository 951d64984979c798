package admin

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"ddtb/app/web"
)

// form is a change form: a row's fields, and the rows of its inlines, each with the input of the user or the value in the
// database, and its mistake. It can be rendered from the input alone, when there is no connection.
type form struct {
	formRow
	Inlines  []*formInline
	Problems []string       // of the whole form
	Notices  []string       // of a conflict
	Posted   bool           // it contains unsaved input
	extra    map[string]any // further columns of a new row, see Model.prepare
}

type formSet struct {
	Fieldset
	Inputs []*formField
}

// formRow is a row in a form: the form's own, or one of an inline.
type formRow struct {
	Model     *Model
	ID        int64  // 0: a new row
	Prefix    string // of the inputs, and the number, of an inline's row
	Number    string
	Sets      []formSet // of Inputs
	Inputs    []*formField
	CanDelete bool // an inline's row
	Delete    bool
	Problem   string
	Label     string // as far as known
	stored    row    // the row in the database, see fill
}

// formField is a field with its inputs.
type formField struct {
	*Field
	Input   string   // the name of its inputs, with an inline's prefix
	Raw     []string // the values of its inputs; nil: unknown
	Initial *string  // the value when the form was first shown; nil: unknown
	Value   any
	Theirs  string // the value that someone else saved meanwhile; "": no conflict
	Problem string
	Posted  bool // the values are the user's
	Fixed   bool // displayed, not accepted
	May     bool // the user may change this row
	Options []option
}

// option is a row that a Many may refer to.
type option struct {
	ID     int64
	Group  string // of a permission: its model
	Label  string
	grants []string // its permissions: only a user with all of them can add or remove it
	Locked bool
	Chosen bool
}

type formInline struct {
	*Inline
	Rows  []*formRow
	Empty *formRow // the template for "Add another"

	canView, CanAdd, canChange, canDelete bool
}

// newForm returns a form with the fields visible to this user, without values.
func (r *request) newForm(id int64) *form {
	sets, action := r.model.Fieldsets, actionChange
	if id == 0 {
		action = actionAdd
		if r.model.AddFieldsets != nil {
			sets = r.model.AddFieldsets
		}
	}
	ok := r.can(r.model, action) // with view permission on a question, its choices are read-only on its page
	f := &form{formRow: *r.newRow(r.model, sets, id, ok)}
	for i := range r.model.Inlines {
		in := &r.model.Inlines[i]
		if view, add := r.can(in.Model, actionView), r.can(in.Model, actionAdd); view || add {
			f.Inlines = append(f.Inlines, &formInline{
				Inline: in, canView: view, CanAdd: ok && add, canChange: ok && r.can(in.Model, actionChange),
				canDelete: ok && view && r.can(in.Model, actionDelete),
			})
		}
	}
	return f
}

// newRow returns a row with its fields' first values. A fixed field of a stored row has none until fill. may reports whether
// the user may edit the row.
func (r *request) newRow(m *Model, sets []Fieldset, id int64, may bool) *formRow {
	row := &formRow{Model: m, ID: id}
	for _, set := range sets {
		inputs := make([]*formField, len(set.Fields))
		for i, name := range set.Fields {
			ff := &formField{Field: m.field(name), Input: name, May: may}
			ff.Fixed = ff.ReadOnly || !may || (ff.SuperuserOnly && !r.user.Superuser)
			if id == 0 || !ff.Fixed {
				ff.set(ff.initialValue())
			}
			inputs[i] = ff
		}
		row.Sets, row.Inputs = append(row.Sets, formSet{set, inputs}), append(row.Inputs, inputs...)
	}
	return row
}

func (r *request) inlineRow(in *formInline, id int64) *formRow {
	row := r.newRow(in.Model, in.Model.Fieldsets, id, id == 0 || in.canChange)
	row.CanDelete = id > 0 && in.canDelete
	return row
}

// number names the inputs of an inline's row, as Django does: "choice_set-0-votes". shown is the number for the user.
func (row *formRow) number(i, shown string) {
	row.Prefix, row.Number = row.Model.Name+"_set-"+i, shown
	for _, ff := range row.Inputs {
		ff.Input = row.Prefix + "-" + ff.Name
	}
}

// addBlank adds the inlines' blank rows, and renumbers all rows: some posted rows may be gone.
func (r *request) addBlank(f *form) {
	for _, in := range f.Inlines {
		if in.CanAdd {
			in.Empty = r.inlineRow(in, 0)
			in.Empty.number("__prefix__", "__number__")
			for range in.Extra - (len(in.Rows) - in.Stored()) {
				in.Rows = append(in.Rows, r.inlineRow(in, 0))
			}
		}
		for i, row := range in.Rows {
			row.number(strconv.Itoa(i), strconv.Itoa(i+1))
		}
	}
}

// maxInlines limits the rows of one inline in a form, as Django does.
const maxInlines = 1000

// postedForm parses the submitted form without a query.
func (r *request) postedForm(id int64) *form {
	f := r.newForm(id)
	f.Posted = true
	f.post(r.form)
	f.Label = f.typedLabel()
	for _, in := range f.Inlines {
		total, err := 0, error(nil)
		if name := in.Prefix() + "-TOTAL_FORMS"; r.form.Has(name) {
			total, err = strconv.Atoi(r.form.Get(name))
		}
		if err != nil || total < 0 || total > maxInlines {
			f.Problems = append(f.Problems, fmt.Sprintf("At most %d %s can be saved at once.", maxInlines, in.Model.Plural))
			continue
		}
		for i := range total {
			r.postRow(in, i)
		}
	}
	return f
}

// postRow adds a submitted row to an inline, unless this user may not submit it.
func (r *request) postRow(in *formInline, i int) {
	id, ok := web.ParseID(r.form.Get(fmt.Sprintf("%s-%d-id", in.Prefix(), i)))
	if (!ok && !in.CanAdd) || (ok && !in.canView) {
		return
	}
	row := r.inlineRow(in, id)
	row.number(strconv.Itoa(i), strconv.Itoa(i+1))
	row.Label = r.form.Get(row.Prefix + "-" + in.Model.Label) // until the stored one is known
	row.Delete = row.CanDelete && r.form.Get(row.Prefix+"-DELETE") != ""
	row.post(r.form)
	if row.Delete || row.blank() {
		for _, ff := range row.Inputs {
			ff.Problem = ""
		}
	}
	in.Rows = append(in.Rows, row)
}

// post reads the fields of a row from a form.
func (row *formRow) post(form url.Values) {
	for _, ff := range row.editable() {
		ff.post(form)
	}
}

// post reads the field from a form, and validates it.
func (ff *formField) post(form url.Values) {
	ff.Posted = true
	ff.Raw = ff.posted(form, ff.Input)
	if name := "initial-" + ff.Input; form.Has(name) {
		ff.Initial = new(form.Get(name))
	}
	ff.Value, ff.Problem = ff.parse(ff.Raw)
	for i := range ff.Raw {
		ff.Raw[i] = strings.ToValidUTF8(ff.Raw[i], "\uFFFD") // the page is UTF-8, whatever was sent
	}
	if ff.Problem == "" && !ff.Optional && (ff.Value == nil || ff.Value == "") {
		ff.Problem = required
	}
}

// blank reports whether a new row was left as it was: then it is ignored.
func (row *formRow) blank() bool {
	for _, ff := range row.Inputs {
		fresh := ff.raw(ff.text(ff.initialValue()))
		if !slices.Equal(ff.Raw, fresh) && strings.TrimSpace(strings.Join(ff.Raw, "")) != "" {
			return false
		}
	}
	return row.ID == 0
}

// fill takes the values from the database, except for fields that were posted.
func (row *formRow) fill(stored row) {
	row.stored, row.Label = stored, stored.label
	for _, ff := range row.Inputs {
		now := stored.values[ff.Name]
		if !ff.Posted {
			ff.takeOver(now)
			continue
		}
		for _, o := range ff.Options { // a browser sends no locked box
			if o.Locked && slices.Contains(idsOf(now), o.ID) {
				ff.Raw = append(ff.Raw, strconv.FormatInt(o.ID, 10))
			}
		}
	}
}

// set gives the field a value, and its inputs the same.
func (ff *formField) set(value any) { ff.Value, ff.Raw = value, ff.raw(ff.text(value)) }

// attach sets a Many's options. A posted id that is not an option is a mistake of the field.
func (ff *formField) attach(r *request, options []option) {
	ff.Options = options
	for i, o := range options {
		options[i].Locked = !r.user.CanAll(o.grants)
	}
	for _, id := range idsOf(ff.Value) {
		known := slices.ContainsFunc(options, func(o option) bool { return o.ID == id })
		if ff.Posted && ff.Problem == "" && !known {
			ff.Problem = fmt.Sprintf("Select a valid choice. %d is not one of the available choices.", id)
		}
	}
}

// mine returns the text of the value as this user may change it: of a Many, the ids that the user may add and remove.
func (ff *formField) mine(value any) string {
	if ff.Kind == Many {
		value = ff.unlocked(value)
	}
	return ff.text(value)
}

// unlocked returns the ids that the user may add and remove. It is never nil, which would be NULL.
func (ff *formField) unlocked(value any) []int64 {
	ids := []int64{}
	for _, id := range idsOf(value) {
		if !slices.ContainsFunc(ff.Options, func(o option) bool { return o.ID == id && o.Locked }) {
			ids = append(ids, id)
		}
	}
	return ids
}

// typedLabel returns the row's name after the save.
func (row *formRow) typedLabel() string {
	if ff := row.field(row.Model.Label); ff != nil && ff.Posted {
		return ff.text(ff.Value)
	}
	return row.Label
}

// editable returns the fields that the form saves.
func (row *formRow) editable() []*formField {
	return slices.DeleteFunc(slices.Clone(row.Inputs), func(ff *formField) bool { return ff.Fixed })
}

// field returns nil if the form does not show the field.
func (row *formRow) field(name string) *formField {
	for _, ff := range row.Inputs {
		if ff.Name == name {
			return ff
		}
	}
	return nil
}

func (f *form) valid() bool { return len(f.Problems) == 0 && f.Mistakes() == 0 }

// The methods below are for templates.

// Mistakes returns the number of fields and rows with a mistake.
func (f *form) Mistakes() (n int) {
	rows := []*formRow{&f.formRow}
	for _, in := range f.Inlines {
		rows = append(rows, in.Rows...)
	}
	for _, row := range rows {
		if row.Problem != "" {
			n++
		}
		for _, ff := range row.Inputs {
			if ff.Problem != "" {
				n++
			}
		}
	}
	return n
}

// Prefix returns the prefix of the inline's inputs, as in Django: "choice_set".
func (in *formInline) Prefix() string { return in.Model.Name + "_set" }

// Stored returns the number of stored rows.
func (in *formInline) Stored() (n int) {
	for _, row := range in.Rows {
		if row.ID > 0 {
			n++
		}
	}
	return n
}

// Widget returns the kind of the inputs in the template.
func (ff *formField) Widget() string {
	if ff.Fixed && ff.Kind != Many && ff.Kind != PasswordHash {
		return "shown"
	}
	return string(ff.Kind)
}

// ID returns the id of the first input, as in Django.
func (ff *formField) ID() string { return "id_" + ff.Input }

// Checked reports whether a box is ticked.
func (ff *formField) Checked() bool { return ff.Value == true }

// unread is shown in place of a stored value when there was no connection to read it.
const unread = "can’t be read at this moment"

// Shown returns a fixed value as text.
func (ff *formField) Shown() string {
	if ff.Raw == nil {
		return unread
	}
	return cmp.Or(ff.text(ff.Value), "-")
}

// NoOptions returns why a Many has no options.
func (ff *formField) NoOptions() string {
	switch {
	case ff.Options != nil:
		return "There are none yet."
	case ff.Fixed:
		return unread
	}
	return "What you chose is kept; it can’t be listed at this moment."
}

// optionGroup is the options of a Many under one title.
type optionGroup struct {
	Title   string
	Options []option
}

// Groups returns the options by group, for checkboxes with headings.
func (ff *formField) Groups() []optionGroup {
	var groups []optionGroup
	for _, o := range ff.Options {
		o.Chosen = slices.Contains(ff.Raw, strconv.FormatInt(o.ID, 10))
		i := slices.IndexFunc(groups, func(g optionGroup) bool { return g.Title == o.Group })
		if i < 0 {
			i, groups = len(groups), append(groups, optionGroup{Title: o.Group})
		}
		groups[i].Options = append(groups[i].Options, o)
	}
	return groups
}
