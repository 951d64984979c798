package db

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
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

// CheckFiles returns an error if the driver would read one of the files that libpq's variables name, or one of more,
// without an end: a pipe, a device, or more than 4 MiB. What the driver can't read at all is left to it.
func CheckFiles(more ...string) error {
	for _, name := range []string{"PGPASSFILE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY"} {
		if err := checkFile(os.Getenv(name)); err != nil { //nolint:forbidigo // the driver reads the same variables by itself
			return fmt.Errorf("environment variable %s: %w", name, err)
		}
	}
	for _, path := range more {
		if err := checkFile(path); err != nil {
			return err
		}
	}
	return nil
}

func checkFile(path string) error {
	info, err := os.Stat(path) //nolint:gosec // an operator names it, and the driver opens it
	switch {
	case err != nil || info.IsDir() || path == os.DevNull: // the driver sees at once that it can't use it
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
