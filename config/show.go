package config

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"ddtb/db"
)

// WriteTOML writes every key with its current value and, as a comment, its origin. The result can be loaded. A secret
// is a comment, redacted.
func (c *Config) WriteTOML(w io.Writer) error {
	databases := map[string]*Database{}
	for name, d := range c.Databases {
		databases[name] = &d
	}
	out := &strings.Builder{}
	head := "# The configuration in force. File: " + cmp.Or(c.File, "none") + "\n"
	if utf8.RuneCountInString(head) > lineWidth {
		head = strings.Replace(head, "File: ", "File:\n# ", 1)
	}
	out.WriteString(head)
	table := ""
	for _, k := range keysOf(c, databases) {
		parent, name := split(k.name)
		if d := databases[strings.TrimPrefix(parent, "databases.")]; d != nil && d.Hosts != "" && (name == "host" || name == "port") {
			continue // the first of hosts
		}
		if parent != table {
			table = parent
			fmt.Fprintf(out, "\n[%s]\n", table)
		}
		assignment := name + " = " + k.text()
		if k.secret() && k.text() != `""` {
			assignment = "# " + assignment
		}
		line := fmt.Sprintf("%-40s # %s\n", assignment, c.Origins[k.name])
		if utf8.RuneCountInString(line) > lineWidth {
			line = fmt.Sprintf("# %s\n%s\n", c.Origins[k.name], assignment)
		}
		out.WriteString(line)
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// lineWidth is the width of a small terminal and a line break. Where a line would be wider, the origin stands above its
// key.
const lineWidth = 81

// text returns the value as TOML.
func (k *key) text() string {
	switch p := k.target.(type) {
	case *int:
		if *p == db.Auto {
			return strconv.Quote(autoWord)
		}
	case *db.Bytes:
		return strconv.Quote(p.String())
	case *time.Duration:
		return strconv.Quote(brief(*p))
	case *[]string:
		return "[" + quoted(*p) + "]"
	case *db.Hosts:
		return "[" + quoted(p.List()) + "]"
	case *string:
		return strconv.Quote(*p) // without control characters, Go's quotes are TOML's
	case *Secret:
		return strconv.Quote(p.String())
	}
	return fmt.Sprint(k.field())
}

// brief formats an hour as "1h" instead of Go's "1h0m0s".
func brief(d time.Duration) string {
	if d == db.Forever {
		return "none"
	}
	return noZeros.Replace(d.String())
}

var noZeros = strings.NewReplacer("h0m0s", "h", "m0s", "m")
