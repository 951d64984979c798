package db_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"testing"

	"ddtb/db"
)

func TestCausesAreAllCauses(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "causes.go", nil, 0)
	must(t, err)
	var declared []db.Cause
	ast.Inspect(file, func(n ast.Node) bool {
		spec, is := n.(*ast.ValueSpec)
		if !is || len(spec.Values) != 1 {
			return true
		}
		if kind, is := spec.Type.(*ast.Ident); is && kind.Name == "Cause" {
			text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Error(err)
			}
			declared = append(declared, db.Cause(text))
		}
		return true
	})
	var listed []db.Cause
	for _, c := range db.Causes {
		listed = append(listed, c.Cause)
	}
	if !slices.Equal(declared, listed) {
		t.Errorf("declared are %q, in the list %q", declared, listed)
	}
}
