package admin

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// What templates ask of a form field.

// Widget names the template of the inputs.
func (ff *formField) Widget() string {
	if ff.Fixed && ff.Kind.widget() != "many" && ff.Kind.widget() != "passwordhash" {
		return "shown"
	}
	return ff.Kind.widget()
}

// ID is the id of the first input, as Django has it.
func (ff *formField) ID() string { return "id_" + ff.Input }

// First and Second are what the inputs show.
func (ff *formField) First() string { return ff.at(0) }

// Second is what the second input shows, of kinds with two.
func (ff *formField) Second() string { return ff.at(1) }

func (ff *formField) at(i int) string {
	if i < len(ff.Raw) {
		return ff.Raw[i]
	}
	return ""
}

// Start is what the inputs showed at first, for the hidden input by which a lost update is found. A new row has
// none, and a password never.
func (ff *formField) Start() *string {
	if ff.Fixed {
		return nil
	}
	return ff.Initial
}

// Checked reports whether a box is ticked.
func (ff *formField) Checked() bool { return ff.Kind.text(ff.Value) == "true" }

// MaxLength is that of a text.
func (ff *formField) MaxLength() int {
	if k, ok := ff.Kind.(Text); ok {
		return k.Max
	}
	return 0
}

// InputType is that of a text's input.
func (ff *formField) InputType() string {
	if k, ok := ff.Kind.(Text); ok && k.Type != "" {
		return k.Type
	}
	return "text"
}

// Bounds are those of an integer.
func (ff *formField) Bounds() Integer { k, _ := ff.Kind.(Integer); return k }

// DescribedBy is the ids of what explains the input to who can't see it.
func (ff *formField) DescribedBy() string {
	ids := ""
	if ff.Problem != "" {
		ids += ff.ID() + "_error "
	}
	if ff.Conflict {
		ids += ff.ID() + "_theirs "
	}
	if ff.Help != "" {
		ids += ff.ID() + "_help"
	}
	return ids
}

// Shown is a fixed value in words.
func (ff *formField) Shown() string { return cmp.Or(ff.Text, "-") }

// optionGroup is the options of a Many under one title.
type optionGroup struct {
	Title   string
	Options []option
}

// Groups are the options by their group, for checkboxes under titles.
func (ff *formField) Groups() []optionGroup {
	var groups []optionGroup
	for _, o := range ff.Options {
		if i := slices.IndexFunc(groups, func(g optionGroup) bool { return g.Title == o.Group }); i >= 0 {
			groups[i].Options = append(groups[i].Options, o)
			continue
		}
		groups = append(groups, optionGroup{o.Group, []option{o}})
	}
	return groups
}

// Lost are ids that were posted while the options are not known: the form carries them along.
func (ff *formField) Lost() []string {
	if len(ff.Options) > 0 {
		return nil
	}
	return ff.Raw
}

// Usable reports whether the box of a locked or fixed option can be used.
func (ff *formField) Usable(o option) bool { return !ff.Fixed && !o.Locked }

// What templates ask of forms and inlines.

// Sets are the fieldsets.
func (f *form) Sets() []formSet { return f.sets }

// Inlines are the groups of inline rows.
func (f *form) Inlines() []*formInline { return f.inlines }

// Problems are what is wrong with the form as a whole.
func (f *form) Problems() []string { return f.problems }

// Notices tell of a conflict.
func (f *form) Notices() []string { return f.notices }

// Label is what the row is called.
func (f *form) Label() string { return f.label }

// CanAdd reports whether new rows are offered.
func (in *formInline) CanAdd() bool { return in.canAdd }

// Prefix is that of the inline's inputs.
func (in *formInline) Prefix() string { return in.prefix() }

// Stored is the number of rows that are in the database.
func (in *formInline) Stored() (n int) {
	for _, row := range in.Rows {
		if row.ID > 0 {
			n++
		}
	}
	return n
}

// Title is the heading of the rows.
func (in *formInline) Title() string { return capitalized(in.Model.Plural) }

// Group is the id of a row's fieldset.
func (row *formRow) Group() string { return strings.TrimSuffix(row.Prefix, "-") }

// Number is the row's place in the form, from 1; the template row has "__number__".
func (row *formRow) Number() string {
	text := row.Group()[strings.LastIndexByte(row.Group(), '-')+1:]
	if n, err := strconv.Atoi(text); err == nil {
		return strconv.Itoa(n + 1)
	}
	return "__number__"
}

// What is the name of what the row is.
func (row *formRow) What() string {
	return strings.TrimSuffix(row.Group()[:strings.LastIndexByte(row.Group(), '-')], "_set")
}

// Any reports whether there is a row at all.
func (c count) Any() bool { return c.n > 0 }
