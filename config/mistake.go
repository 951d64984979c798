package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein" // the nearest name
)

// Origin is the source of a value. At most one of File, Variable and Flag is set; none means the default.
type Origin struct {
	File         string
	Line, Column int    // in File, from 1, the column in characters; 0: the whole file
	Variable     string // an environment variable, "DB_MAX_CONNS"
	Flag         string // "--addr"

	layer     int  // the order of the sources: a later one overrides an earlier one
	inherited bool // a replica's value, from the primary
}

// String returns "default", "FILE:LINE", "environment variable NAME" or the flag.
func (o Origin) String() string {
	switch {
	case o.Line > 0:
		return fmt.Sprintf("%s:%d", o.File, o.Line)
	case o.Variable != "":
		return "environment variable " + o.Variable
	}
	return cmp.Or(o.File, o.Flag, "default")
}

// Mistake is one mistake in the configuration. It never contains a secret.
type Mistake struct {
	Origin
	Key     string // "databases.default.pool.max_size", or "" for the whole file
	Message string // what was found, what is allowed, what to do
}

func (m *Mistake) Error() string {
	where := m.String() // of Origin
	if m.Line > 0 {
		where = fmt.Sprintf("%s:%d", where, m.Column)
	}
	if m.Key == "" {
		return where + ": " + m.Message
	}
	return where + ": " + m.Key + ": " + m.Message
}

// Mistakes lists every mistake found by Load: those of the file by position, then those of the environment.
type Mistakes []*Mistake

// maxMistakes limits the cost of an invalid file, in memory and on the screen.
const maxMistakes = 50

func (ms Mistakes) Error() string {
	var lines []string
	for _, m := range ms {
		lines = append(lines, m.Error())
	}
	if len(ms) > maxMistakes {
		lines = append(lines[:maxMistakes], "there are more mistakes, which are not shown")
	}
	return strings.Join(lines, "\n")
}

// orNil sorts the mistakes; it returns nil if there are none.
func (ms Mistakes) orNil() error {
	if len(ms) == 0 {
		return nil
	}
	slices.SortStableFunc(ms, func(a, b *Mistake) int {
		return cmp.Or(strings.Compare(b.File, a.File), a.Line-b.Line, a.Column-b.Column)
	})
	return ms
}

// Nearest returns the one of names that was probably meant by name, or "".
func Nearest(name string, names []string) string {
	if len(name) < 2 || len(name) > 64 {
		return ""
	}
	best, least := "", max(2, len(name)/3)+1
	for _, n := range names {
		if d := levenshtein.ComputeDistance(strings.ToLower(name), strings.ToLower(n)); d < least {
			best, least = n, d
		}
	}
	return best
}
