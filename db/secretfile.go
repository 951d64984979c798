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

// ReadSecret reads a file that holds one secret, and returns its mode too. It never blocks on a pipe and reads at most
// 64 KiB. Each error says what to do.
func ReadSecret(path string) (Secret, fs.FileMode, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // otherwise opening a pipe waits for its writer
	if err != nil {
		return "", 0, unreadable(path, err)
	}
	defer func() { _ = f.Close() }() // opened only for reading
	info, err := f.Stat()
	switch {
	case err != nil:
		return "", 0, unreadable(path, err)
	case info.IsDir():
		return "", 0, fmt.Errorf("%s is a directory: name a file in it", path)
	case !info.Mode().IsRegular() && path != os.DevNull: // /dev/null is empty
		return "", 0, fmt.Errorf("%s is not a regular file: name one", path)
	}
	content, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	text := strings.TrimPrefix(TrimLineBreak(string(content)), "\ufeff") // Windows' editors put it first
	switch {
	case err != nil:
		return "", 0, unreadable(path, err)
	case len(content) > maxSecret:
		return "", 0, fmt.Errorf("%s is larger than %d bytes: it must hold the password alone", path, maxSecret)
	case text == "":
		return "", 0, fmt.Errorf("%s is empty: write the password into it", path)
	case strings.ContainsRune(text, 0):
		return "", 0, fmt.Errorf("%s is not UTF-8 text: save it again with that encoding", path)
	case strings.Contains(text, "\n"):
		return "", 0, fmt.Errorf("%s holds more than one line: it must hold the password alone", path)
	}
	return Secret(text), info.Mode(), nil
}

func unreadable(path string, err error) error {
	reason := err
	if e, is := errors.AsType[*fs.PathError](err); is {
		reason = e.Err
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%s can't be read by this user: check its owner and mode: %w", path, reason)
	}
	return fmt.Errorf("%s can't be read: %w", path, reason)
}
