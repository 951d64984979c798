package admin

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"ddtb/app/auth"
	"ddtb/app/web"
	"ddtb/db"
)

// App groups models, as Django's applications do.
type App struct {
	Name, Title string
}

// Model declares how a table is listed, searched and edited. The declarations are in models.go.
type Model struct {
	App              *App
	Name             string // in the address, the permissions and the content type: "question"
	Singular, Plural string
	Table            string
	Label            string // the column with a row's name
	Order            string // the column by which the changelist is sorted, "-pub_date" for descending
	Fields           []*Field
	Fieldsets        []Fieldset // of the change form
	AddFieldsets     []Fieldset // of the form for a new row; nil: the same
	Columns          []Column   // of the changelist; the first links to the change form
	Filters          []string   // fields
	Search           []string   // columns
	Hierarchy        string     // a DateTime field among the columns; "": none
	Inlines          []Inline
	Cascade          []Relation // rows deleted with a row, besides inlines and Many
	ReadOnly         bool       // no one can add, change or delete it here

	// prepare does slow work on a valid form before the transaction that saves it.
	prepare func(*request, *form) error

	// protect returns Forbidden if a user may not do an action on one row.
	protect func(ctx context.Context, q db.Querier, actor *auth.User, action string, id int64) error
}

// Field is a column of the table, or a Many.
type Field struct {
	Name          string // of the column and the input
	Label         string // "": derived from the name
	Help          string
	Kind          Kind
	Max           int64               // of a Text or an Integer
	Type          string              // of a Text's input: "email"; "": "text"
	Normal        func(string) string // the form in which a Text is stored; nil: as typed
	Check         func(string) (problem string)
	Names         []string // of a Choice, by number
	Target        Target   // of a Reference
	Pairs         Pairs    // of a Many
	Optional      bool
	ReadOnly      bool   // displayed, never read from a form
	SuperuserOnly bool   // read-only for other users
	Volatile      bool   // changed by others than editors all the time: if untouched, no conflict
	Taken         string // the message for a duplicate value
	Default       func() any
}

// Target is the table that a Reference refers to, and the column that names its rows.
type Target struct{ Table, Label string }

// Pairs is the table that stores a Many: the columns for the row itself and for the other rows. SQL selects the options.
type Pairs struct{ Table, Own, Other, SQL string }

// Fieldset is a titled part of a form.
type Fieldset struct {
	Title, Help string
	Fields      []string
}

// Column is a column of the changelist: a field, or a value computed from one.
type Column struct {
	Field string                              // shown and sorted by
	Title string                              // "": the field's label
	Value func(field any, now time.Time) bool // shown as an icon instead of the field
}

// Inline is a set of rows of another model that belong to a row: edited on the same page, deleted with it.
type Inline struct {
	Model      *Model
	ForeignKey string
	Extra      int // blank rows
}

// Relation is a table whose rows are deleted with the row that their column refers to. With a Model they are listed,
// and the user needs permission to delete them. Without one they are deleted silently, like sessions.
type Relation struct {
	Model  *Model
	Table  string
	Column string
}

const (
	actionView   = "view"
	actionAdd    = "add"
	actionChange = "change"
	actionDelete = "delete"
)

// permission returns a permission's name: "polls.add_question".
func (m *Model) permission(action string) string { return m.App.Name + "." + action + "_" + m.Name }

// path returns the address of the changelist, or of a page below it.
func (m *Model) path(below ...any) string {
	path := root + m.App.Name + "/" + m.Name + "/"
	for _, b := range below {
		path += fmt.Sprint(b) + "/"
	}
	return path
}

// noun returns the name of n rows.
func (m *Model) noun(n int64) string {
	if n == 1 {
		return m.Singular
	}
	return m.Plural
}

func (m *Model) field(name string) *Field {
	for _, f := range m.Fields {
		if f.Name == name {
			return f
		}
	}
	return nil
}

// Title returns the field's label in Django's form: "pub_date" is "Pub date".
func (f *Field) Title() string {
	return cmp.Or(f.Label, web.Capitalized(strings.ReplaceAll(f.Name, "_", " ")))
}

func (m *Model) formFields() []*Field {
	var fields []*Field
	for _, set := range m.Fieldsets {
		for _, name := range set.Fields {
			fields = append(fields, m.field(name))
		}
	}
	return fields
}

// isColumn reports whether the field's value is stored in a column of its name.
func (f *Field) isColumn() bool { return f.Kind != Many && f.Kind != NewPassword }

func (f *Field) initialValue() any {
	switch {
	case f.Default != nil:
		return f.Default()
	case f.Kind == Text:
		return ""
	case f.Kind == Boolean:
		return false
	}
	return nil
}

// relations returns all relations whose rows are deleted with a row.
func (m *Model) relations() []Relation {
	var all []Relation
	for _, in := range m.Inlines {
		all = append(all, Relation{Model: in.Model, Table: in.Model.Table, Column: in.ForeignKey})
	}
	for _, f := range m.Fields {
		if f.Kind == Many {
			all = append(all, Relation{Table: f.Pairs.Table, Column: f.Pairs.Own})
		}
	}
	return append(all, m.Cascade...)
}
