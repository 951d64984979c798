package config

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"ddtb/db"
)

// settingLine is a line of the sample that sets a key, commented out or not; the words of a sentence are no bare key.
var settingLine = regexp.MustCompile(`^(# )?([a-z_]+) = (.*)$`)

func TestSampleSetsNothing(t *testing.T) {
	c := mustLoad(t, sample)
	equal(t, "the configuration", values(*c), values(Default()))
	equal(t, "the warnings", c.Warnings, nil)
}

func TestSampleHasEveryKeyWithItsDefault(t *testing.T) {
	var lines []string
	for line := range strings.SplitSeq(sample, "\n") {
		if settingLine.MatchString(line) {
			line = strings.TrimPrefix(line, "# ")
		}
		lines = append(lines, line)
	}
	c := mustLoad(t, strings.Join(lines, "\n"))
	equal(t, "the configuration", values(*c), values(Default()))
	for _, k := range newLoader(Options{}).keys {
		if _, set := c.Origins[k.name]; !set && !strings.HasPrefix(k.name, "databases.replica.") {
			t.Errorf("ddtb.toml lacks %s", k.name)
		}
	}
}

func TestTheSampleNamesEveryBound(t *testing.T) {
	comments := commentsOfSample()
	for _, k := range newLoader(Options{}).keys {
		for _, word := range boundsOf(k) {
			if !strings.HasPrefix(k.name, "databases.replica.") && !strings.Contains(comments[k.name], word) {
				t.Errorf("the comment of %s lacks %s:\n%s", k.name, word, comments[k.name])
			}
		}
	}
}

// commentsOfSample is, by key, the paragraph in which the key stands, in one line, and the line of its table.
func commentsOfSample() map[string]string {
	comments := map[string]string{}
	table, paragraph := "", ""
	var names []string
	for line := range strings.SplitSeq(sample+"\n", "\n") {
		if strings.HasPrefix(line, "[") {
			table = line[1:strings.Index(line, "]")]
		}
		if m := settingLine.FindStringSubmatch(line); m != nil {
			names = append(names, join(table, m[2]))
		} else if line != "" {
			paragraph += strings.TrimPrefix(line, "#")
			continue
		}
		if line == "" {
			for _, name := range names {
				comments[name] = paragraph
			}
			names, paragraph = nil, ""
		}
	}
	return comments
}

// boundsOf is how the comment of a key must write its bounds.
func boundsOf(k *key) []string {
	var words []string
	switch k.target.(type) {
	case *string:
		if strings.Contains(k.allow, "|") {
			for w := range strings.SplitSeq(k.allow, "|") {
				words = append(words, fmt.Sprintf("%q", w))
			}
		}
	case *bool, *Secret, *[]string, *db.Hosts:
	default:
		for alternative := range strings.SplitSeq(k.allow, "|") {
			words = append(words, strings.Replace(alternative, "..", " to ", 1))
		}
	}
	return words
}

func TestInitWritesTheSampleOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b", "ddtb.toml")
	if err := Init(path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "the mode", info.Mode(), fs.FileMode(0o600))
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "the content", string(content), sample)
	write(t, path, "mine")
	err = Init(path)
	if err == nil || !strings.Contains(err.Error(), path+" is left as it is") {
		t.Errorf("the second Init says %v", err)
	}
	content, _ = os.ReadFile(path)
	equal(t, "the content after the second Init", string(content), "mine")
	if err := Init(filepath.Join(path, "x.toml")); err == nil {
		t.Error("a file as the directory is accepted")
	}
}
