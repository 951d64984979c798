package recipes

import (
	"strings"
	"testing"
)

func TestPgBouncersRecipesHaveCommentsOnLinesOfTheirOwn(t *testing.T) {
	t.Parallel()
	for name, g := range groups {
		for _, s := range g.Stacks {
			for line := range strings.Lines(s.Code) {
				if s.Stack == bouncerDocs.stack && strings.Index(line, ";") > 0 {
					t.Errorf("%s: PgBouncer takes the comment as part of the value, and does not start: %s", name, line)
				}
			}
		}
	}
}
