package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// root is the directory of the repository.
const root = "../.."

func document(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestTheREADMEShowsEveryPicture(t *testing.T) {
	pictures, err := filepath.Glob(filepath.Join(root, ".readme", "*"))
	if err != nil || len(pictures) == 0 {
		t.Fatalf("%d pictures, %v", len(pictures), err)
	}
	readme := document(t, "README.md")
	for _, picture := range pictures {
		if name := ".readme/" + filepath.Base(picture); !strings.Contains(readme, "]("+name+")") {
			t.Errorf("no picture in it is %s", name)
		}
	}
}

// named finds the files and directories that a document names: targets of links, and paths in code.
var named = regexp.MustCompile("\\]\\(([\\w./-]+)\\)|`((?:\\.ci|admin|app|cmd|config|db|polls)/[\\w./-]+)`")

func TestDocumentsNameOnlyWhatIsThere(t *testing.T) {
	for _, name := range []string{"README.md", "CONTRIBUTING.md"} {
		t.Run(name, func(t *testing.T) {
			found := named.FindAllStringSubmatch(document(t, name), -1)
			if len(found) < 10 {
				t.Fatalf("it names %d paths only", len(found))
			}
			for _, path := range found {
				if _, err := os.Stat(filepath.Join(root, path[1]+path[2])); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
