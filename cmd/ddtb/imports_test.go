package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// layers are the project's packages from top to bottom, without the module's name. A package may import packages in
// lower layers.
var layers = []struct {
	packages []string
	peers    bool // they may import each other; Go prevents cycles
}{
	{packages: []string{"cmd/ddtb"}},
	{packages: []string{"app"}},
	{packages: []string{"polls", "admin", "app/lab", "app/dashboard", "app/lab/site"}},
	{packages: []string{"app/lab/scenarios", "app/lab/scene", "app/lab/recipes"}, peers: true},
	{packages: []string{"app/web", "app/web/...", "app/auth", "app/report", "app/report/...", "app/metrics", "app/trace", "app/trace/..."}, peers: true},
	{packages: []string{"db/..."}, peers: true},
	{packages: []string{"config"}},
	{packages: []string{"db"}},
	{packages: []string{"app/fault"}},
}

// testHelpers start servers and the like. Only tests may import them.
var testHelpers = []string{"ddtb/db/dbtest", "ddtb/db/logtest", "ddtb/app/trace/tracetest", "ddtb/app/web/webtest"}

// onlyIn names the packages that may import certain external packages.
var onlyIn = map[string][]string{
	"github.com/labstack/echo/v4": {"app", "app/web", "app/auth", "app/metrics", "app/lab", "app/lab/site", "app/dashboard", "polls", "admin"},
}

// neverBelow lists what a package must not import, even indirectly.
var neverBelow = map[string][]string{
	"cmd/ddtb":  slices.Concat(testHelpers, []string{"github.com/Shopify/toxiproxy/v2", "github.com/chromedp", "go.uber.org/goleak"}),
	"db":        {"github.com/labstack/echo/v4", "html/template"},
	"config":    {"github.com/labstack/echo/v4"},
	"app/fault": {"net/http"},
}

// listed is the part of a package's `go list` output that the rules use.
type listed struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Deps         []string
}

func TestImportsRunOneWay(t *testing.T) {
	packages := goList(t)
	for _, name := range []string{"ddtb/cmd/ddtb", "ddtb/db", "ddtb/config", "ddtb/app/fault"} {
		if !slices.ContainsFunc(packages, func(p listed) bool { return p.ImportPath == name }) {
			t.Errorf("go list does not know %s: the rules look at nothing", name)
		}
	}
	for _, complaint := range complaints(packages) {
		t.Error(complaint)
	}
}

func TestAWrongImportIsNoticed(t *testing.T) {
	cases := map[string]struct {
		pkg  listed
		want string
	}{
		"upwards": {
			listed{ImportPath: "ddtb/db", Imports: []string{"ddtb/app/web"}},
			"db imports app/web, which stands above it or beside it",
		},
		"sideways": {
			listed{ImportPath: "ddtb/polls", Imports: []string{"ddtb/admin"}},
			"polls imports admin, which stands above it or beside it",
		},
		"up to the directory around it": {
			listed{ImportPath: "ddtb/app/lab", Imports: []string{"ddtb/app"}},
			"app/lab imports app, which stands above it or beside it",
		},
		"upwards in a test": {
			listed{ImportPath: "ddtb/polls", XTestImports: []string{"ddtb/app"}},
			"polls imports app, which stands above it or beside it",
		},
		"test helper in the code": {
			listed{ImportPath: "ddtb/polls", Imports: []string{"ddtb/db/dbtest"}},
			"polls imports db/dbtest outside of a test",
		},
		"library in the wrong place": {
			listed{ImportPath: "ddtb/db", Imports: []string{"github.com/labstack/echo/v4/middleware"}},
			"db imports github.com/labstack/echo/v4/middleware, which belongs in app, app/web, app/auth, app/metrics, app/lab, app/lab/site, app/dashboard, polls, admin",
		},
		"library in a leaf": {
			listed{ImportPath: "ddtb/app/fault", Imports: []string{"github.com/jackc/pgx/v5"}},
			"app/fault imports github.com/jackc/pgx/v5, and may import the standard library only",
		},
		"through another package": {
			listed{ImportPath: "ddtb/cmd/ddtb", Deps: []string{"github.com/Shopify/toxiproxy/v2/toxics"}},
			"cmd/ddtb reaches github.com/Shopify/toxiproxy/v2/toxics, which is kept out of it",
		},
		"unknown package": {
			listed{ImportPath: "ddtb/util"},
			"util stands in no layer: give it a place in layers",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := complaints([]listed{c.pkg}); !slices.Equal(got, []string{c.want}) {
				t.Errorf("complaints:\n%q\nwant:\n%q", got, c.want)
			}
		})
	}
}

func TestARightImportIsLeftAlone(t *testing.T) {
	right := []listed{
		{ImportPath: "ddtb/app", Imports: []string{"ddtb/app/lab", "ddtb/polls", "ddtb/config", "ddtb/app/fault"}},
		{ImportPath: "ddtb/app/auth", Imports: []string{"ddtb/app/web", "github.com/labstack/echo/v4"}},
		{ImportPath: "ddtb/polls", Imports: []string{"ddtb/db"}, TestImports: []string{"ddtb/polls", "ddtb/db/dbtest"}},
		{ImportPath: "ddtb/app/web/webtest", Imports: []string{"ddtb/db/dbtest"}},
		{ImportPath: "ddtb/db/activity", Imports: []string{"ddtb/db", "errors"}},
		{ImportPath: "github.com/labstack/echo/v4/middleware", Imports: []string{"github.com/labstack/echo/v4"}},
	}
	for _, complaint := range complaints(right) {
		t.Error(complaint)
	}
}

// goList describes every package of the module, and all their dependencies.
func goList(t *testing.T) []listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps",
		"-json=ImportPath,Imports,TestImports,XTestImports,Deps", "./...")
	cmd.Dir = "../.."
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var all []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		all = append(all, p)
	}
}

// complaints describes the forbidden imports of the project's packages, one per sentence.
func complaints(packages []listed) []string {
	var out []string
	for _, p := range packages {
		if name, ours := strings.CutPrefix(p.ImportPath, "ddtb/"); ours {
			out = append(out, complaintsAbout(name, p)...)
		}
	}
	return out
}

func complaintsAbout(name string, p listed) []string {
	if layerOf(name) < 0 {
		return []string{name + " stands in no layer: give it a place in layers"}
	}
	var out []string
	add := func(complaint string) {
		if complaint != "" {
			out = append(out, complaint)
		}
	}
	for _, path := range p.Imports {
		add(direction(name, path))
		add(helper(name, path))
		add(library(name, path))
	}
	for _, path := range slices.Concat(p.TestImports, p.XTestImports) {
		if name == "db" && (path == "ddtb/config" || strings.HasPrefix(path, "ddtb/db/")) {
			continue // db's tests are above db, which users copy as a directory
		}
		add(direction(name, path))
	}
	for _, path := range p.Deps {
		add(reach(name, path))
	}
	return out
}

// direction describes a forbidden import of one of the project's packages.
func direction(name, path string) string {
	target, ours := strings.CutPrefix(path, "ddtb/")
	from, to := layerOf(name), layerOf(target)
	if !ours || name == target || from < to || from == to && layers[from].peers {
		return ""
	}
	return name + " imports " + target + ", which stands above it or beside it"
}

// helper describes a forbidden import of a test helper: only tests and other helpers may import it.
func helper(name, path string) string {
	if !slices.Contains(testHelpers, path) || slices.Contains(testHelpers, "ddtb/"+name) {
		return ""
	}
	return name + " imports " + strings.TrimPrefix(path, "ddtb/") + " outside of a test"
}

// library describes a forbidden external import.
func library(name, path string) string {
	if name == "app/fault" && !isStandard(path) {
		return name + " imports " + path + ", and may import the standard library only"
	}
	for module, places := range onlyIn {
		if within(path, module) && !slices.Contains(places, name) {
			return name + " imports " + path + ", which belongs in " + strings.Join(places, ", ")
		}
	}
	return ""
}

// reach describes a forbidden indirect import.
func reach(name, path string) string {
	for _, forbidden := range neverBelow[name] {
		if within(path, forbidden) {
			return name + " reaches " + path + ", which is kept out of it"
		}
	}
	return ""
}

// layerOf returns the index of the package's layer, or -1.
func layerOf(name string) int {
	for i, layer := range layers {
		for _, pattern := range layer.packages {
			directory, open := strings.CutSuffix(pattern, "/...")
			if name == pattern || open && strings.HasPrefix(name, directory+"/") {
				return i
			}
		}
	}
	return -1
}

// within reports whether the import path is the module or package, or is below it.
func within(path, directory string) bool {
	return path == directory || strings.HasPrefix(path, directory+"/")
}

// isStandard relies on the rule that only external modules have a dot in their first element.
func isStandard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}
