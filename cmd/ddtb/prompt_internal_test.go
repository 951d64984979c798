package main

import (
	"bufio"
	"strings"
	"testing"
)

func TestAnAnswerEndsAtEitherLineBreak(t *testing.T) {
	// Typed ahead at a hidden question, Enter is a carriage return; a file from Windows has both characters.
	p := &prompt{lines: bufio.NewReader(strings.NewReader("n\rsecret\r\nyes\nlast"))}
	for _, want := range []string{"n", "secret", "yes", "last"} {
		if got, _ := p.readLine(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
