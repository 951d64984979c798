// Package recipes contains the fixes for other stacks: for each kind of failure, the lines to change in eight stacks.
// Each .txt file is a group: one sentence, then for each stack a line "== STACK" and its code.
package recipes

import (
	"embed"
	"strings"
)

// Recipe is the fix for one stack.
type Recipe struct {
	Stack   string
	Code    string
	Version string // of the documentation it was checked against
	Source  string // its address
}

// Group is the fix of one kind of failure in each stack.
type Group struct {
	Lead   string // one sentence
	Stacks []Recipe
}

// docs are the stacks with the documentation that their recipes were checked against.
var docs = []Recipe{
	{Stack: "Go (pgx)", Version: "pgx 5.12", Source: "https://pkg.go.dev/github.com/jackc/pgx/v5/pgxpool"},
	{Stack: "Django with psycopg", Version: "Django 6.1 and 5.2, psycopg_pool 3.3", Source: "https://docs.djangoproject.com/en/6.1/ref/databases/#connection-pool"},
	{Stack: "SQLAlchemy", Version: "SQLAlchemy 2.0 and 2.1 beta", Source: "https://docs.sqlalchemy.org/en/20/core/pooling.html"},
	{Stack: "Rails", Version: "Rails 8.1", Source: "https://api.rubyonrails.org/classes/ActiveRecord/ConnectionAdapters/ConnectionPool.html"},
	{Stack: "node-postgres", Version: "pg 8.23", Source: "https://node-postgres.com/apis/pool"},
	{Stack: "Java (HikariCP)", Version: "HikariCP 7.1, pgjdbc 42.7", Source: "https://github.com/brettwooldridge/HikariCP#gear-configuration-knobs-baby"},
	{Stack: "PHP (Laravel)", Version: "Laravel 13", Source: "https://laravel.com/docs/13.x/database"},
	{Stack: pgBouncer, Version: "PgBouncer 1.26", Source: "https://www.pgbouncer.org/config.html"},
}

const pgBouncer = "PgBouncer"

//go:embed *.txt
var files embed.FS

// Of returns the group with that name, or nil.
func Of(name string) *Group {
	text, err := files.ReadFile(name + ".txt")
	if err != nil {
		return nil
	}
	lead, rest, _ := strings.Cut(string(text), "\n")
	g := &Group{Lead: lead}
	for _, recipe := range docs {
		_, code, found := strings.Cut(rest, "\n== "+recipe.Stack+"\n")
		if !found {
			return nil
		}
		code, _, _ = strings.Cut(code, "\n\n== ")
		recipe.Code = strings.TrimSuffix(code, "\n")
		g.Stacks = append(g.Stacks, recipe)
	}
	return g
}
