// Package migrations holds the schema as goose SQL files, embedded. It must not know how they are applied.
package migrations

import "embed"

// FS holds the migrations, named NNNNN_what.sql and applied in that order.
//
//go:embed *.sql
var FS embed.FS
