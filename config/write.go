package config

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"ddtb/db"
)

// sample is a configuration file that sets nothing, with every key, its default, its bounds and an explanation.
//
//go:embed ddtb.toml
var sample string

// Init writes the commented reference file to path, readable only by this user. It creates the directory if necessary.
// It does not overwrite a file: errors.Is(err, fs.ErrExist).
func Init(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("can't make the directory of %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is left as it is: edit it, or move it away first: %w", path, fs.ErrExist)
	}
	if err != nil {
		return fmt.Errorf("can't write the configuration: %w", err)
	}
	_, err = f.WriteString(sample)
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("can't write the configuration: %w", err), os.Remove(path)) // no half of it
	}
	return nil
}

// SetText sets a key, such as "databases.default.strategy", of the file at path to a text. Everything else stays
// unchanged, including comments. The file keeps its inode and mode: it may be mounted, or a link. On an error nothing has
// been written, unless the disk failed.
func SetText(path, name, text string) error {
	doc, _, err := db.ReadFile(path, maxFile)
	if err != nil {
		return fmt.Errorf("%s %w", path, err)
	}
	start := len(doc) - len(bytes.TrimPrefix(doc, []byte("\ufeff")))
	edited, err := withText(doc[start:], name, text)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	edited = slices.Concat(doc[:start], edited)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("can't write the configuration: %w", err)
	}
	_, err = f.Write(edited) // in place: a reader never finds the file empty
	if err := errors.Join(err, f.Truncate(int64(len(edited))), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("can't write the configuration: %w", err)
	}
	return nil
}

func withText(doc []byte, name, text string) ([]byte, error) {
	table, key := split(name)
	value := strconv.Quote(text)
	var parser unstable.Parser
	parser.Reset(doc)
	current, below := "", -1 // the table that is being read, and where the lines of the wanted one begin
	for parser.NextExpression() {
		e := parser.Expression()
		var path []string
		end := 0
		for it := e.Key(); it.Next(); {
			path = append(path, string(it.Node().Data))
			end = int(it.Node().Raw.Offset + it.Node().Raw.Length)
		}
		switch is := strings.Join(path, "."); {
		case e.Kind == unstable.Table:
			if current = is; current == table {
				below = lineAfter(doc, end)
			}
		case e.Kind == unstable.KeyValue && join(current, is) == name:
			r := e.Value().Raw
			return slices.Concat(doc[:r.Offset], []byte(value), doc[r.Offset+r.Length:]), nil
		}
	}
	if err := parser.Error(); err != nil {
		return nil, fmt.Errorf("this is not TOML; `ddtb config check` has the place")
	}
	if n := len(doc); n > 0 && doc[n-1] != '\n' {
		doc = append(doc, '\n')
	}
	line := key + " = " + value + "\n"
	if below >= 0 {
		below = min(below, len(doc))
		return slices.Concat(doc[:below], []byte(line), doc[below:]), nil
	}
	doc = append(doc, "\n["+table+"]\n"+line...)
	if err := toml.Unmarshal(doc, &map[string]any{}); err != nil {
		return nil, fmt.Errorf("%s is written with dotted keys or as an inline table, which is not edited: "+
			"add %s = %s beside its other keys, written as they are", table, key, value)
	}
	return doc, nil
}

func lineAfter(doc []byte, offset int) int {
	if n := bytes.IndexByte(doc[offset:], '\n'); n >= 0 {
		return offset + n + 1
	}
	return len(doc) + 1 // a line break will be appended
}
