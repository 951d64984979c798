package activity

import (
	"context"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"

	"ddtb/db"
)

// Pool is one of PgBouncer's: a database and a user, as its SHOW POOLS tells.
type Pool struct {
	Database      string `json:"database"`
	User          string `json:"user"`
	Mode          string `json:"mode"`           // session, transaction or statement
	ClientActive  int    `json:"client_active"`  // clients with a server connection, or without need of one
	ClientWaiting int    `json:"client_waiting"` // clients that queue for one
	ServerActive  int    `json:"server_active"`
	ServerIdle    int    `json:"server_idle"`
	ServerUsed    int    `json:"server_used"` // idle, and to be tested before use
	MaxWait       Age    `json:"max_wait_seconds"`
}

// consoleName is what PgBouncer calls the database of its console.
const consoleName = "pgbouncer"

// PoolsOf asks the PgBouncer whose console cc names.
func PoolsOf(ctx context.Context, cc *pgx.ConnConfig) ([]Pool, error) {
	cc = cc.Copy()
	cc.Database = consoleName
	cc.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol // its console knows no other
	conn, err := db.Connect(ctx, cc)
	if err != nil { // it lets nobody else into its console
		return nil, fmt.Errorf("ask PgBouncer for its pools (its stats_users must list %s): %w", cc.User, err)
	}
	defer func() { _ = conn.Close(ctx) }()
	rows, _ := conn.Query(ctx, "SHOW POOLS") // the error comes with the rows
	pools, err := pgx.CollectRows(rows, scanPool)
	if err != nil {
		return nil, fmt.Errorf("ask PgBouncer for its pools (its stats_users must list %s): %w", cc.User, err)
	}
	return pools, nil
}

// scanPool goes by the columns' names: each version has some more, in between.
func scanPool(row pgx.CollectableRow) (Pool, error) {
	column := map[string]string{}
	for i, f := range row.FieldDescriptions() {
		column[f.Name] = string(row.RawValues()[i])
	}
	number := func(name string) int {
		n, _ := strconv.Atoi(column[name]) // what a version lacks is 0
		return n
	}
	return Pool{
		Database: column["database"], User: column["user"], Mode: column["pool_mode"],
		ClientActive: number("cl_active"), ClientWaiting: number("cl_waiting"),
		ServerActive: number("sv_active"), ServerIdle: number("sv_idle"), ServerUsed: number("sv_used"),
		MaxWait: seconds(float64(number("maxwait")) + float64(number("maxwait_us"))/1e6),
	}, nil
}
