// Package scenarios contains the ways in which applications run PostgreSQL out of connections: one file each, with the
// application that fails, the one that works, and the figure that distinguishes them. A new scenario is one more file.
package scenarios

import (
	"embed"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/agnivade/levenshtein" // the nearest name, as package config finds the nearest key

	"ddtb/app/lab/scene"
)

var all []*scene.Scenario

// add adds a scenario to All. Each file calls it to initialize a variable without a name.
func add(s scene.Scenario) *scene.Scenario {
	all = append(all, &s)
	slices.SortFunc(all, func(a, b *scene.Scenario) int { return a.Number - b.Number })
	return &s
}

// All returns the scenarios in order.
func All() []*scene.Scenario { return slices.Clone(all) }

// Find returns the scenario with that name or number. For an unknown name the error suggests a similar one, if any.
func Find(name string) (*scene.Scenario, error) {
	is := func(s *scene.Scenario) bool { return s.Name == name || strconv.Itoa(s.Number) == name }
	if i := slices.IndexFunc(all, is); i >= 0 {
		return all[i], nil
	}
	nearest := slices.MinFunc(all, func(a, b *scene.Scenario) int {
		return levenshtein.ComputeDistance(name, a.Name) - levenshtein.ComputeDistance(name, b.Name)
	})
	part := slices.IndexFunc(all, func(s *scene.Scenario) bool { return len(name) > 3 && strings.Contains(s.Name, name) })
	if part >= 0 {
		nearest = all[part]
	}
	suggestion := ""
	if part >= 0 || levenshtein.ComputeDistance(name, nearest.Name) <= max(len(name), len(nearest.Name))/2 {
		suggestion = fmt.Sprintf("did you mean %q? ", nearest.Name)
	}
	if len(name) > 40 {
		name = name[:40] + "…"
	}
	return nil, fmt.Errorf("there is no scenario %q: %s`ddtb lab list` shows all of them", name, suggestion)
}

//go:embed *.go
var sources embed.FS

// Source returns the source of a variant as it was compiled. It finds the function by its name, and its end by gofmt's
// style.
func Source(v scene.Variant) (string, error) {
	name := runtime.FuncForPC(reflect.ValueOf(v).Pointer()).Name()
	name = name[strings.LastIndex(name, ".")+1:]
	files, err := sources.ReadDir(".")
	if err != nil {
		return "", err
	}
	for _, f := range files {
		text, err := sources.ReadFile(f.Name())
		if err != nil {
			return "", err
		}
		if _, from, ok := strings.Cut(string(text), "\nfunc "+name+"("); ok {
			body, _, _ := strings.Cut(from, "\n}\n")
			return "func " + name + "(" + body + "\n}", nil
		}
	}
	return "", fmt.Errorf("no file has the function %s", name)
}
