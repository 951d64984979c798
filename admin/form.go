package admin

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"ddtb/db"
)

// form is a change form: stored, posted, or both compared. It can be rendered from the posted values alone, without a
// query, when there is no connection.
type form struct {
	formRow
	Sets     []formSet // of Inputs
	Inlines  []*formInline
	Problems []string       // of the whole form
	Notices  []string       // of a conflict
	extra    map[string]any // columns set by rules
	saved    int64          // the id after the save
	edited   bool           // it contains unsaved input
}

type formSet struct {
	Fieldset
	Inputs []*formField
}

// formRow is a row in a form: the form's own, or one of an inline.
type formRow struct {
	Model   *Model
	ID      int64  // 0: a new row
	Label   string // as far as known
	Prefix  string // of its inputs
	Inputs  []*formField
	Delete  bool
	Problem string
	Show    bool // its delete box
}

// formField is a field with its inputs.
type formField struct {
	*Field
	Input    string // the name of its inputs, with an inline's prefix
	Raw      []string
	Initial  *string // the inputs' first values; nil: unknown
	Value    any
	Problem  string
	Fixed    bool   // displayed, not accepted
	May      bool   // the user may change this row
	Text     string // of a fixed field
	Options  []option
	Theirs   string // a value that someone else saved meanwhile
	Conflict bool
}

// option is a row that a Many may refer to.
type option struct {
	ID     int64
	Group  string // of a permission: its model
	Label  string
	grants []string // its permissions: only a user with all of them can add or remove it
	Chosen bool
	Locked bool
}

type formInline struct {
	*Inline
	Rows  []*formRow
	Empty *formRow // the template for "Add another"

	canView, CanAdd, canChange, canDelete bool
}

// editable returns the fields that the form saves.
func (row *formRow) editable() []*formField {
	var fields []*formField
	for _, ff := range row.Inputs {
		if !ff.Fixed {
			fields = append(fields, ff)
		}
	}
	return fields
}

// field returns nil if the form does not show the field.
func (row *formRow) field(name string) *formField {
	i := slices.IndexFunc(row.Inputs, func(ff *formField) bool { return ff.Name == name })
	if i < 0 {
		return nil
	}
	return row.Inputs[i]
}

// valid reports whether the input has no mistakes.
func (f *form) valid() bool { return len(f.Problems) == 0 && f.Mistakes() == 0 }

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

// emptyForm returns the fields visible to this user, without values.
func (r *request) emptyForm(id int64) *form {
	f := &form{formRow: formRow{Model: r.model, ID: id}, extra: map[string]any{}}
	sets, action := r.model.Fieldsets, actionChange
	if id == 0 {
		action = actionAdd
		if r.model.AddFieldsets != nil {
			sets = r.model.AddFieldsets
		}
	}
	ok := r.can(r.model, action) // with view permission on a question, its choices are read-only on its page
	for _, set := range sets {
		inputs := r.inputs(r.model, set.Fields, "", ok)
		f.Sets, f.Inputs = append(f.Sets, formSet{set, inputs}), append(f.Inputs, inputs...)
	}
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

// inputs returns fields with their default values.
func (r *request) inputs(m *Model, names []string, prefix string, may bool) []*formField {
	fields := make([]*formField, len(names))
	for i, name := range names {
		f := m.field(name)
		ff := &formField{Field: f, Input: prefix + name, May: may}
		ff.Fixed = f.ReadOnly || !may || (f.SuperuserOnly && !r.user.Superuser)
		if f.Default != nil {
			ff.Value = f.Default()
		}
		ff.Raw = f.Kind.raw(ff.Value)
		fields[i] = ff
	}
	return fields
}

// inlineRow returns a row of an inline with default values. number is its place in the form.
func (r *request) inlineRow(in *formInline, id int64, number string) *formRow {
	row := &formRow{Model: in.Model, ID: id, Prefix: in.prefix() + "-" + number + "-", Show: id > 0 && in.canDelete}
	for _, set := range in.Model.Fieldsets {
		row.Inputs = append(row.Inputs, r.inputs(in.Model, set.Fields, row.Prefix, id == 0 || in.canChange)...)
	}
	return row
}

// storedRow adds a row from the database to an inline.
func (r *request) storedRow(in *formInline, child row) {
	row := r.inlineRow(in, child.id, strconv.Itoa(len(in.Rows)))
	row.show(child)
	in.Rows = append(in.Rows, row)
}

// show fills a form's row with the values from the database.
func (row *formRow) show(stored row) {
	row.Label = stored.label
	for _, ff := range row.Inputs {
		ff.store(stored.values[ff.Name])
	}
}

func (ff *formField) store(value any) {
	ff.Value, ff.Raw = value, ff.Kind.raw(value)
	text := ff.text(value)
	ff.Initial, ff.Text = &text, ff.Kind.text(value)
}

// text returns the value as this form may change it: of a Many, the ids that the user may add and remove.
func (ff *formField) text(value any) string {
	if many, ok := ff.Kind.(*Many); ok {
		return many.text(ff.unlocked(idsOf(value)))
	}
	return ff.Kind.text(value)
}

// unlocked returns the ids that the user may add and remove.
func (ff *formField) unlocked(ids []int64) []int64 {
	locked := []int64{}
	for _, o := range ff.Options {
		if o.Locked {
			locked = append(locked, o.ID)
		}
	}
	return without(ids, locked)
}

// addBlank adds the inlines' blank rows, and renumbers all rows: some posted rows may be gone.
func (r *request) addBlank(f *form) {
	for _, in := range f.Inlines {
		if in.CanAdd {
			in.Empty = r.inlineRow(in, 0, "__prefix__")
			for range in.Extra - (len(in.Rows) - in.Stored()) {
				in.Rows = append(in.Rows, r.inlineRow(in, 0, ""))
			}
		}
		for i, row := range in.Rows {
			row.Prefix = fmt.Sprintf("%s-%d-", in.prefix(), i)
			for _, ff := range row.Inputs {
				ff.Input = row.Prefix + ff.Name
			}
		}
	}
}

// maxInlines limits the rows of one inline in a form, as Django does.
const maxInlines = 1000

// postedForm parses the submitted form without a query.
func (r *request) postedForm(id int64) *form {
	f := r.emptyForm(id)
	f.edited = true
	for _, ff := range f.editable() {
		ff.post(r.form)
	}
	f.Label = f.typedLabel()
	for _, in := range f.Inlines {
		total, err := strconv.Atoi(r.form.Get(in.prefix() + "-TOTAL_FORMS"))
		if (err != nil && r.form.Has(in.prefix()+"-TOTAL_FORMS")) || total < 0 || total > maxInlines {
			f.Problems = append(f.Problems, fmt.Sprintf("At most %d %s can be saved at once.", maxInlines, in.Model.Plural))
			continue
		}
		for i := range total {
			if row := r.postedRow(in, i); row != nil {
				in.Rows = append(in.Rows, row)
			}
		}
	}
	return f
}

// postedRow returns nil for a row that this user may not submit.
func (r *request) postedRow(in *formInline, i int) *formRow {
	id, err := strconv.ParseInt(r.form.Get(fmt.Sprintf("%s-%d-id", in.prefix(), i)), 10, 64)
	if err != nil || id < 0 {
		id = 0
	}
	if (id == 0 && !in.CanAdd) || (id > 0 && !in.canView) {
		return nil
	}
	row := r.inlineRow(in, id, strconv.Itoa(i))
	row.Label = r.form.Get(row.Prefix + in.Model.Label) // until the stored one is known
	row.Delete = row.Show && r.form.Get(row.Prefix+"DELETE") != ""
	for _, ff := range row.editable() {
		ff.Raw = ff.Kind.take(r.form, ff.Input)
	}
	if row.blank() {
		return row
	}
	for _, ff := range row.editable() {
		ff.post(r.form)
		if row.Delete {
			ff.Problem = ""
		}
	}
	return row
}

// blank reports whether a new row was left unchanged: then it is ignored.
func (row *formRow) blank() bool {
	for _, ff := range row.Inputs {
		fresh := []string{""}
		if ff.Default != nil {
			fresh = ff.Kind.raw(ff.Default())
		}
		if ff.Problem != "" || !slices.Equal(ff.Raw, fresh) && strings.TrimSpace(strings.Join(ff.Raw, "")) != "" {
			return false
		}
	}
	return row.ID == 0
}

// post reads the field from a form, and validates it.
func (ff *formField) post(form url.Values) {
	ff.Raw = ff.Kind.take(form, ff.Input)
	if name := "initial-" + ff.Input; form.Has(name) {
		initial := form.Get(name)
		ff.Initial = &initial
	}
	ff.Value, ff.Problem = ff.Kind.parse(ff.Raw)
	for i := range ff.Raw {
		ff.Raw[i] = strings.ToValidUTF8(ff.Raw[i], "\uFFFD") // the page is UTF-8, whatever was sent
	}
	if ff.Problem != "" {
		return
	}
	empty := ff.Value == nil || ff.Value == ""
	switch {
	case empty && !ff.Optional:
		ff.Problem = required
	case !empty && ff.Check != nil:
		ff.Problem = ff.Check(ff.Value)
	}
}

// attach sets a Many's options, and rejects other ids.
func (ff *formField) attach(r *request, options []option) {
	chosen := map[string]bool{}
	for _, raw := range ff.Raw {
		chosen[raw] = true
	}
	known := map[int64]bool{}
	ff.Options = make([]option, len(options))
	for i, o := range options {
		o.Chosen = chosen[strconv.FormatInt(o.ID, 10)]
		o.Locked = !r.user.CanAll(o.grants)
		ff.Options[i], known[o.ID] = o, true
	}
	if ff.Problem != "" || ff.Fixed {
		return
	}
	for _, id := range idsOf(ff.Value) {
		if !known[id] {
			ff.Problem = fmt.Sprintf("Select a valid choice. %d is not one of the available choices.", id)
		}
	}
}

// readOptions attaches the options of every Many.
func (r *request) readOptions(ctx context.Context, q db.Querier, f *form) error {
	for _, ff := range f.Inputs {
		many, ok := ff.Kind.(*Many)
		if !ok {
			continue
		}
		options, err := many.options(ctx, q)
		if err != nil {
			return fmt.Errorf("choices of %s: %w", ff.Name, err)
		}
		ff.attach(r, options)
	}
	return nil
}
