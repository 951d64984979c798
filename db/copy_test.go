package db_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/build"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"ddtb/db/dbtest"
)

// parts are what a copy may leave out, with their files. What names them in the files that stay goes as the package's comment
// says: see omit.
var parts = map[string][]string{
	"per-request": {"perrequest.go"},
	"persistent":  {"persistent.go", "persistentsettings.go", "worker.go"},
	"multiplex": {
		"multiplexed.go", "multiplex.go", "multiplexconn.go", "multiplexjoin.go", "multiplexrows.go", "read.go",
		"replica.go", "serverpoll.go", "position.go", "hosts.go",
	},
	"queue":   {"queue.go", "budget.go", "tickets.go"},
	"budget":  {"budget.go", "tickets.go"},
	"breaker": {"breaker.go"},
	"leaks":   {"leaks.go"},
	"reset":   {"reset.go"},
	"tracing": {"trace.go"},
}

// program uses a copy: a pool with its queue, a query, and the line that holds a lease.
const program = `package main

import (
	"context"
	"fmt"
	"os"
	"strconv"

	db "example.com/shop/data.base"
)

func main() {
	ctx := context.Background()
	s := db.DefaultSettings()
	s.Host, s.Name, s.User, s.Password = os.Getenv("DB_HOST"), os.Getenv("DB_NAME"), os.Getenv("DB_USER"), db.Secret(os.Getenv("DB_PASSWORD"))
	s.Port, _ = strconv.Atoi(os.Getenv("DB_PORT"))
	s.Pool.MaxSize = 2
	d, err := db.Open(ctx, s)
	if err != nil {
		panic(err)
	}
	defer d.Close(ctx)
	var answer int
	if err := d.QueryRow(ctx, "SELECT 6 * $1::int", 7).Scan(&answer); err != nil {
		panic(err)
	}
	lease, err := d.Acquire(ctx)
	if err != nil {
		panic(err)
	}
	defer lease.Release()
	fmt.Println(answer, d.Config().Strategy, d.Holders()[0].Where, len(db.Names()))
}
`

func TestTheFilesOfThisPackageWorkWhenTheyAreCopiedAlone(t *testing.T) {
	t.Parallel() // it builds, and waits for nothing else
	cfg := dbtest.Config(t)
	holder := 1 + strings.Count(program[:strings.Index(program, "d.Acquire")], "\n")
	everything := slices.Collect(maps.Keys(parts))
	cases := map[string][]string{"all of them": nil, "the pool alone": everything}
	for _, part := range everything {
		cases["without "+part] = []string{part}
	}
	for name, without := range cases {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			copyPackage(t, dir, without)
			write(t, filepath.Join(dir, "main.go"), program)
			run := goCommand(t, dir, "run", "-gcflags=-N -l", "-ldflags=-s -w", ".") // builds faster, and runs once
			run.Env = append(run.Env, "DB_HOST="+cfg.Host, "DB_PORT="+strconv.Itoa(cfg.Port), "DB_NAME="+cfg.Name,
				"DB_USER="+cfg.User, "DB_PASSWORD="+cfg.Password.Reveal())
			out, err := run.CombinedOutput()
			if want := fmt.Sprintf("42 pool main.go:%d main.main %d\n", holder, remaining(without)); err != nil || string(out) != want {
				t.Errorf("%v: %q, want %q", err, out, want)
			}
		})
	}
}

// remaining returns how many strategies there are without some parts.
func remaining(without []string) int {
	n := 4
	for _, part := range []string{"per-request", "persistent", "multiplex"} {
		if slices.Contains(without, part) {
			n--
		}
	}
	return n
}

func TestThePackageImportsNoOtherPackageOfTheProject(t *testing.T) {
	for _, path := range imports(t) {
		if path == "ddtb" || strings.HasPrefix(path, "ddtb/") {
			t.Errorf("it imports %s", path)
		}
	}
}

// copyPackage makes dir a module with a copy of the package, and a go.mod that requires what the package needs.
func copyPackage(t *testing.T, dir string, without []string) {
	t.Helper()
	target := filepath.Join(dir, "data.base") // a path that the package can't know
	must(t, os.Mkdir(target, 0o750))
	write(t, filepath.Join(dir, "go.mod"), "module example.com/shop\n\ngo 1.26.0\n\n"+requirements(t))
	write(t, filepath.Join(dir, "go.sum"), read(t, "../go.sum"))
	for _, name := range sources(t) {
		if !slices.ContainsFunc(without, func(part string) bool { return slices.Contains(parts[part], name) }) {
			write(t, filepath.Join(target, name), read(t, name))
		}
	}
	if len(without) > 0 {
		omit(t, target)
	}
}

// omit deletes the lines of which the compiler complains, until there are none.
func omit(t *testing.T, dir string) {
	t.Helper()
	for range 10 {
		wrong := complaints(t, dir)
		if len(wrong) == 0 {
			return
		}
		for path, numbers := range wrong {
			lines := strings.Split(read(t, path), "\n")
			slices.Sort(numbers)
			for _, n := range slices.Backward(slices.Compact(numbers)) {
				lines = slices.Delete(lines, n-1, endOf(lines, n-1))
			}
			write(t, path, strings.Join(lines, "\n"))
		}
	}
	t.Fatal("the compiler still complains")
}

// complaints returns the numbers of the lines that don't compile, by file.
func complaints(t *testing.T, dir string) map[string][]int {
	t.Helper()
	set, wrong := token.NewFileSet(), map[string][]int{}
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	must(t, err)
	var files []*ast.File
	for _, path := range paths {
		if ours, err := build.Default.MatchFile(dir, filepath.Base(path)); err != nil || !ours {
			continue // it is for another system
		}
		f, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		must(t, err)
		files = append(files, f)
	}
	checker := types.Config{
		Importer: importer.ForCompiler(set, "gc", func(path string) (io.ReadCloser, error) { return os.Open(compiled()[path]) }),
		Error: func(err error) {
			if e, ok := errors.AsType[types.Error](err); ok {
				at := set.Position(e.Pos)
				wrong[at.Filename] = append(wrong[at.Filename], at.Line)
			}
		},
	}
	_, _ = checker.Check("db", set, files, nil) // Error has the errors
	return wrong
}

// compiled returns the files with the compiled packages that the package imports, by path.
var compiled = sync.OnceValue(func() map[string]string {
	out, err := exec.CommandContext(context.Background(), "go", "list", "-export", "-deps", "-f", "{{.ImportPath}} {{.Export}}", ".").Output()
	if err != nil {
		panic(err)
	}
	files := map[string]string{}
	for line := range strings.Lines(string(out)) {
		path, file, _ := strings.Cut(strings.TrimSpace(line), " ")
		files[path] = file
	}
	return files
})

// endOf returns where the line ends, with the block or the case that it begins.
func endOf(lines []string, n int) int {
	depth := func(line string) int { return len(line) - len(strings.TrimLeft(line, "\t")) }
	line, _, _ := strings.Cut(lines[n], " //")
	end := n + 1
	if !strings.HasSuffix(line, "{") && !strings.HasSuffix(line, ":") {
		return end
	}
	for end < len(lines) && (lines[end] == "" || depth(lines[end]) > depth(line)) {
		end++
	}
	if strings.HasSuffix(line, "{") {
		end++ // with its "}"
	}
	return end
}

// requirements are the modules that the package's own build uses, in the versions of this module.
func requirements(t *testing.T) string {
	t.Helper()
	out, err := goCommand(t, ".", "list", "-deps", "-f", `{{with .Module}}{{if .Version}}require {{.Path}} {{.Version}}{{end}}{{end}}`, ".").Output()
	must(t, err)
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	slices.Sort(lines)
	return strings.Join(slices.Compact(lines), "\n") + "\n"
}

// goCommand is the go tool without a network.
func goCommand(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	c := exec.CommandContext(ctx, "go", args...)
	c.Dir, c.Env = dir, append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off")
	return c
}

// sources are the files of the package, without its tests.
func sources(t *testing.T) (names []string) {
	t.Helper()
	all, err := filepath.Glob("*.go")
	must(t, err)
	for _, name := range all {
		if !strings.HasSuffix(name, "_test.go") {
			names = append(names, name)
		}
	}
	return names
}

// imports are those of every file, on whichever system it is built.
func imports(t *testing.T) (paths []string) {
	t.Helper()
	for _, name := range sources(t) {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		must(t, err)
		for _, spec := range f.Imports {
			path, err := strconv.Unquote(spec.Path.Value)
			must(t, err)
			paths = append(paths, path)
		}
	}
	return paths
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	return string(text)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(text), 0o600))
}
