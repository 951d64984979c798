package localpg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"ddtb/db/localpg/system"
)

// directory is Options.Dir, locked: the marker, the data, and the files that belong to it.
type directory struct {
	path string
	acct account
	lock *os.File
}

const (
	markerName = "ddtb-postgres"
	lockName   = "lock"
	markerText = "ddtb keeps its private PostgreSQL in this directory. `ddtb run --fresh` removes what is in it.\n"
)

func (f *directory) data() string       { return filepath.Join(f.path, "data") }
func (f *directory) unfinished() string { return filepath.Join(f.path, "data.new") }
func (f *directory) password() string   { return filepath.Join(f.path, "password") }
func (f *directory) log() string        { return filepath.Join(f.path, "postgres.log") }

// SystemDir is where root's server is, unless XDG_DATA_HOME names another place.
const SystemDir = "/var/lib/ddtb/postgres"

// DefaultDir returns where an installed application keeps its server: ddtb/postgres in dataHome, the value of
// $XDG_DATA_HOME. "" means ~/.local/share or, for root, /var/lib, because PostgreSQL's user can't enter root's home.
func DefaultDir(dataHome string) (string, error) {
	if !filepath.IsAbs(dataHome) { // the XDG specification says to ignore a relative path
		if os.Geteuid() == 0 {
			return SystemDir, nil
		}
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("no directory for PostgreSQL's data: %w: set HOME, or choose a directory with --data DIR", err)
		}
		dataHome = filepath.Join(home, ".local", "share")
	}
	return filepath.Join(dataHome, "ddtb", "postgres"), nil
}

// openDirectory makes dir if it is missing, refuses a directory that is not ours, and locks it.
func openDirectory(dir string, acct account) (*directory, error) {
	if dir == "" {
		return nil, errors.New("no directory was given for its data")
	}
	if err := mkdirAll(dir); err != nil {
		return nil, fmt.Errorf("%w: choose another directory with --data DIR", err)
	}
	f, err := checkedDirectory(dir, acct)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(f.path, acct.dirMode()); err != nil {
		return nil, err
	}
	if err := f.takeLock(); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(f.path, markerName), []byte(markerText), 0o644); err != nil {
		f.unlock()
		return nil, err
	}
	return f, nil
}

// checkedDirectory returns the directory that dir is, or that it links to.
func checkedDirectory(dir string, acct account) (*directory, error) {
	path, err := filepath.EvalSymlinks(dir)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return nil, err
	}
	f := &directory{path: path, acct: acct}
	return f, f.check()
}

// check refuses a directory that other users own or may change, or that holds other files.
func (f *directory) check() error {
	info, err := os.Lstat(f.path)
	if err != nil {
		return err
	}
	owner, ok := system.Owner(info)
	if !ok || owner != os.Geteuid() {
		return fmt.Errorf("%s belongs to another user (uid %d): choose another directory with --data DIR", f.path, owner)
	}
	entries, err := os.ReadDir(f.path)
	if err != nil {
		return err
	}
	marked := slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == markerName })
	foreign := slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() != lockName })
	if !marked && foreign {
		return fmt.Errorf("%s holds files that are not ddtb's (there is no %s among them): choose an empty directory with --data DIR",
			f.path, markerName)
	}
	if marked && info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("others may write to %s (mode %04o): run chmod go-w on it, or choose another directory",
			f.path, info.Mode().Perm())
	}
	return f.acct.reach(f.path)
}

// lockPatience is how long takeLock waits for a process that only looks whether a server runs, see Running.
const lockPatience = 200 * time.Millisecond

// takeLock excludes a second process. The kernel drops the lock when the process ends, for any reason.
func (f *directory) takeLock() error {
	name := filepath.Join(f.path, lockName)
	file, err := system.OpenLock(name)
	if err != nil {
		return err
	}
	held, err := system.TryLock(file)
	for end := time.Now().Add(lockPatience); held && time.Now().Before(end); held, err = system.TryLock(file) {
		<-time.After(10 * time.Millisecond)
	}
	if err != nil {
		defer func() { _ = file.Close() }()
		if !held {
			return fmt.Errorf("locking %s: %w", name, err)
		}
		pid, port := f.lastRun()
		return fmt.Errorf("%w: process %d runs the server of %s on 127.0.0.1:%d; stop it first, or choose another directory with --data DIR",
			ErrRunning, pid, f.path, port)
	}
	f.lock = file
	return nil
}

// unlock releases the lock explicitly, not by closing the file. A child process that another goroutine is forking also
// holds the file, and the lock with it, until its exec.
func (f *directory) unlock() {
	system.Unlock(f.lock)
	_ = f.lock.Close()
}

// noteRun records which process runs the server, for a second process, and which port it uses, for the next run.
func (f *directory) noteRun(port int) error {
	text := fmt.Sprintf("%d %d\n", os.Getpid(), port)
	if err := f.lock.Truncate(0); err != nil {
		return err
	}
	_, err := f.lock.WriteAt([]byte(text), 0)
	return err
}

// lastRun returns the record of noteRun, or zeros.
func (f *directory) lastRun() (pid, port int) {
	text, _ := os.ReadFile(filepath.Join(f.path, lockName))
	if fields := strings.Fields(string(text)); len(fields) == 2 {
		pid, _ = strconv.Atoi(fields[0])
		port, _ = strconv.Atoi(fields[1])
	}
	return pid, port
}

// major returns the major version of the data, or 0 if there is none.
func (f *directory) major() (int, error) {
	text, err := os.ReadFile(filepath.Join(f.data(), "PG_VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(f.data()); err == nil {
			return 0, fmt.Errorf("%s holds no PostgreSQL data (no PG_VERSION): move it away, or start with --fresh", f.data())
		}
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("PG_VERSION in %s is not a number: %w", f.data(), err)
	}
	return n, nil
}

// empty removes everything that Start makes in the directory, except the marker and the lock. The last two are of earlier
// versions.
func (f *directory) empty() error {
	for _, pattern := range []string{"data", "data.new", "password", "*.password", "pgpass", "postgres.log", "*.dsn", "run"} {
		names, err := fs.Glob(os.DirFS(f.path), pattern) // the path may have brackets and stars of its own
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := os.RemoveAll(filepath.Join(f.path, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Remove stops any server that runs on dir's data, and removes dir. It refuses a directory that Start did not make, and
// fails with ErrRunning while another process uses it.
func Remove(ctx context.Context, dir string) error {
	acct, err := serverAccount()
	if err != nil {
		return err
	}
	if _, err := os.Lstat(filepath.Join(dir, markerName)); err != nil {
		return fmt.Errorf("%s is not a directory of ddtb's: %w", dir, err)
	}
	f, err := openDirectory(dir, acct)
	if err != nil {
		return err
	}
	defer f.unlock()
	if err := takeOver(ctx, f, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	if err := f.empty(); err != nil {
		return err
	}
	for _, name := range []string{markerName, lockName} {
		if err := os.Remove(filepath.Join(f.path, name)); err != nil {
			return err
		}
	}
	return os.Remove(f.path)
}
