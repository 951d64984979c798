package admin

import (
	"fmt"
	"strings"
	"time"
)

// App groups models, as Django's applications do.
type App struct {
	Name, Title string
}

// Model declares how a table is listed, searched and edited. models.go has the declarations.
type Model struct {
	App              *App
	Name             string // of the address, the permissions and the content type: "question"
	Singular, Plural string
	Table            string
	Label            string   // the column by which a row is called
	Order            []string // columns of the changelist's order, "-pub_date" for the last first
	Fields           []Field
	Fieldsets        []Fieldset // of the change form
	AddFieldsets     []Fieldset // of the form for a new row; nil: the same
	Columns          []Column   // of the changelist; the first links to the change form
	Filters          []string   // fields
	Search           []string   // columns
	Hierarchy        string     // a DateTime field
	Inlines          []Inline
	Cascade          []Relation // what is deleted with a row, besides inlines and Many
	ReadOnly         bool       // nobody adds, changes or deletes it here
	rules            rules
}

// Field is a column of the table, or a Many relation.
type Field struct {
	Name          string // the column's; and the input's
	Label         string // "": made from the name
	Help          string
	Kind          Kind
	Optional      bool
	ReadOnly      bool   // shown, never taken from a form
	SuperuserOnly bool   // read-only for everybody else
	Volatile      bool   // others than editors change it all the time: not touching it is no conflict
	Taken         string // the message when the value is not unique
	Check         func(value any) (problem string)
	Default       func() any // of a new row
}

// Fieldset is a titled part of a form.
type Fieldset struct {
	Title, Help string
	Fields      []string
}

// Column is one of the changelist's: a field, or something computed from one.
type Column struct {
	Field string                              // what it shows and sorts by
	Title string                              // "": the field's label
	Value func(field any, now time.Time) bool // shown as an icon instead of the field
}

// Inline is rows of another model that belong to one of this: edited on the same page, deleted with it.
type Inline struct {
	Model      *Model
	ForeignKey string
	Extra      int // blank rows
}

// Relation is a table whose rows go when the row goes that its column refers to. With a Model they are listed,
// and may only go if the user may delete them; without, they go silently, as sessions do.
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

// permission is the name of one: "polls.add_question".
func (m *Model) permission(action string) string { return m.App.Name + "." + action + "_" + m.Name }

// path is the address of the changelist, or of what is below it.
func (m *Model) path(below ...any) string {
	path := root + m.App.Name + "/" + m.Name + "/"
	for _, b := range below {
		path += fmt.Sprint(b) + "/"
	}
	return path
}

func (m *Model) field(name string) *Field {
	for i := range m.Fields {
		if m.Fields[i].Name == name {
			return &m.Fields[i]
		}
	}
	return nil
}

// Title is the label of the field, in Django's way: "pub_date" is "Pub date".
func (f *Field) Title() string {
	if f.Label != "" {
		return f.Label
	}
	return capitalized(strings.ReplaceAll(f.Name, "_", " "))
}

func (c *Column) title(m *Model) string {
	if c.Title != "" {
		return c.Title
	}
	return m.field(c.Field).Title()
}

// prefix is that of an inline's inputs, as Django has them: "choice_set".
func (in *Inline) prefix() string { return in.Model.Name + "_set" }

// relations is everything that goes with a row.
func (m *Model) relations() []Relation {
	var all []Relation
	for _, in := range m.Inlines {
		all = append(all, Relation{Model: in.Model, Column: in.ForeignKey})
	}
	for i := range m.Fields {
		if many, ok := m.Fields[i].Kind.(*Many); ok {
			all = append(all, Relation{Table: many.Table, Column: many.Own})
		}
	}
	return append(all, m.Cascade...)
}

func (r *Relation) table() string {
	if r.Model != nil {
		return r.Model.Table
	}
	return r.Table
}

// check panics where a declaration names a field that it does not have: declarations are part of the program.
func (m *Model) check() {
	var names []string
	for _, sets := range [][]Fieldset{m.Fieldsets, m.AddFieldsets} {
		for _, set := range sets {
			names = append(names, set.Fields...)
		}
	}
	for _, c := range m.Columns {
		names = append(names, c.Field)
	}
	names = append(append(names, m.Filters...), m.Search...)
	for _, o := range m.Order {
		names = append(names, strings.TrimPrefix(o, "-"))
	}
	if m.Hierarchy != "" {
		names = append(names, m.Hierarchy)
	}
	for _, name := range names {
		if m.field(name) == nil {
			panic(fmt.Sprintf("admin: %s has no field %q", m.Name, name))
		}
	}
}

func capitalized(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
