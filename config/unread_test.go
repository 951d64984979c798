package config_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"ddtb/config"
)

// field is one of a struct of a package.
type field struct{ pkg, structure, name string }

// readHere are keys that package config itself turns into something else, which others read.
var readHere = map[field]string{
	{"ddtb/config", "Mail", "PasswordFile"}: "its content is Mail.Password",
	{"ddtb/config", "Fleet", "Budget"}:      "it becomes db.Settings.Budget",
	{"ddtb/config", "Tracing", "Headers"}:   "HeaderMap decodes it",
}

func TestEveryKeyIsReadBySomeCodeOutsideOfThisPackage(t *testing.T) {
	read := fieldsRead(t)
	keys := 0
	eachKey(reflect.TypeFor[config.Config](), func(f field) {
		if keys++; !read[f] && readHere[f] == "" {
			t.Errorf("no code reads %s.%s.%s", f.pkg, f.structure, f.name)
		}
	})
	if keys < 50 {
		t.Errorf("only %d keys were found", keys)
	}
}

// eachKey calls do for the fields of t that are keys.
func eachKey(t reflect.Type, do func(field)) {
	for i := range t.NumField() {
		f := t.Field(i)
		inner := f.Type
		if inner.Kind() == reflect.Map {
			inner = inner.Elem()
		}
		switch {
		case f.Tag.Get("toml") == "-" || f.Tag.Get("toml") == "":
		case inner.Kind() == reflect.Struct:
			eachKey(inner, do)
		default:
			do(field{t.PkgPath(), t.Name(), f.Name})
		}
	}
}

// listed is a package as the go command knows it.
type listed struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
	Standard                bool
}

// fieldsRead are the fields that the program's packages select, but for this one. A field that is only assigned to counts
// too.
func fieldsRead(t *testing.T) map[field]bool {
	t.Helper()
	all := packages(t)
	read, fset := map[field]bool{}, token.NewFileSet()
	imports := importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) { return os.Open(all[path].Export) })
	for path, p := range all {
		if !strings.HasPrefix(path, "ddtb/") || path == "ddtb/config" {
			continue
		}
		var files []*ast.File
		for _, name := range p.GoFiles {
			file, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, file)
		}
		info := &types.Info{Selections: map[*ast.SelectorExpr]*types.Selection{}}
		if _, err := (&types.Config{Importer: imports}).Check(path, fset, files, info); err != nil {
			t.Fatal(err)
		}
		for _, s := range info.Selections {
			if f, ok := fieldOf(s); ok {
				read[f] = true
			}
		}
	}
	return read
}

func fieldOf(s *types.Selection) (field, bool) {
	at := s.Recv()
	if pointer, is := at.Underlying().(*types.Pointer); is {
		at = pointer.Elem()
	}
	named, is := types.Unalias(at).(*types.Named)
	if !is || s.Kind() != types.FieldVal || named.Obj().Pkg() == nil {
		return field{}, false
	}
	return field{named.Obj().Pkg().Path(), named.Obj().Name(), s.Obj().Name()}, true
}

func packages(t *testing.T) map[string]listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles,Standard", "ddtb/...")
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, complaint.String())
	}
	all := map[string]listed{}
	for d := json.NewDecoder(&out); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all[p.ImportPath] = p
	}
}
