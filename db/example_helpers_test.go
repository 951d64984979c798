package db_test

import (
	"context"
	"testing"

	"ddtb/db"
	"ddtb/db/dbtest"
)

// exampleTB lets an Example get a database from dbtest, as a test does: an Example has no *testing.T.
type exampleTB struct {
	testing.TB

	ends []func()
}

func (*exampleTB) Helper()                   {}
func (e *exampleTB) Cleanup(end func())      { e.ends = append(e.ends, end) }
func (*exampleTB) Fatal(args ...any)         { panic(args) }
func (*exampleTB) Fatalf(f string, a ...any) { panic([]any{f, a}) }
func (*exampleTB) Error(args ...any)         { panic(args) }
func (*exampleTB) Errorf(f string, a ...any) { panic([]any{f, a}) }
func (*exampleTB) Logf(string, ...any)       {}
func (*exampleTB) Context() context.Context  { return context.Background() }

func (e *exampleTB) end() {
	for i := len(e.ends) - 1; i >= 0; i-- {
		e.ends[i]()
	}
}

// exampleDB opens an empty database on a real PostgreSQL, with the default settings after set.
func exampleDB(set func(*db.Settings)) (*db.DB, func()) {
	d, _, end := exampleWith(set, db.Options{})
	return d, end
}

// exampleWith is exampleDB with options, and what its helpers need.
func exampleWith(set func(*db.Settings), o db.Options) (*db.DB, *exampleTB, func()) {
	tb := &exampleTB{}
	s := dbtest.Config(tb)
	set(&s)
	d, err := db.OpenWith(s, o)
	if err != nil {
		panic(err)
	}
	return d, tb, func() {
		if err := d.Close(context.Background()); err != nil {
			panic(err)
		}
		tb.end()
	}
}
