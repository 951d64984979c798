package recipes

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestPgBouncersRecipesHaveCommentsOnLinesOfTheirOwn(t *testing.T) {
	t.Parallel()
	names, err := filepath.Glob("*.txt")
	if err != nil || len(names) == 0 {
		t.Fatalf("%d files: %v", len(names), err)
	}
	for _, name := range names {
		for _, s := range Of(strings.TrimSuffix(name, ".txt")).Stacks {
			for line := range strings.Lines(s.Code) {
				if s.Stack == pgBouncer && strings.Index(line, ";") > 0 {
					t.Errorf("%s: PgBouncer takes the comment as part of the value, and does not start: %s", name, line)
				}
			}
		}
	}
}
