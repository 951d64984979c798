package config

import (
	"cmp"
	"reflect"
	"slices"
	"strings"

	"ddtb/db"
)

// databaseNames are the tables that [databases] may hold.
var databaseNames = []string{"default", "replica"}

// A key is one thing that can be set: its name, its bounds, and where its value goes. The fields of Config and
// their tags are the only list of keys; file, environment, messages and WriteTOML go by it.
type key struct {
	name   string // "databases.default.pool.max_size"
	allow  string // how it is bounded, see values.go
	target any    // *string, *int, …: the field of the Config
}

// keysOf lists the keys of c and of dbs in the order in which a file has them.
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

// fieldsOf lists the keys of one struct, its tables last, as TOML needs it.
func fieldsOf(prefix string, v reflect.Value) []*key {
	var keys, tables []*key
	for field, value := range v.Fields() {
		name := field.Tag.Get("toml")
		switch {
		case name == "-" || value.Kind() == reflect.Map: // Databases, which keysOf lists
		case value.Kind() == reflect.Struct:
			tables = append(tables, fieldsOf(prefix+name+".", value)...)
		default:
			keys = append(keys, &key{prefix + name, allowed(field.Tag.Get("allow")), value.Addr().Interface()})
		}
	}
	return append(keys, tables...)
}

// variable is the name by which the environment sets the key.
func (k *key) variable() string {
	return "DDTB_" + strings.ToUpper(strings.ReplaceAll(k.name, ".", "_"))
}

func (k *key) secret() bool {
	_, is := k.target.(*Secret)
	return is
}

// split cuts a name into its table and its last part.
func split(name string) (table, last string) {
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		return name[:i], name[i+1:]
	}
	return "", name
}

// join is the name of part in the table.
func join(table, part string) string {
	if table == "" {
		return part
	}
	return table + "." + part
}

// A schema is what a file may hold: the keys, and the tables in which they stand.
type schema struct {
	keys   []*key
	byName map[string]*key
	tables map[string][]string // by name, "" for the top; the tables and the keys in it
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

// has reports whether name is a key or a table.
func (s schema) has(name string) bool { return s.byName[name] != nil || s.tables[name] != nil }

// elsewhere is a table that has a key or a table called last, below the table if there is one, or "".
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

// allowed is the bound in a tag; the strategies are those that package db knows.
func allowed(tag string) string {
	if tag == "strategy" {
		return strings.Join(db.Names(), "|")
	}
	return tag
}
