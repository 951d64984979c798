//go:build !unix

package db

import "github.com/jackc/pgx/v5"

// unread reports false: other systems have no common way to check a socket without reading from it.
func unread(*pgx.Conn) bool { return false }
