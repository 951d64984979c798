package config

import (
	"cmp"
	"reflect"
	"slices"
	"strings"

	"ddtb/db"
)

// databaseNames are the tables allowed in [databases].
var databaseNames = []string{"default", "replica"}

// A key is one setting: its name, its bounds, and the field for its value. The fields of Config and their tags are the
// only list of keys; file, environment, messages and WriteTOML use it.
type key struct {
	name   string // "databases.default.pool.max_size"
	allow  string // its bounds, see values.go
	target any    // *string, *int, …: the field of the Config
}

// keysOf lists the keys of c and of dbs in the order of the file.
func keysOf(c *Config, dbs map[string]*Database) []*key {
	var keys []*key
	for _, name := range databaseNames {
		if d := dbs[name]; d != nil {
			of := fieldsOf("databases."+name+".", reflect.ValueOf(d).Elem())
			keys = append(keys, slices.DeleteFunc(of, func(k *key) bool { return k.name == "databases.default.max_lag" })...)
		}
	}
	return append(keys, fieldsOf("", reflect.ValueOf(c).Elem())...)
}

// fieldsOf lists the keys of one struct. Its tables are last, as TOML requires.
func fieldsOf(prefix string, v reflect.Value) []*key {
	var keys, tables []*key
	for field, value := range v.Fields() {
		name := field.Tag.Get("toml")
		switch {
		case name == "-" || value.Kind() == reflect.Map: // Databases, which keysOf lists
		case value.Kind() == reflect.Struct:
			tables = append(tables, fieldsOf(prefix+name+".", value)...)
		default:
			allow := field.Tag.Get("allow")
			if allow == "strategy" { // those that are registered
				allow = strings.Join(db.Names(), "|")
			}
			keys = append(keys, &key{prefix + name, allow, value.Addr().Interface()})
		}
	}
	return append(keys, tables...)
}

func (k *key) variable() string {
	return "DDTB_" + strings.ToUpper(strings.ReplaceAll(k.name, ".", "_"))
}

func (k *key) secret() bool {
	_, is := k.target.(*Secret)
	return is
}

// split separates a name into its table and its last part.
func split(name string) (table, last string) {
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		return name[:i], name[i+1:]
	}
	return "", name
}

// join returns the name of part in the table.
func join(table, part string) string {
	if table == "" {
		return part
	}
	return table + "." + part
}

// A schema is the allowed contents of a file: the keys and their tables.
type schema struct {
	keys   []*key
	byName map[string]*key
	tables map[string][]string // by name, "" for the top level: the names of its tables and keys
}

func newSchema(keys []*key) schema {
	s := schema{keys, map[string]*key{}, map[string][]string{}}
	for _, k := range keys {
		s.byName[k.name] = k
		for name := k.name; name != ""; {
			table, last := split(name)
			if !slices.Contains(s.tables[table], last) {
				s.tables[table] = append(s.tables[table], last)
			}
			name = table
		}
	}
	return s
}

func (s schema) has(name string) bool { return s.byName[name] != nil || s.tables[name] != nil }

// elsewhere returns a table with a key or table named last, preferably below the table, or "".
func (s schema) elsewhere(table, last string) string {
	found := ""
	for _, k := range s.keys {
		for name := k.name; name != ""; {
			parent, part := split(name)
			if part == last && parent != "" {
				if strings.HasPrefix(parent, table+".") {
					return parent
				}
				found = cmp.Or(found, parent)
			}
			name = parent
		}
	}
	return found
}
