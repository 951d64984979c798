package localpg

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
)

// ensureCluster makes the data directory if there is none, and returns the superuser's password.
func (f *directory) ensureCluster(ctx context.Context, p programs, volatile bool) (string, error) {
	if major, err := f.major(); err != nil {
		return "", err
	} else if major == 0 {
		return f.initCluster(ctx, p, volatile)
	}
	password, err := readSecret(f.password())
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("the superuser's password is lost (%s): put the file back, or start anew with --fresh, which deletes the data",
			f.password())
	}
	return password, err
}

// initCluster runs initdb in a directory of another name, so that an interrupted run is never taken for data.
func (f *directory) initCluster(ctx context.Context, p programs, volatile bool) (string, error) {
	if err := os.RemoveAll(f.unfinished()); err != nil {
		return "", err
	}
	password, err := f.newSecret(f.password())
	if err != nil {
		return "", err
	}
	if err := errors.Join(f.acct.own(f.password()), f.putDir(".")); err != nil { // initdb reads the password
		return "", err
	}
	args := []string{
		"--pgdata=" + f.unfinished(), "--username=" + Superuser, "--pwfile=" + f.password(),
		"--auth=scram-sha-256", "--encoding=UTF8",
	}
	if volatile {
		args = append(args, "--no-sync")
	}
	cmd := f.acct.as(exec.Command(p.initdb(), append(args, localeOptions(p.major)...)...)) //nolint:noctx // run minds ctx
	cmd.Dir = f.path
	if out, err := run(ctx, cmd); err != nil {
		return "", fmt.Errorf("initdb: %w: %s", err, gist(out))
	}
	return password, os.Rename(f.unfinished(), f.data())
}

var reported = regexp.MustCompile(`(?m)(FATAL|PANIC|ERROR|error):.*$`)

// gist returns what a program of PostgreSQL reported as an error, or else all of its output.
func gist(output string) string {
	if found := reported.FindAllString(output, -1); len(found) > 0 {
		return strings.Join(found, "; ")
	}
	return output
}

// localeOptions support every letter of Unicode, and sort by code point: the same on every machine.
func localeOptions(major int) []string {
	switch {
	case major >= 17:
		return []string{"--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"}
	case runtime.GOOS == "darwin": // macOS has no C.UTF-8
		return []string{"--locale=C", "--lc-ctype=en_US.UTF-8"}
	}
	return []string{"--locale=C.UTF-8"}
}

// newSecret writes a random password to a file that other users can't read. It replaces an existing file.
func (f *directory) newSecret(name string) (string, error) {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	secret := rand.Text() // 128 bits
	_, err = file.WriteString(secret + "\n")
	return secret, errors.Join(err, file.Sync(), file.Close())
}

func readSecret(name string) (string, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	if secret := strings.TrimSpace(string(text)); secret != "" {
		return secret, nil
	}
	return "", fmt.Errorf("%s is empty: %w", name, fs.ErrNotExist)
}
