// Package recipes contains the fixes for other stacks: for each kind of failure, the lines to change in eight stacks.
package recipes

// Recipe is the fix for one stack.
type Recipe struct {
	Stack   string
	Code    string
	Version string // of the documentation it was checked against
	Source  string // its address
}

// Group is the fix of one kind of failure in each stack.
type Group struct {
	Lead   string // one sentence
	Stacks []Recipe
}

// Of returns the group with that name, or nil.
func Of(name string) *Group { return groups[name] }

// docs is the documentation of a stack.
type docs struct{ stack, version, source string }

func (d docs) recipe(code string) Recipe { return Recipe{d.stack, code, d.version, d.source} }
