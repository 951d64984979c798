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
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"ddtb/db"
	"ddtb/db/dbtest"
)

// parts are what a copy may leave out, with their files, by the names of the table in doc.go. See omit for the lines that name
// them in the files that stay.
var parts = map[string][]string{
	"per-request": {"perrequest.go"},
	"persistent":  {"persistent.go", "persistentsettings.go", "worker.go"},
	"multiplex, Read": {
		"multiplexed.go", "multiplex.go", "multiplexconn.go", "multiplexjoin.go", "multiplexrows.go", "read.go",
		"replica.go", "serverpoll.go", "position.go", "hosts.go",
	},
	"queue and budget": {"queue.go", "budget.go", "tickets.go"},
	"budget alone":     {"budget.go", "tickets.go"},
	"circuit breaker":  {"breaker.go"},
	"leak detection":   {"leaks.go"},
	"session reset":    {"reset.go"},
	"tracing":          {"trace.go"},
}

// program uses a copy: a pool, a query, the line that holds a lease, and a request for which none is left.
const program = `package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

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
	where := d.Holders()[0].Where
	other, err := d.Acquire(ctx)
	if err != nil {
		panic(err)
	}
	defer other.Release()
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err = d.Exec(short, "SELECT 1")
	fmt.Println(answer, d.Config().Strategy, where, len(db.Names()), db.CauseOf(err))
}
`

func TestTheFilesOfThisPackageWorkWhenTheyAreCopiedAlone(t *testing.T) {
	t.Parallel() // it builds, and waits for nothing else
	cfg := dbtest.Config(t)
	holder := 1 + strings.Count(program[:strings.Index(program, "d.Acquire")], "\n")
	for name, c := range map[string]struct {
		without    []string
		strategies int
		third      db.Cause
	}{
		"all of them":       {nil, 4, db.PoolTimeout},
		"without the queue": {[]string{"queue and budget"}, 4, db.QueueFull},
		"the pool alone":    {slices.Collect(maps.Keys(parts)), 1, db.QueueFull},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			copyPackage(t, dir, c.without)
			write(t, filepath.Join(dir, "main.go"), program)
			run := goCommand(t, dir, "run", "-gcflags=-N -l", "-ldflags=-s -w", ".") // builds faster, and runs once
			run.Env = append(run.Env, "DB_HOST="+cfg.Host, "DB_PORT="+strconv.Itoa(cfg.Port), "DB_NAME="+cfg.Name,
				"DB_USER="+cfg.User, "DB_PASSWORD="+cfg.Password.Reveal())
			out, err := run.CombinedOutput()
			if want := fmt.Sprintf("42 pool main.go:%d main.main %d %s\n", holder, c.strategies, c.third); err != nil || string(out) != want {
				t.Errorf("%v: %q, want %q", err, out, want)
			}
		})
	}
}

func TestEachPartCanBeLeftOutAsTheTableSays(t *testing.T) {
	table := partsOf(read(t, "doc.go"))
	if len(table) != len(parts) {
		t.Errorf("doc.go has %d parts, and there are %d", len(table), len(parts))
	}
	for part, files := range parts {
		t.Run(part, func(t *testing.T) {
			more := copyPackage(t, t.TempDir(), []string{part})
			if want := fmt.Sprint(files, more); table[part] != want {
				t.Errorf("its files and the other lines are %s, and doc.go says %s", want, table[part])
			}
		})
	}
}

// partsOf returns the rows of the table of parts in doc.go, as fmt.Sprint prints the files and the number.
func partsOf(doc string) map[string]string {
	_, doc, _ = strings.Cut(doc, "//\tpart ")
	doc, _, _ = strings.Cut(doc, "//\n")
	row, file := regexp.MustCompile(`^//\t(\S+(?: \S+)*)  .* (\d+)$`), regexp.MustCompile(`\w+\.go`)
	rows, files, numbers, part := map[string]string{}, map[string][]string{}, map[string]string{}, ""
	for line := range strings.Lines(doc) {
		if m := row.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			part = m[1]
			numbers[part] = m[2]
		}
		files[part] = append(files[part], file.FindAllString(line, -1)...)
	}
	for part, number := range numbers {
		rows[part] = fmt.Sprint(files[part]) + " " + number
	}
	return rows
}

func TestThePackageImportsNoOtherPackageOfTheProject(t *testing.T) {
	for _, path := range imports(t) {
		if path == "ddtb" || strings.HasPrefix(path, "ddtb/") {
			t.Errorf("it imports %s", path)
		}
	}
}

// copyPackage makes dir a module with a copy of the package, and a go.mod that requires what the package needs. It returns how
// many lines were left out besides the files.
func copyPackage(t *testing.T, dir string, without []string) (lines int) {
	t.Helper()
	target := filepath.Join(dir, "data.base") // a path that the package can't know
	must(t, os.Mkdir(target, 0o750))
	write(t, filepath.Join(dir, "go.mod"), "module example.com/shop\n\ngo 1.26.0\n\n"+requirements(t))
	write(t, filepath.Join(dir, "go.sum"), read(t, "../go.sum"))
	for _, name := range sources(t) {
		write(t, filepath.Join(target, name), read(t, name))
	}
	for _, part := range without {
		for _, file := range parts[part] {
			if err := os.Remove(filepath.Join(target, file)); err != nil && len(without) == 1 { // others may have removed it
				t.Error(err)
			}
		}
	}
	if len(without) > 0 {
		lines = omit(t, target)
	}
	return lines
}

// omit deletes the lines of which the compiler complains, until there are none, and returns how many.
func omit(t *testing.T, dir string) (deleted int) {
	t.Helper()
	for range 10 {
		wrong := complaints(t, dir)
		if len(wrong) == 0 {
			return deleted
		}
		for path, numbers := range wrong {
			lines := strings.Split(read(t, path), "\n")
			before := len(lines)
			slices.Sort(numbers)
			for _, n := range slices.Backward(slices.Compact(numbers)) {
				lines = slices.Delete(lines, n-1, endOf(lines, n-1))
			}
			deleted += before - len(lines)
			write(t, path, strings.Join(lines, "\n"))
		}
	}
	t.Fatal("the compiler still complains")
	return deleted
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
	exports, err := compiled()
	must(t, err)
	checker := types.Config{
		Importer: importer.ForCompiler(set, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) }),
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
var compiled = sync.OnceValues(func() (map[string]string, error) {
	out, err := exec.CommandContext(context.Background(), "go", "list", "-export", "-deps", "-f", "{{.ImportPath}} {{.Export}}", ".").Output()
	files := map[string]string{}
	for line := range strings.Lines(string(out)) {
		path, file, _ := strings.Cut(strings.TrimSpace(line), " ")
		files[path] = file
	}
	return files, err
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
