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

// Checked reports whether a box is ticked.
func (ff *formField) Checked() bool { return ff.Kind.text(ff.Value) == "true" }

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

// The methods of forms and inlines for templates.

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
