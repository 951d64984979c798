package config

import "fmt"

// ReadFile reads a small regular file as those of the configuration are read: a directory, a pipe, a device and a file
// of more than 1 MiB are refused, with what to do.
func ReadFile(path string) ([]byte, error) {
	content, _, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s %w", path, err)
	}
	return content, nil
}
