package db_test

import (
	"context"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"ddtb/db/dbtest"
)

// parts are what a copy may leave out: the files, and the lines of the files that stay which match the pattern.
var parts = map[string]struct{ files, lines []string }{
	"per-request": {[]string{"perrequest.go"}, []string{"settings.go:PerRequest"}},
	"persistent":  {[]string{"persistent.go", "persistentsettings.go", "worker.go"}, []string{"settings.go:Persistent"}},
	"multiplex": {
		[]string{
			"multiplexed.go", "multiplex.go", "multiplexconn.go", "multiplexjoin.go", "multiplexrows.go", "read.go",
			"replica.go", "serverpoll.go", "position.go", "hosts.go",
		},
		[]string{"settings.go:Multiplex", "db.go:outage", "db.go:replicas", "db.go:UseReplica", "db.go:mayWrite"},
	},
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
	for name, without := range map[string][]string{
		"all of them":    {},
		"the pool alone": {"per-request", "persistent", "multiplex"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			copyPackage(t, dir, without)
			write(t, filepath.Join(dir, "main.go"), program)
			run := goCommand(t, dir, "run", "-gcflags=-N -l", "-ldflags=-s -w", ".") // builds faster, and runs once
			run.Env = append(run.Env, "DB_HOST="+cfg.Host, "DB_PORT="+strconv.Itoa(cfg.Port), "DB_NAME="+cfg.Name,
				"DB_USER="+cfg.User, "DB_PASSWORD="+cfg.Password.Reveal())
			out, err := run.CombinedOutput()
			if want := fmt.Sprintf("42 pool main.go:%d main.main %d\n", holder, 4-len(without)); err != nil || string(out) != want {
				t.Errorf("%v: %q, want %q", err, out, want)
			}
		})
	}
}

func TestEachStrategyBuildsWithoutTheFilesOfTheOthers(t *testing.T) {
	t.Parallel()
	for name, without := range map[string][]string{
		"per-request": {"persistent", "multiplex"},
		"persistent":  {"per-request", "multiplex"},
		"multiplex":   {"per-request", "persistent"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			copyPackage(t, dir, without)
			if out, err := goCommand(t, dir, "vet", "./...").CombinedOutput(); err != nil { // it checks what the compiler checks
				t.Errorf("%v: %s", err, out)
			}
		})
	}
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
	for _, name := range sources(t) {
		if slices.ContainsFunc(without, func(part string) bool { return slices.Contains(parts[part].files, name) }) {
			continue
		}
		text := read(t, name)
		for _, part := range without {
			for _, line := range parts[part].lines {
				if file, pattern, _ := strings.Cut(line, ":"); file == name {
					text = regexp.MustCompile(`(?m)^.*`+pattern+`.*\n`).ReplaceAllString(text, "")
				}
			}
		}
		write(t, filepath.Join(target, name), text)
	}
	write(t, filepath.Join(dir, "go.mod"), "module example.com/shop\n\ngo 1.26.0\n\n"+requirements(t))
	write(t, filepath.Join(dir, "go.sum"), read(t, "../go.sum"))
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
