package admin

import (
	"slices"
	"testing"
)

// The expected words are those of Django 3.2's smart_split and unescape_string_literal.
func TestSearchWordsAreDjangos(t *testing.T) {
	for text, want := range map[string][]string{
		`one  two`:        {"one", "two"},
		`"one two" three`: {"one two", "three"},
		`'one two' three`: {"one two", "three"},
		`"a \"b\" c"`:     {`a "b" c`},
		`it's here`:       {"it's", "here"},
		`x"a b"y`:         {`x"a b"y`},
		`"open end`:       {`"open`, "end"},
		`""`:              nil,
		" \u00a0 ":        nil,
	} {
		t.Run(text, func(t *testing.T) {
			if got := searchWords(text); !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}
