package db

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
)

// maxSecret bounds a file with a secret, in bytes. Cloud providers' tokens, which serve as passwords, have a few KB.
const maxSecret = 64 << 10

// TrimLineBreak removes the line breaks at the end of a secret or a URL. They come from a file, `echo` or a here
// document, and no secret ends in one. Spaces stay: they may be part of a password.
func TrimLineBreak(text string) string { return strings.TrimRight(text, "\r\n") }

// ReadFile reads a regular file of at most limit bytes, and returns its mode too. It never blocks on a pipe. Its errors
// continue a sentence that begins with the path, and say what to do.
func ReadFile(path string, limit int64) ([]byte, fs.FileMode, error) {
	info, err := os.Stat(path) // a socket can't be opened
	switch {
	case err != nil:
		return nil, 0, unreadable(err)
	case info.IsDir():
		return nil, 0, errors.New("is a directory: name a file in it")
	case !info.Mode().IsRegular() && path != os.DevNull: // /dev/null is empty
		return nil, 0, errors.New("is not a regular file: name one")
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // it may have become a pipe
	if err != nil {
		return nil, 0, unreadable(err)
	}
	defer func() { _ = f.Close() }() // opened only for reading
	content, err := io.ReadAll(io.LimitReader(f, limit+1))
	switch {
	case err != nil:
		return nil, 0, unreadable(err)
	case int64(len(content)) > limit:
		return nil, 0, fmt.Errorf("is larger than %d bytes: it can't be the right file", limit)
	}
	return content, info.Mode(), nil
}

// maxDriverFile bounds a file that the driver reads, in bytes. A bundle of all public authorities has 200 KB.
const maxDriverFile = 4 << 20

// driverFiles are the settings that name files which the driver reads, with their variables and default files in ~.
var driverFiles = []struct{ key, variable, standard string }{
	{"passfile", "PGPASSFILE", ".pgpass"},
	{"servicefile", "PGSERVICEFILE", ".pg_service.conf"},
	{"sslrootcert", "PGSSLROOTCERT", ".postgresql/root.crt"},
	{"sslcert", "PGSSLCERT", ".postgresql/postgresql.crt"},
	{"sslkey", "PGSSLKEY", ".postgresql/postgresql.key"},
}

// CheckFiles returns an error if the driver may read a file without an end: a pipe, a device, or more than 4 MiB. The
// files are those given, or else those of libpq's variables, or else the default ones. What the driver can't read at all
// is left to it.
func CheckFiles(rootCert, cert, key string) error {
	given := map[string]string{"sslrootcert": rootCert, "sslcert": cert, "sslkey": key}
	return checkFiles(func(name string) (string, bool) { return given[name], given[name] != "" })
}

// CheckFilesOf is CheckFiles for a connection string, as a URL or as keywords, and the files that it names. Those named
// by the service that it may name are not checked.
func CheckFilesOf(dsn string) error {
	given := settingsOf(dsn)
	return checkFiles(func(name string) (string, bool) {
		path, is := given[name]
		return path, is || given["sslmode"] == "disable" && (name == "sslcert" || name == "sslkey") // it reads sslrootcert even so
	})
}

func checkFiles(given func(name string) (path string, is bool)) error {
	home, _ := os.UserHomeDir() // without one there are no default files
	_, service := given("service")
	for _, f := range driverFiles {
		path, is := given(f.key)
		variable := os.Getenv(f.variable) //nolint:forbidigo // the driver reads the same variables by itself
		switch {
		case f.key == "servicefile" && !service && os.Getenv("PGSERVICE") == "": //nolint:forbidigo // as above
			continue
		case is:
		case variable != "":
			if err := checkFile(variable); err != nil {
				return fmt.Errorf("environment variable %s: %w", f.variable, err)
			}
		case home != "":
			path = filepath.Join(home, f.standard)
		}
		if err := checkFile(path); err != nil {
			return err
		}
	}
	return nil
}

// keyword is one setting of a connection string of keywords, with its value quoted or not.
var keyword = regexp.MustCompile(`(?s)([^\s=]+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s\\]|\\.)*))`)

var escaped = regexp.MustCompile(`(?s)\\(.)`)

// settingsOf returns the settings of a connection string, which the driver will read in the same way. Of a URL, it
// returns those after the question mark.
func settingsOf(dsn string) map[string]string {
	settings := map[string]string{}
	if strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://") {
		_, rest, _ := strings.Cut(dsn, "://")
		if login, host, found := strings.Cut(rest, "@"); found && !strings.Contains(login, "/") {
			rest = host // a password may have a question mark
		}
		_, query, _ := strings.Cut(rest, "?")
		for setting := range strings.SplitSeq(query, "&") {
			name, value, _ := strings.Cut(setting, "=")
			name, _ = url.PathUnescape(name) // the driver refuses what isn't one
			settings[name], _ = url.PathUnescape(strings.TrimSpace(value))
		}
		return settings
	}
	for _, found := range keyword.FindAllStringSubmatch(dsn, -1) {
		settings[found[1]] = escaped.ReplaceAllString(found[2]+found[3], "$1")
	}
	return settings
}

// isNull reports whether the file is the null device, by whatever name: the driver reads it as empty.
func isNull(file os.FileInfo) bool {
	null, err := os.Stat(os.DevNull)
	return err == nil && os.SameFile(file, null)
}

func checkFile(path string) error {
	info, err := os.Stat(path) //nolint:gosec // an operator names it, and the driver opens it
	switch {
	case err != nil || info.IsDir() || isNull(info): // the driver sees at once that it can't use it
		return nil
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file: name one", path)
	case info.Size() > maxDriverFile:
		return fmt.Errorf("%s is larger than %d bytes: it can't be the right file", path, maxDriverFile)
	}
	return nil
}

// ReadSecret reads a file that holds one secret, of at most 64 KiB, as ReadFile does. Its errors name the path.
func ReadSecret(path string) (Secret, fs.FileMode, error) {
	content, mode, err := ReadFile(path, maxSecret)
	text := strings.TrimPrefix(TrimLineBreak(string(content)), "\ufeff") // Windows' editors put it first
	switch {
	case err != nil:
	case text == "":
		err = errors.New("is empty: write the password into it")
	case strings.ContainsRune(text, 0):
		err = errors.New("is not UTF-8 text: save it again with that encoding")
	case strings.Contains(text, "\n"):
		err = errors.New("holds more than one line: it must hold the password alone")
	}
	if err != nil {
		return "", 0, fmt.Errorf("%s %w", path, err)
	}
	return Secret(text), mode, nil
}

func unreadable(err error) error {
	reason := err
	if e, is := errors.AsType[*fs.PathError](err); is {
		reason = e.Err
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("can't be read by this user: check its owner and mode: %w", reason)
	}
	return fmt.Errorf("can't be read: %w", reason)
}
