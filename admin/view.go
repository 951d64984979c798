package admin

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// The methods of a form field for templates.

// Widget returns the name of the inputs' template.
func (ff *formField) Widget() string {
	if ff.Fixed && ff.Kind.widget() != "many" && ff.Kind.widget() != "passwordhash" {
		return "shown"
	}
	return ff.Kind.widget()
}

// ID returns the id of the first input, as in Django.
func (ff *formField) ID() string { return "id_" + ff.Input }

// First returns the first input's value.
func (ff *formField) First() string { return ff.at(0) }

// Second returns the second input's value, for kinds with two.
func (ff *formField) Second() string { return ff.at(1) }

func (ff *formField) at(i int) string {
	if i < len(ff.Raw) {
		return ff.Raw[i]
	}
	return ""
}

// Start returns the inputs' first values, for the hidden input that detects a lost update. New rows and passwords have
// none.
func (ff *formField) Start() *string {
	if ff.Fixed {
		return nil
	}
	return ff.Initial
}

// Checked reports whether a box is ticked.
func (ff *formField) Checked() bool { return ff.Kind.text(ff.Value) == "true" }

// MaxLength returns the maximum length of a text.
func (ff *formField) MaxLength() int {
	if k, ok := ff.Kind.(Text); ok {
		return k.Max
	}
	return 0
}

// InputType returns the input type of a text.
func (ff *formField) InputType() string {
	if k, ok := ff.Kind.(Text); ok && k.Type != "" {
		return k.Type
	}
	return "text"
}

// Bounds returns the bounds of an integer.
func (ff *formField) Bounds() Integer { k, _ := ff.Kind.(Integer); return k }

// DescribedBy returns the ids of the elements that describe the input, for screen readers.
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

// Shown returns a fixed value as text.
func (ff *formField) Shown() string { return cmp.Or(ff.Text, "-") }

// optionGroup is the options of a Many under one title.
type optionGroup struct {
	Title   string
	Options []option
}

// Groups returns the options by group, for checkboxes with headings.
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

// Lost returns ids that were posted while the options are unknown: the form carries them.
func (ff *formField) Lost() []string {
	if len(ff.Options) > 0 {
		return nil
	}
	return ff.Raw
}

// Usable reports whether the checkbox of the option is enabled.
func (ff *formField) Usable(o option) bool { return !ff.Fixed && !o.Locked }

// The methods of forms and inlines for templates.

// Sets returns the fieldsets.
func (f *form) Sets() []formSet { return f.sets }

// Inlines returns the groups of inline rows.
func (f *form) Inlines() []*formInline { return f.inlines }

// Problems returns the problems of the whole form.
func (f *form) Problems() []string { return f.problems }

// Notices describe a conflict.
func (f *form) Notices() []string { return f.notices }

// Label returns the row's name.
func (f *form) Label() string { return f.label }

// CanAdd reports whether new rows are offered.
func (in *formInline) CanAdd() bool { return in.canAdd }

// Prefix returns the prefix of the inline's inputs.
func (in *formInline) Prefix() string { return in.prefix() }

// Stored returns the number of stored rows.
func (in *formInline) Stored() (n int) {
	for _, row := range in.Rows {
		if row.ID > 0 {
			n++
		}
	}
	return n
}

// Title returns the heading of the rows.
func (in *formInline) Title() string { return capitalized(in.Model.Plural) }

// Group returns the id of a row's fieldset.
func (row *formRow) Group() string { return strings.TrimSuffix(row.Prefix, "-") }

// Number returns the row's place in the form, from 1; for the template row "__number__".
func (row *formRow) Number() string {
	text := row.Group()[strings.LastIndexByte(row.Group(), '-')+1:]
	if n, err := strconv.Atoi(text); err == nil {
		return strconv.Itoa(n + 1)
	}
	return "__number__"
}

// What returns the name of the row's model.
func (row *formRow) What() string {
	return strings.TrimSuffix(row.Group()[:strings.LastIndexByte(row.Group(), '-')], "_set")
}

// Any reports whether there are any rows.
func (c count) Any() bool { return c.n > 0 }
