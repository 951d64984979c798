package config

import (
	"fmt"
	"reflect"
	"strconv"

	"ddtb/db"
)

// Edit returns the database with keys set to the text that a user typed, by names such as "pool.max_size". The file's
// rules apply. problems has the mistakes by key; a key with a problem keeps its value.
func Edit(d Database, typed map[string]string) (edited Database, problems map[string]string) {
	problems = map[string]string{}
	for _, k := range fieldsOf("", reflect.ValueOf(&d).Elem()) {
		if text, is := typed[k.name]; is {
			if problem := k.set(k.parse(text)); problem != "" {
				problems[k.name] = problem
			}
		}
	}
	switch p := d.Pool; {
	case p.MaxSize == db.Auto && d.Pooler != "" && problems["pool.max_size"] == "":
		problems["pool.max_size"] = db.ErrPooledBudget.Error()
	case p.MaxSize != db.Auto && p.MinSize > p.MaxSize && problems["pool.min_size"]+problems["pool.max_size"] == "":
		problems["pool.max_size"] = fmt.Sprintf("%d is less than min_size, %d", p.MaxSize, p.MinSize)
	}
	return d, problems
}

// Text returns the value of a database key as a user types it, or "" for a secret or an unknown key.
func Text(d Database, name string) string {
	for _, k := range fieldsOf("", reflect.ValueOf(&d).Elem()) {
		if k.name != name || k.secret() {
			continue
		}
		text := k.text()
		if bare, err := strconv.Unquote(text); err == nil {
			return bare
		}
		return text
	}
	return ""
}
