package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// wallClock matches a current time that has lost its monotonic part.
var wallClock = regexp.MustCompile(`time\.Now\(\)(\.Add\([^)]*\))?\.(Unix|Round\(0|Truncate)`)

// TestNoDurationIsMeasuredByTheWallClock finds code to which a clock that is set forward or back by an hour is an hour.
func TestNoDurationIsMeasuredByTheWallClock(t *testing.T) {
	t.Parallel()
	root, seen := filepath.Join("..", ".."), 0
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		seen++
		for n, line := range strings.Split(string(text), "\n") {
			if wallClock.MatchString(line) {
				t.Errorf("%s:%d: %s", path, n+1, line)
			}
		}
		return err
	})
	if err != nil || seen < 100 {
		t.Errorf("%d files, %v", seen, err)
	}
}
