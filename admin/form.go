package admin

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"ddtb/db"
)

// form is a change form: stored, posted, or both compared. It can be rendered from the posted values alone, without a
// query, when there is no connection.
type form struct {
	model    *Model
	id       int64  // 0: a new row
	saved    int64  // the id after the save
	label    string // the row's name, as far as known
	sets     []formSet
	inlines  []*formInline
	problems []string       // of the whole form
	extra    map[string]any // columns set by rules
	notices  []string       // of a conflict
	edited   bool           // it contains unsaved input
}

type formSet struct {
	Fieldset
	Inputs []*formField
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

type optionsQuery func(context.Context, db.Querier) ([]option, error)

type formInline struct {
	*Inline
	Rows  []*formRow
	Empty *formRow // the template for "Add another"

	canView, canAdd, canChange, canDelete bool
}

type formRow struct {
	ID      int64 // 0: a new row
	Label   string
	Prefix  string
	Inputs  []*formField
	Delete  bool
	Problem string
	Show    bool // its delete box
}

// copy returns the form with its own fields and rows.
func (f *form) copy() *form {
	c := *f
	c.sets = slices.Clone(f.sets)
	for i, set := range f.sets {
		c.sets[i].Inputs = copyFields(set.Inputs)
	}
	c.inlines = make([]*formInline, len(f.inlines))
	for i, in := range f.inlines {
		inline := *in
		inline.Rows = make([]*formRow, len(in.Rows))
		for j, row := range in.Rows {
			r := *row
			r.Inputs = copyFields(row.Inputs)
			inline.Rows[j] = &r
		}
		c.inlines[i] = &inline
	}
	return &c
}

func copyFields(fields []*formField) []*formField {
	all := make([]*formField, len(fields))
	for i, ff := range fields {
		field := *ff
		all[i] = &field
	}
	return all
}

// editable returns the fields that the form saves.
func (f *form) editable() []*formField {
	var fields []*formField
	for _, set := range f.sets {
		for _, ff := range set.Inputs {
			if !ff.Fixed {
				fields = append(fields, ff)
			}
		}
	}
	return fields
}

func (f *form) field(name string) *formField {
	for _, set := range f.sets {
		for _, ff := range set.Inputs {
			if ff.Name == name {
				return ff
			}
		}
	}
	return nil
}

// valid reports whether the input has no mistakes.
func (f *form) valid() bool { return len(f.problems) == 0 && f.Mistakes() == 0 }

// Mistakes returns the number of fields with a mistake.
func (f *form) Mistakes() (n int) {
	count := func(fields []*formField) {
		for _, ff := range fields {
			if ff.Problem != "" {
				n++
			}
		}
	}
	for _, set := range f.sets {
		count(set.Inputs)
	}
	for _, in := range f.inlines {
		for _, row := range in.Rows {
			count(row.Inputs)
			if row.Problem != "" {
				n++
			}
		}
	}
	return n
}

// emptyForm returns the fields visible to this user, without values.
func (r *request) emptyForm(id int64) *form {
	f := &form{model: r.model, id: id, extra: map[string]any{}}
	sets, action := r.model.Fieldsets, actionChange
	if id == 0 {
		action = actionAdd
		if r.model.AddFieldsets != nil {
			sets = r.model.AddFieldsets
		}
	}
	for _, set := range sets {
		f.sets = append(f.sets, formSet{set, r.inputs(r.model, set.Fields, "", r.can(r.model, action))})
	}
	for i := range r.model.Inlines {
		in := &r.model.Inlines[i]
		view, add := r.can(in.Model, actionView), r.can(in.Model, actionAdd)
		if !view && !add {
			continue
		}
		ok := r.can(r.model, action) // with view permission on a question, its choices are read-only on its page
		f.inlines = append(f.inlines, &formInline{
			Inline: in, canView: view, canAdd: ok && add, canChange: ok && r.can(in.Model, actionChange),
			canDelete: ok && view && r.can(in.Model, actionDelete),
		})
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

// rowInputs returns the fields of an inline's row.
func (r *request) rowInputs(in *formInline, prefix string, may bool) []*formField {
	var names []string
	for _, set := range in.Model.Fieldsets {
		names = append(names, set.Fields...)
	}
	return r.inputs(in.Model, names, prefix, may)
}

// showStored fills a form with a row and its inline rows.
func (r *request) showStored(f *form, stored *row, children [][]row) {
	f.label = stored.label
	for _, set := range f.sets {
		for _, ff := range set.Inputs {
			ff.store(stored.values[ff.Name])
		}
	}
	for i, in := range f.inlines {
		for _, child := range children[i] {
			in.Rows = append(in.Rows, r.storedRow(in, child))
		}
	}
}

func (r *request) storedRow(in *formInline, child row) *formRow {
	prefix := fmt.Sprintf("%s-%d-", in.prefix(), len(in.Rows))
	row := &formRow{
		ID: child.id, Label: child.label, Prefix: prefix, Inputs: r.rowInputs(in, prefix, in.canChange), Show: in.canDelete,
	}
	for _, ff := range row.Inputs {
		ff.store(child.values[ff.Name])
	}
	return row
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
	for _, in := range f.inlines {
		for i, row := range in.Rows {
			row.Prefix = fmt.Sprintf("%s-%d-", in.prefix(), i)
			for _, ff := range row.Inputs {
				ff.Input = row.Prefix + ff.Name
			}
		}
		if !in.canAdd {
			continue
		}
		blank := 0
		for _, row := range in.Rows {
			if row.ID == 0 {
				blank++
			}
		}
		in.Empty = r.blankRow(in, "__prefix__")
		for range in.Extra - blank {
			in.Rows = append(in.Rows, r.blankRow(in, strconv.Itoa(len(in.Rows))))
		}
	}
}

func (r *request) blankRow(in *formInline, number string) *formRow {
	prefix := in.prefix() + "-" + number + "-"
	return &formRow{Prefix: prefix, Inputs: r.rowInputs(in, prefix, true)}
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
	f.label = f.typedLabel()
	for _, in := range f.inlines {
		total, err := strconv.Atoi(r.form.Get(in.prefix() + "-TOTAL_FORMS"))
		if (err != nil && r.form.Has(in.prefix()+"-TOTAL_FORMS")) || total < 0 || total > maxInlines {
			f.problems = append(f.problems, fmt.Sprintf("At most %d %s can be saved at once.", maxInlines, in.Model.Plural))
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
	prefix := fmt.Sprintf("%s-%d-", in.prefix(), i)
	id, err := strconv.ParseInt(r.form.Get(prefix+"id"), 10, 64)
	if err != nil || id < 0 {
		id = 0
	}
	if (id == 0 && !in.canAdd) || (id > 0 && !in.canView) {
		return nil
	}
	row := &formRow{ID: id, Prefix: prefix, Show: id > 0 && in.canDelete}
	row.Inputs = r.rowInputs(in, prefix, id == 0 || in.canChange)
	row.Label = r.form.Get(prefix + in.Model.Label) // until the stored one is known
	row.Delete = row.Show && r.form.Get(prefix+"DELETE") != ""
	blank := id == 0
	for _, ff := range row.Inputs {
		if ff.Fixed {
			continue
		}
		before := ff.Raw
		ff.Raw = ff.Kind.take(r.form, ff.Input)
		blank = blank && (slices.Equal(ff.Raw, before) || strings.TrimSpace(strings.Join(ff.Raw, "")) == "")
	}
	for _, ff := range row.Inputs {
		if !ff.Fixed && !blank {
			ff.post(r.form)
		}
		if row.Delete {
			ff.Problem = ""
		}
	}
	return row
}

// blank reports whether a new row was left unchanged: then it is ignored.
func (row *formRow) blank() bool {
	for _, ff := range row.Inputs {
		if ff.Problem != "" {
			return false
		}
		fresh := []string{""}
		if ff.Default != nil {
			fresh = ff.Kind.raw(ff.Default())
		}
		if !slices.Equal(ff.Raw, fresh) && strings.TrimSpace(strings.Join(ff.Raw, "")) != "" {
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
	for _, set := range f.sets {
		for _, ff := range set.Inputs {
			many, ok := ff.Kind.(*Many)
			if !ok {
				continue
			}
			options, err := many.options(ctx, q)
			if err != nil {
				return fmt.Errorf("choices of %s: %w", ff.Name, err)
			}
			r.site.options.put(many, options)
			ff.attach(r, options)
		}
	}
	return nil
}

// knownOptions caches the options that forms showed last, for a form that must be rendered without a query.
type knownOptions struct {
	mu   sync.Mutex
	last map[*Many][]option
}

func (k *knownOptions) put(m *Many, options []option) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.last == nil {
		k.last = map[*Many][]option{}
	}
	k.last[m] = options
}

func (k *knownOptions) attach(r *request, f *form) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, set := range f.sets {
		for _, ff := range set.Inputs {
			many, _ := ff.Kind.(*Many)
			if options, known := k.last[many]; known { // otherwise the form carries the chosen ids
				ff.attach(r, options)
			}
		}
	}
}
