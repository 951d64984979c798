package localpg

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheLastLinesAreThoseOfTheEnd(t *testing.T) {
	name := filepath.Join(t.TempDir(), "log")
	before, since := "before the start\n", strings.Repeat("a refused login\n", 10_000)+"the reason\n"
	if err := os.WriteFile(name, []byte(before+since), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := lastLines(name, int64(len(before))); !strings.HasSuffix(got, "\nthe reason") || strings.Count(got, "\n") != 10 {
		t.Errorf("%q", got)
	}
	if err := os.WriteFile(name, []byte(before+"the reason\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := lastLines(name, int64(len(before))); strings.Contains(got, "before") || !strings.HasSuffix(got, "\nthe reason") {
		t.Errorf("%q", got)
	}
}
