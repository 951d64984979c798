package activity

import (
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// answers are the values that the actions print.
var answers = []any{Status{}, Health{}, Diagnosis{}, Closing{}, Ending{}, Sample{}, Budget{}, Failure{}}

// field is one field of a type in JSON.
type field struct{ name, of string } // of is the struct in it, in an array of it, or ""

func TestEveryFieldInJSONIsDocumentedAndNoOther(t *testing.T) {
	text, err := os.ReadFile("JSON.md")
	must(t, err)
	documented, links := fieldsInPage(string(text))
	seen := map[string]bool{}
	for _, a := range answers {
		checkDocumented(t, reflect.TypeOf(a), documented, links, seen)
	}
	for section := range documented {
		if !seen[section] {
			t.Errorf("JSON.md has a section %s, and there is no such type in the answers", section)
		}
	}
}

var rowOfField = regexp.MustCompile("(?m)^\\| \\*?`([a-z_]+)`\\*? \\| (.*) \\|$")

// fieldsInPage returns the fields of the tables, by section, and the meaning of each.
func fieldsInPage(page string) (fields map[string][]string, meaning map[field]string) {
	fields, meaning = map[string][]string{}, map[field]string{}
	for _, section := range strings.Split(page, "\n## ")[1:] {
		title, text, _ := strings.Cut(section, "\n")
		for _, row := range rowOfField.FindAllStringSubmatch(text, -1) {
			fields[title] = append(fields[title], row[1])
			meaning[field{row[1], title}] = row[2]
		}
	}
	return fields, meaning
}

func checkDocumented(t *testing.T, typ reflect.Type, documented map[string][]string, meaning map[field]string, seen map[string]bool) {
	t.Helper()
	name := typ.Name()
	if seen[name] {
		return
	}
	seen[name] = true
	want := fieldsOfType(t, typ, name == "Ending")
	for _, f := range want {
		if !slices.Contains(documented[name], f.name) {
			t.Errorf("JSON.md does not document %s of %s", f.name, name)
		}
		said := meaning[field{f.name, name}]
		if f.of != "" && !strings.Contains(said, "](#"+strings.ToLower(f.of)+")") {
			t.Errorf("JSON.md does not say that %s of %s is a %s: %q", f.name, name, f.of, said)
		}
	}
	for _, d := range documented[name] {
		if !slices.ContainsFunc(want, func(f field) bool { return f.name == d }) {
			t.Errorf("JSON.md documents %s of %s, which is not printed", d, name)
		}
	}
	for _, inner := range structsIn(typ) {
		checkDocumented(t, inner, documented, meaning, seen)
	}
}

// fieldsOfType returns the fields that encoding/json writes, and those that MarshalJSON adds.
func fieldsOfType(t *testing.T, typ reflect.Type, ownAlone bool) (fields []field) {
	t.Helper()
	for i := range typ.NumField() {
		f := typ.Field(i)
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && !ownAlone:
			fields = append(fields, fieldsOfType(t, f.Type, false)...)
		case f.Anonymous, !f.IsExported(), tag == "-":
		case tag == "":
			t.Errorf("%s of %s has no name in JSON", f.Name, typ)
		default:
			fields = append(fields, field{tag, structName(f.Type)})
		}
	}
	text, err := json.Marshal(reflect.Zero(typ).Interface())
	must(t, err)
	var printed map[string]any
	must(t, json.Unmarshal(text, &printed))
	for name := range printed {
		if !ownAlone && !slices.ContainsFunc(fields, func(f field) bool { return f.name == name }) {
			fields = append(fields, field{name: name})
		}
	}
	return fields
}

// structsIn returns the structs of this package that typ's fields hold.
func structsIn(typ reflect.Type) (found []reflect.Type) {
	for i := range typ.NumField() {
		f := typ.Field(i)
		inner := bare(f.Type)
		if inner.Kind() != reflect.Struct || inner.PkgPath() != typ.PkgPath() || f.Tag.Get("json") == "-" || !f.IsExported() {
			continue
		}
		if f.Anonymous && inner.Name() == "Snapshot" { // its fields are those of what it is in
			found = append(found, structsIn(inner)...)
			continue
		}
		found = append(found, inner)
	}
	return found
}

func structName(t reflect.Type) string {
	if t = bare(t); t.Kind() == reflect.Struct && t.PkgPath() == reflect.TypeFor[Status]().PkgPath() {
		return t.Name()
	}
	return ""
}

func bare(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	return t
}

// The texts that stand for a value are part of the contract too.
func TestEveryReasonCodeAndOutcomeIsDocumented(t *testing.T) {
	text, err := os.ReadFile("JSON.md")
	must(t, err)
	values := slices.Clone(levelNames)
	for r := range reasons {
		values = append(values, string(r))
	}
	for _, o := range []Outcome{Closed, Cancelled, StillRuns, Signalled, Gone, Changed, Refused, Failed, Planned} {
		values = append(values, string(o))
	}
	for _, v := range values {
		if !strings.Contains(string(text), `"`+v+`"`) {
			t.Errorf("JSON.md does not tell of %q", v)
		}
	}
}
