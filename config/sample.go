package config

import (
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// sample is a configuration file that sets nothing, with every key, its default, its bounds and an explanation.
//
//go:embed ddtb.toml
var sample string

// Init writes the commented reference file to path, readable only by this user. It creates the directory if necessary.
// It does not overwrite a file: errors.Is(err, fs.ErrExist).
func Init(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("can't make the directory of %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is left as it is: edit it, or move it away first: %w", path, fs.ErrExist)
	}
	if err != nil {
		return fmt.Errorf("can't write the configuration: %w", err)
	}
	_, err = f.WriteString(sample)
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("can't write the configuration: %w", err), os.Remove(path)) // no half of it
	}
	return nil
}
