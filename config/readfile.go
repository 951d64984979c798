package config

import "fmt"

// ReadFile reads a small regular file under the rules for the configuration: it rejects a directory, a pipe, a device
// and a file of more than 1 MiB. The error says what to do.
func ReadFile(path string) ([]byte, error) {
	content, _, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s %w", path, err)
	}
	return content, nil
}
