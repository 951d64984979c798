package config

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// said is what err says, with the file's path made short.
func said(path string, err error) string {
	if err == nil {
		return "no mistake"
	}
	return strings.ReplaceAll(err.Error(), path, "F")
}

// TestMistakesOfAFile reads testdata/mistakes.txt: after "=== NAME" a file, after "--->" what is said of it as F.
func TestMistakesOfAFile(t *testing.T) {
	golden, err := os.ReadFile("testdata/mistakes.txt")
	if err != nil {
		t.Fatal(err)
	}
	for text := range strings.SplitSeq(strings.TrimPrefix(string(golden), "=== "), "\n=== ") {
		name, text, _ := strings.Cut(text, "\n")
		content, want, ok := strings.Cut(text, "\n--->\n")
		if !ok {
			t.Fatalf("%q has no ---> line", name)
		}
		t.Run(name, func(t *testing.T) { mustSay(t, content, strings.TrimSpace(want)) })
	}
}

func mustSay(t *testing.T, content, want string) {
	t.Helper()
	path := write(t, filepath.Join(t.TempDir(), "ddtb.toml"), content)
	c, err := Load(Options{File: path})
	if got := said(path, err); got != want {
		t.Errorf("%q gives\n%s\nwant\n%s", content, got, want)
	}
	if err != nil && c != nil {
		t.Error("a configuration comes with the mistakes")
	}
}

func TestFilesThatAreNoText(t *testing.T) {
	for _, tt := range []struct{ name, content, want string }{
		{"binary", "\x7fELF\x02\x01\x01\x00\x00", "F:1:8: found a NUL character: this is a binary file, not a configuration"},
		{"UTF-16", "\xff\xfe[\x00s\x00", "F:1:1: the file is UTF-16: save it as UTF-8"},
		{"Latin-1", "[mail]\nuser = 'M\xfcnchen'", "F:2:10: found a character that is not UTF-8: save the file as UTF-8"},
		{"huge", "# " + strings.Repeat("x", maxFile), "F: is larger than 1048576 bytes: it can't be the right file"},
		{
			"lone carriage return", "[server]\rreplicas = 2",
			`F:1:9: this is not TOML: expected newline; a line is [table], key = "text", key = 10, key = true, or a # comment`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) { mustSay(t, tt.content, tt.want) })
	}
}

func TestFilesThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	file := write(t, filepath.Join(dir, "file"), "")
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "socket")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	for _, tt := range []struct{ name, path, want string }{
		{"a directory", dir, "F: is a directory: name a file in it"},
		{"below a file", filepath.Join(file, "x"), "F: can't be read: not a directory"},
		{"a link to itself", loop, "F: can't be read: too many levels of symbolic links"},
		{"a socket", socket, "F: is not a regular file: name one"},
		{"an endless device", "/dev/zero", "F: is not a regular file: name one"},
		{"nothing", os.DevNull, "no mistake"},
		{
			"a file that is not there", filepath.Join(dir, "x"),
			"F: there is no such file, though --config names it: " +
				`write one with "ddtb config init --config F", or leave --config out`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Load(Options{File: tt.path})
			equal(t, "the message", said(tt.path, err), tt.want)
		})
	}
	_, err = Load(Options{Environ: []string{"DDTB_CONFIG=" + dir + "/x"}})
	equal(t, "who named it", strings.Contains(err.Error(), "leave DDTB_CONFIG out"), true)
	c, err := Load(Options{Environ: []string{"HOME=" + os.DevNull}})
	if err != nil || c.File != "" {
		t.Errorf("a home that is no directory gives %v", err)
	}
}

func TestMistakesAreErrorsOfTheirOwn(t *testing.T) {
	_, err := load(t, "[server]\nreplicas = 0\n[monitor]\nwarn = 0", "PGPORT=x")
	mistakes, is := errors.AsType[Mistakes](err)
	if !is || len(mistakes) != 3 {
		t.Fatalf("%T %v is not three mistakes", err, err)
	}
	equal(t, "the place", [2]int{mistakes[1].Line, mistakes[1].Column}, [2]int{4, 8})
	equal(t, "the key", mistakes[1].Key, "monitor.warn")
	equal(t, "the variable, which comes last,", mistakes[2].Variable, "PGPORT")
}

// A file of a megabyte with nothing but mistakes costs a page of messages, and no time.
func TestManyMistakesAreBounded(t *testing.T) {
	for _, line := range []string{
		"x=1\n", "[x]\n", "[[server]]\n", "[server]\n", "test.enabled=1\n", "[a.b.c]\n", "mail.x=1\n",
	} {
		_, err := load(t, strings.Repeat(line, maxFile/len(line)))
		lines := strings.Split(fmt.Sprint(err), "\n")
		equal(t, line+" gives lines of", len(lines), maxMistakes+1)
		mistakes, _ := errors.AsType[Mistakes](err)
		equal(t, "the mistakes that are kept", len(mistakes), maxMistakes+1)
		equal(t, "the last one", lines[maxMistakes], "there are more mistakes, which are not shown")
	}
	_, err := load(t, strings.Repeat("x", maxFile-10)+" = 1")
	equal(t, "the length of the message about a long key is small", len(fmt.Sprint(err)) < 500, true)
	_, err = load(t, "x = "+strings.Repeat("[", maxFile-100))
	equal(t, "nesting without end is refused", strings.Contains(fmt.Sprint(err), "nested more than"), true)
	_, err = load(t, "databases.default.port = "+strings.Repeat("{a=", 9000)+"1"+strings.Repeat("}", 9000))
	equal(t, "a deep value is refused", strings.Contains(fmt.Sprint(err), "found a table; allowed is"), true)
}
