package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2"
	// Its decoder stops at the first type error. Its parser allows reporting all mistakes at once, with positions.
	"github.com/pelletier/go-toml/v2/unstable"

	"ddtb/db"
)

// maxFile is the maximum size of a configuration, in bytes.
const maxFile = 1 << 20

// readFile is the first layer.
func (l *loader) readFile() {
	l.layer++
	path, named := l.options.Path()
	if path == "" {
		return
	}
	content, mode, err := db.ReadFile(path, maxFile)
	l.cfg.FileState = identity(content, err)
	if absent := errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR); absent && named == "" {
		return // accounts with the home /dev/null get ENOTDIR
	}
	l.cfg.File = path
	if err != nil {
		l.broken = true
		l.addUnreadable(path, named, err)
		return
	}
	content = bytes.TrimPrefix(content, []byte("\ufeff"))
	if problem, offset := notText(content); problem != "" {
		l.broken = true
		l.fail(at(path, content, offset), "", "%s", problem)
		return
	}
	t := &tomlFile{loader: l, doc: content, seen: map[string]int{}}
	t.read()
	l.warnOfSecrets(path, mode)
}

func (l *loader) addUnreadable(path, named string, err error) {
	message := err.Error()
	if errors.Is(err, fs.ErrNotExist) {
		message = fmt.Sprintf("there is no such file, though %s names it: "+
			"write one with \"ddtb config init --config %s\", or leave %s out", named, path, named)
	}
	l.fail(Origin{File: path}, "", "%s", message)
}

// warnOfSecrets warns if the file contains a secret and other users can read it.
func (l *loader) warnOfSecrets(path string, mode fs.FileMode) {
	for _, k := range l.keys {
		if k.secret() && l.cfg.Origins[k.name].File == path && *k.target.(*Secret) != "" {
			l.warnReadable(path, mode)
			return
		}
	}
}

// notText returns why and where content can't be TOML.
func notText(content []byte) (problem string, offset int) {
	if bytes.HasPrefix(content, []byte("\xff\xfe")) || bytes.HasPrefix(content, []byte("\xfe\xff")) {
		return "the file is UTF-16: save it as UTF-8", 0
	}
	if i := bytes.IndexByte(content, 0); i >= 0 {
		return "found a NUL character: this is a binary file, not a configuration", i
	}
	for i := range string(content) {
		if r, size := utf8.DecodeRune(content[i:]); r == utf8.RuneError && size == 1 {
			return "found a character that is not UTF-8: save the file as UTF-8", i
		}
	}
	return "", 0
}

// at converts an offset to a position, with its column in characters.
func at(path string, doc []byte, offset int) Origin {
	before := doc[:offset]
	line := before[bytes.LastIndexByte(before, '\n')+1:]
	return Origin{File: path, Line: bytes.Count(before, []byte("\n")) + 1, Column: utf8.RuneCount(line) + 1}
}

// tomlFile reads one document into its loader.
type tomlFile struct {
	*loader
	doc    []byte
	parser unstable.Parser
	seen   map[string]int // offset of each key and table that was set, by name
}

// read processes one expression after another. A syntax error ends it, and so do enough mistakes for the output: a file
// can contain a hundred thousand.
func (t *tomlFile) read() {
	t.parser.Reset(t.doc)
	table, known := "", true
	for !t.full() && t.parser.NextExpression() {
		switch e := t.parser.Expression(); e.Kind {
		case unstable.Table, unstable.ArrayTable:
			table, known = t.header(e)
		case unstable.KeyValue:
			if known { // otherwise the table has been rejected
				t.keyValue(table, e)
			}
		}
	}
	err := t.parser.Error()
	t.broken = err != nil || t.full()
	switch {
	case err != nil:
		t.syntaxError(err)
	case len(t.mistakes) == 0:
		t.checkRules()
	}
}

func (t *tomlFile) full() bool { return len(t.mistakes) > maxMistakes }

func (t *tomlFile) failAt(offset int, key, format string, args ...any) {
	t.fail(at(t.cfg.File, t.doc, offset), key, format, args...)
}

// aCharacter matches go-toml's text for a character of the document, which may be part of a password.
var aCharacter = regexp.MustCompile(`(:| but got)? U\+[0-9A-F]+( '.*')?`)

// syntaxError reports the position and the rule, but not the line: it may contain a password.
func (t *tomlFile) syntaxError(err error) {
	offset, message := len(t.doc), err.Error()
	if e, is := errors.AsType[*unstable.ParserError](err); is {
		offset = int(t.parser.Range(e.Highlight).Offset)
	}
	message = aCharacter.ReplaceAllString(message, "")
	t.failAt(offset, "", "this is not TOML: %s; "+
		"a line is [table], key = \"text\", key = 10, key = true, or a # comment", message)
}

// checkRules lets go-toml check rules that involve several keys, such as a table already created by dotted keys.
func (t *tomlFile) checkRules() {
	var document map[string]any
	err := toml.Unmarshal(t.doc, &document)
	if e, is := errors.AsType[*toml.DecodeError](err); is {
		line, column := e.Position()
		message := aCharacter.ReplaceAllString(strings.TrimPrefix(e.Error(), "toml: "), "")
		t.fail(Origin{File: t.cfg.File, Line: line, Column: column}, "", "this is not TOML: %s", message)
	}
}

// first returns the offset of the key of a table or of a key-value.
func first(e *unstable.Node) int {
	it := e.Key()
	it.Next()
	return int(it.Node().Raw.Offset)
}

// header returns the table that a [header] opens, and whether it exists.
func (t *tomlFile) header(e *unstable.Node) (table string, known bool) {
	switch table, known = t.resolve("", e); {
	case !known:
	case t.byName[table] != nil:
		parent, last := split(table)
		t.failAt(first(e), table, "is a key, not a table: write %s = … below [%s]", last, parent)
		return "", false
	case e.Kind == unstable.ArrayTable:
		t.failAt(first(e), table, "is a single table: write [%s] instead of [[%s]]", table, table)
	default:
		t.once(first(e), table)
	}
	return table, known
}

// once rejects a duplicate key or table, and records a replica.
func (t *tomlFile) once(offset int, name string) bool {
	if before, twice := t.seen[name]; twice {
		t.failAt(offset, name, "is there twice, first on line %d: keep one", at(t.cfg.File, t.doc, before).Line)
		return false
	}
	t.seen[name] = offset
	if name == "databases.replica" {
		t.replica = at(t.cfg.File, t.doc, offset)
	}
	return true
}

// resolve returns the full name of e's key in the table, and whether it is a known key or table.
func (t *tomlFile) resolve(table string, e *unstable.Node) (name string, known bool) {
	name = table
	for it := e.Key(); it.Next(); {
		part := string(it.Node().Data)
		child := join(name, part)
		// A part with a dot is quoted: it is not a path.
		if strings.Contains(part, ".") || !t.has(child) {
			t.unknown(e, int(it.Node().Raw.Offset), name, part)
			return "", false
		}
		name = child
	}
	return name, true
}

// unknown reports an unknown part of the table, and suggests a name.
func (t *tomlFile) unknown(e *unstable.Node, offset int, table, part string) {
	name, kind := join(table, bare(part)), "key"
	if e.Kind != unstable.KeyValue {
		kind = "table"
	}
	hint := "allowed here: " + strings.Join(t.tables[table], ", ")
	if t.byName[table] != nil {
		hint = table + " is a single value"
	} else if t.has(join(table, part)) {
		hint = "write it without the quotes"
	} else if there := t.elsewhere(table, part); there != "" {
		hint = "it belongs below [" + there + "]"
	} else if meant := Nearest(part, t.tables[table]); meant != "" {
		hint = "did you mean " + meant + "?"
	}
	t.failAt(offset, name, "unknown %s; %s", kind, hint)
}

var bareKey = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// bare returns part as a file would contain it.
func bare(part string) string {
	if bareKey.MatchString(part) {
		return shorten(part)
	}
	return strconv.Quote(shorten(part))
}

// keyValue sets a key, or all keys of an inline table.
func (t *tomlFile) keyValue(table string, e *unstable.Node) {
	name, known := t.resolve(table, e)
	if !known {
		return
	}
	k, value := t.byName[name], t.valueOffset(e)
	switch {
	case !t.once(first(e), name):
	case k != nil:
		t.set(k, t.value(e), at(t.cfg.File, t.doc, value))
	case e.Value().Kind == unstable.InlineTable:
		for it := e.Value().Children(); !t.full() && it.Next(); {
			t.keyValue(name, it.Node())
		}
	default:
		t.failAt(value, name, "is a table, not a value: write [%s], and its keys below", name)
	}
}

// valueOffset returns where the value begins. The parser only reports it for scalars. Between key and value there are
// only spaces and the "=".
func (t *tomlFile) valueOffset(e *unstable.Node) int {
	var end uint32
	for it := e.Key(); it.Next(); {
		end = it.Node().Raw.Offset + it.Node().Raw.Length
	}
	rest := t.doc[end:]
	value := bytes.TrimLeft(rest[bytes.IndexByte(rest, '=')+1:], " \t")
	return len(t.doc) - len(value)
}

// value lets go-toml decode the single key-value.
func (t *tomlFile) value(e *unstable.Node) any {
	var v any
	if err := toml.Unmarshal(t.parser.Raw(e.Raw), &v); err != nil { // an integer of more than 64 bits, or an invalid date
		return raw(t.doc[t.valueOffset(e) : e.Raw.Offset+e.Raw.Length])
	}
	for it := e.Key(); it.Next(); {
		v = v.(map[string]any)[string(it.Node().Data)]
	}
	return v
}
