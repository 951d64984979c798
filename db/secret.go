package db

import "fmt"

// Secret is a string that is never printed: not in a log, an error or JSON. Equal secrets are ==.
//
// Two gaps remain, in the libraries. fmt can't call the methods of a value in an unexported field, so a type that keeps
// a Secret, or Settings, in such a field must not be printed whole. JSON writes a map's key as it is.
type Secret string

const redacted = "[redacted]"

// String returns "[redacted]", or "" for the empty secret, so that a missing password is visible.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// Format keeps the secret out of every verb; a Stringer alone would still show it to %d.
func (s Secret) Format(f fmt.State, verb rune) {
	_, _ = fmt.Fprintf(f, fmt.FormatString(f, verb), s.String()) // f reports its own errors
}

// MarshalText keeps the secret out of JSON and slog.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Reveal returns the secret itself, for the one place that sends it.
func (s Secret) Reveal() string { return string(s) }
